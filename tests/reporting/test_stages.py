from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.run_records import Run
from gpt4image.data.regions import Boxes
from gpt4image.reporting.extras import Descriptions
from gpt4image.reporting.stages import commands
from synthetic_records import descriptions
from tables import labels_of_one_image

LABELS = labels_of_one_image()


def known(*describers: str, long: str = "pool") -> Descriptions:
    rows = [{"prompt": "paper", "describer": name} for name in describers]
    found = Descriptions.model_validate(descriptions() | {"store": "my texts.db", "describers": rows})
    return found.model_copy(update={"encoding": found.encoding.model_copy(update={"length_policy": long})})


def run_of(**config: Any) -> Run:
    return Run.model_construct(config={name: str(value) for name, value in config.items()})


def test_a_command_that_goes_through_all_stages_stands_alone() -> None:
    for last in ("gpt4image demo --out demo-out", "gpt4image distill photos --describer openai:m"):
        assert commands(known("openai:m"), [], [last, last]) == [last]


def test_texts_that_no_describer_wrote_are_imported_and_nothing_is_made_up() -> None:
    assert commands(known("somebody", "openai:m (seed=1)"), [], ["gpt4image compare --out cmp"]) == [
        "gpt4image descriptions import FILE --store 'my texts.db'",
        "gpt4image describe --data '' --store 'my texts.db' --describer openai:m --prompt paper",
        "gpt4image compare --out cmp",
    ]
    assert commands(None, [], []) == []


@pytest.mark.parametrize(
    ("facts", "given"),
    [
        ({"evidence": "texts", "embeddings": ("{}/p.emb",)}, "--embeddings p.emb --evidence texts"),
        ({"evidence": "fused", "embeddings": ("/o.emb",), "answers": "/a.db"}, "--answers /a.db --embeddings /o.emb"),
        ({"evidence": "answers", "answers": "/a.db", "seed": 2}, "--answers /a.db --evidence answers --seed 2"),
        (
            {"evidence": "fused", "answers": "/a.db", "task": "multilabel"},
            "--answers /a.db --task multilabel",
        ),
    ],
)
def test_labels_are_made_again_by_what_they_were_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "embeddings" in facts:
        facts = facts | {"embeddings": tuple(path.format(tmp_path) for path in facts["embeddings"])}
    replace(LABELS, facts=replace(LABELS.facts, **facts)).save(tmp_path / "t.parquet")
    runs = [run_of(data="folder:photos", embeddings="p.emb", text_labels="t.parquet")]
    assert commands(None, runs, []) == [f"gpt4image label --data folder:photos {given} --out t.parquet"]


def test_boxes_are_made_again_and_lost_labels_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = {"evidence": "answers", "answers": "/a.db", "embeddings": "", "seed": 0}
    boxes = BoxLabels(keys=(), digests=(), boxes=Boxes.of_images([]), classes=("a",), facts=facts)
    boxes.save(tmp_path / "t.parquet")
    runs = [run_of(data="coco:b.json", text_labels="t.parquet")]
    (command,) = commands(None, runs, [])
    assert command == (
        "gpt4image label --data coco:b.json --answers /a.db --task detection --evidence answers --out t.parquet"
    )
    (tmp_path / "t.parquet").unlink()
    assert commands(None, runs, []) == []


def test_texts_that_were_cut_are_cut_again() -> None:
    runs = [run_of(data="folder:photos", embeddings="p.emb")]
    cut, pooled = (commands(known("openai:m", long=long), runs, [])[1] for long in ("cut", "pool"))
    assert " --long cut --out p.emb" in cut and "--long" not in pooled
