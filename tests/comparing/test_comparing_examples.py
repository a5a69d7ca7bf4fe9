"""What stages leave for the report: from real runs, a store with a price, and labels that the text doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpt4image.reporting.gather import gather_comparison

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import make_plan
from gpt4image.config import CompareConfig, EncodeConfig, LabelConfig, ReportConfig, TrainConfig
from gpt4image.data import load_image_set
from gpt4image.encoding.encode import encode
from gpt4image.labelling.label import label
from gpt4image.reporting.extras import Descriptions, Doubt, Example
from gpt4image.reporting.report import report
from gpt4image.training.train import train

SMALL: dict[str, Any] = {
    "model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}, "image_size": 16, "batch_size": 8,
    "epochs": 2, "lr": 0.005, "precision": "fp32", "memory_format": "contiguous",
}  # fmt: skip
SHADES = ("bright", "dark", "pale", "deep", "warm", "cold", "soft", "loud")


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A folder in which a red picture lies among the blue ones, and the embeddings of what was said of its pictures."""
    (colour_folder / "red" / "00.png").rename(colour_folder / "blue" / "wrong.png")
    images, prompt = load_image_set(f"folder:{colour_folder}"), Prompt("paper", 1, "Describe it.", False)
    names = ["red" if key.endswith("wrong.png") else key.split("/")[0] for key in images.keys]
    with DescriptionStore(tmp_path / "texts.db", write=True) as store:
        store.add(
            Description(
                digest=digest, prompt=prompt, describer={"kind": "openai", "model": "gpt"}, created=0.0,
                text=f"A {SHADES[i % 8]} {name} square number {i}.", tokens_in=100, tokens_out=8, cost_usd=0.001,
            )
            for i, (digest, name) in enumerate(zip(images.digests, names, strict=True))
        )  # fmt: skip
    encode(EncodeConfig(store=tmp_path / "texts.db", encoder="bag-of-words", out=tmp_path / "table"))
    return colour_folder, tmp_path / "table"


@pytest.mark.slow
def test_a_comparison_leaves_pictures_texts_and_doubts(described: tuple[Path, Path], tmp_path: Path) -> None:
    folder, table = described
    out = tmp_path / "cmp"
    options: dict[str, Any] = {"data": f"folder:{folder}", "embeddings": table, "out": out, "seeds": 1, "jobs": 1}
    config = CompareConfig(**options, **SMALL, arms="aligned,text-labels", labels_per_class=6)
    outcome = compare(config)
    assert outcome.set_aside == ()
    examples = [Example.model_validate(row) for row in read_json(out / "examples.json")]
    assert all(len(example.neighbours) == 3 for example in examples)
    assert {"baseline", "aligned", "text-labels"} == set(examples[0].predictions)
    known = Descriptions.model_validate(read_json(out / "descriptions.json"))
    assert known.described == known.images == known.descriptions == 48 and known.describers[
        0
    ].cost_usd == pytest.approx(0.048)
    assert known.words is not None and known.words["min"] == 6 and known.vocabulary is not None
    assert isinstance(read_json(out / "doubtful-labels.json"), list)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("done", "pictures", "descriptions"))
    (tmp_path / "texts.db").write_bytes(b"no store any more" * 100)
    set_aside = gather_comparison([make_plan(config)])
    assert {item.name for item in set_aside} >= {"descriptions.json"}
    assert all("left out of the report" in item.reason for item in set_aside)
    gather_comparison([make_plan(config.model_copy(update={"arms": "baseline"}))])
    left = {path.name for path in out.glob("*.json")}
    assert not left & {"doubtful-labels.json", "descriptions.json"}, "they were of other arms"


@pytest.mark.slow
def test_a_run_leaves_what_its_train_and_validation_pictures_tell(described: tuple[Path, Path], tmp_path: Path) -> None:
    folder, table = described
    data, run = f"folder:{folder}", tmp_path / "run"
    told = Prompt("class-conditioned", 1, "A {class_name}.", True)  # what the table does not hold is no evidence
    with DescriptionStore(tmp_path / "texts.db", write=True) as store:
        store.add(
            Description(digest=digest, prompt=told, describer={}, created=0.0, text="It is what I was told.")
            for digest in load_image_set(data).digests
        )
    label(LabelConfig(data=data, embeddings=table, out=tmp_path / "labels.parquet", val_fraction=0.2))
    outcome = train(
        TrainConfig(
            data=data, embeddings=table, text_labels=tmp_path / "labels.parquet", out=run, val_fraction=0.2, **SMALL
        )
    )
    assert outcome.set_aside == ()
    doubts = [Doubt.model_validate(row) for row in read_json(run / "doubtful-labels.json")]
    examples = [Example.model_validate(row) for row in read_json(run / "examples.json")]
    assert all(example.text_label and example.text_label.probability < 1 for example in examples)
    assert {len(example.descriptions) for example in examples} == {1}
    assert [(doubt.key, doubt.given, doubt.text) for doubt in doubts] == [("blue/wrong.png", "blue", "red")]
    assert "red square" in doubts[0].description
    known = Descriptions.model_validate(read_json(run / "descriptions.json"))
    assert [asked.name for asked in known.prompts] == ["paper"] == [by.prompt for by in known.describers]
    assert known.descriptions == 48, "what the table does not hold is not counted"
    assert report(ReportConfig(dir=run)).set_aside == ()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("done", "pictures", "doubtful", "descriptions"))
    for name in ("doubtful-labels.json", "descriptions.json", "examples.json"):
        (run / name).unlink()
    report(ReportConfig(dir=run))
    assert 'id="pictures"' not in (run / "report.html").read_text(encoding="utf-8")
