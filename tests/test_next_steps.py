"""What a command says it wrote and what comes next: with the paths that were given, for a shell and for Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilling_cases import made
from gpt4image import config
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.outcome import Outcome
from gpt4image.config import results
from gpt4image.next_steps import with_next
from tables import made_of
from worlds import in_memory


def told(name: str, facts: dict[str, Any], path: Path | None = None) -> Outcome:
    """Return the result of a command with these facts; others that it needs are empty."""
    kind: type[Outcome] = getattr(results, f"{name.title()}Result", results.StoreResult)
    return kind.of_facts({**dict.fromkeys(made(kind).summary, ""), **facts}, path=path)


SPLITS = {"test_images": 3, "val_images": 2}
NONE = {"test_images": 0, "val_images": 0}


def describe(store: str = "p.db", describer: str = "openai:m", **more: Any) -> tuple[str, Any]:
    return "describe", config.DescribeConfig(data="photos", store=Path(store), describer=describer, **more)


def label(data: str = "photos", **more: Any) -> tuple[str, Any]:
    return "label", config.LabelConfig(data=data, out=Path("w/t.parquet"), **more)


def train(out: str = "run", **more: Any) -> tuple[str, Any]:
    return "train", config.TrainConfig(data="photos", out=Path(out), **more)


def review(data: str = "photos", labels: Path = Path("l.csv"), **more: Any) -> tuple[str, Any]:
    return "review", config.ReviewConfig(data=data, labels=labels, **more)


LABEL, LABELLED = "gpt4image label --data manifest:l.csv", {"labelled": 5, "classes": ["cat", "dog"]}
REPLAY = "replay:t.csv"
FAILED = "gpt4image describe --describer openai:m --data photos --store p.db"
ENCODE = "gpt4image encode --store p.db --out p.emb"
BOXES = "gpt4image label --data photos --answers w/b.db --task detection --out w/boxes.parquet"
TABLE, ANSWERS = Path("p.emb"), Path("p.db")
STEPS: list[tuple[tuple[str, Any], dict[str, Any], str]] = [
    (describe(describer=REPLAY, dry_run=True, billed=1.5), {}, FAILED.replace("openai:m", REPLAY)),
    (describe(), {"failed": 3, "calls": 12}, FAILED),
    (describe(), {"failed": 3, "calls": 0}, ENCODE),  # broken files: asking again would change nothing
    # A sample, to be looked at before more is paid for.
    (describe(limit=300), {"stopped_by": "limit"},
     "gpt4image inspect p.db --data photos --page p-2.html"),
    (describe(), {"rejected": 9}, "gpt4image inspect p.db --data photos --page p-2.html"),
    (describe(max_cost=5.0), {"stopped_by": "max_cost", "failed": 1, "calls": 9}, ENCODE),
    (describe("w/p.db", ask="class"), {}, "gpt4image label --data photos --answers w/p.db --out w/targets.parquet"),
    (describe("w/b.db", ask="boxes"), {}, BOXES),
    (label(embeddings=TABLE, test_fraction=0.3), {},
     "gpt4image train --data photos --test-fraction 0.3 --targets w/t.parquet --out w/run"),
    (review(), {"labelled": 0}, ""),
    (review(), {"labelled": 5}, "gpt4image train --data manifest:l.csv --out run"),
    # Labels add to what was known: whatever the review read, and all classes.
    *((review(**given), LABELLED, f"{LABEL} --answers w/p.db --classes cat,dog --out w/targets.parquet")
      for given in ({"targets": Path("w/t.parquet")}, {"answers": Path("w/p.db")})),
    (review(embeddings=TABLE), LABELLED, f"{LABEL} --embeddings p.emb --classes cat,dog --out targets.parquet"),
    *((review(**{name: Path("made", file)}), LABELLED,
       "gpt4image distill manifest:l.csv --describer openai:m --prompt long --classes cat,dog --out made")
      for name, file in (("targets", "t.parquet"), ("answers", "answers.db"))),
    (review("photos", labels=Path("photos/labels.csv"), targets=Path("made/t.parquet")), LABELLED,
     "gpt4image distill photos --describer openai:m --prompt long --out made"),
    (("distill", config.DistillConfig(data="photos", out=Path("made"), describer="openai:m")), {"measured_on": None},
     "gpt4image review --data photos --labels photos/labels.csv --targets made/targets.parquet"),
    (("distill", config.DistillConfig(data="coco:shop/train.json", out=Path("made"), describer="openai:m")),
     {"measured_on": None},
     "gpt4image review --data coco:shop/train.json --labels shop/labels.csv --targets made/targets.parquet"),
    (("descriptions import", config.ImportDescriptionsConfig(file=Path("a"), store=Path("w/b.db"), data="photos")),
     {"descriptions": 0, "boxes": 3}, BOXES),
    (train(), SPLITS | {"test_images": 0}, "gpt4image evaluate run --split val"),
    (train(), NONE, "gpt4image export run --format timm --out run-timm"),
    (train("w/run", task="pretrain"), SPLITS,
     "gpt4image train --data photos --init w/run/model.safetensors --out w/run-tuned"),
    (("evaluate", config.EvaluateConfig(run_dir=Path("run"), split="val")), {}, "gpt4image evaluate run"),
    (("compare", config.CompareConfig(data="photos", out=Path("cmp"))), {},
     "gpt4image export cmp --format timm --out cmp-timm"),
    (("export", config.ExportConfig(run_dir=Path("run"), format="onnx", out=Path("m.onnx"))), {},
     "gpt4image predict m.onnx new-photos --out predictions.csv"),
    (("doctor", config.DoctorConfig()), {}, "gpt4image demo"),
]  # fmt: skip


ASKED = {"p.db": "description", "w/p.db": "class", "w/b.db": "boxes"}
"""What stores hold answers to."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two stores, and results of an earlier time."""
    monkeypatch.chdir(tmp_path)
    for path, ask in ASKED.items():
        with DescriptionStore(Path(path), write=True) as store:
            prompt = Prompt("short", 1, "", False, ask=(ask,))
            store.note_dataset("other photos")
            store.note_dataset("my photos")
            store.add([Description(digest="00" * 32, prompt=prompt, describer={}, created=0.0, text="A cat.")])
    Path("p.html").touch()
    for name in ("photos", "shop", "made"):
        Path(name).mkdir()
    Path("shop/train.json").touch()
    Path("photos/labels.csv").write_text("path,key,label,split,review,sampled,digest\n", encoding="utf-8")
    given = {"data": "somewhere", "describer": "openai:m", "prompt": ["long"], "out": "made", "ask": None}
    StageRecords(Path("made")).write_options(given)
    targets = made_of(in_memory([b"a"]), ("cat", "dog"), np.array([[1, 0]], np.float32))
    replace(targets, facts=replace(targets.facts, answers=str(Path("w/p.db").absolute()))).save(Path("w/t.parquet"))
    return tmp_path


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("given", "summary", "step"), STEPS, ids=lambda value: str(value)[:20])
def test_the_next_command_has_the_paths_that_were_given(
    given: tuple[str, Any], summary: dict[str, Any], step: str
) -> None:
    name, options = given
    outcome = told(name, summary, Path("w/t.parquet"))
    found = with_next(name, outcome, options, python=False)
    assert found.next == step
    assert found.wrote == (() if name == "doctor" else (Path("w/t.parquet"),))
