"""The command that follows another one, with the paths that were given."""

from pathlib import Path
from typing import Any

import pytest

from distilling_cases import made
from gpt4image import config
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.files import write_json
from gpt4image.base.outcome import Outcome
from gpt4image.commands import COMMANDS
from gpt4image.next_step import next_step


def told(name: str, facts: dict[str, Any]) -> Outcome:
    """Return the result of a command with these facts; others that it needs are 0."""
    return made(COMMANDS[name].result, **facts)


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
ENCODE = "gpt4image encode --store p.db --out p.emb"
BOXES = "gpt4image label --data photos --answers w/b.db --task detection --out w/boxes.parquet"
VIEW = "gpt4image inspect p.db --data photos --page p-2.html"
TABLE, ANSWERS = Path("p.emb"), Path("p.db")
STEPS: list[tuple[tuple[str, Any], dict[str, Any], str]] = [
    (describe(describer=REPLAY, dry_run=True, billed=1.5), {},
     f"gpt4image describe --data photos --describer {REPLAY} --store p.db"),
    (describe(), {"failed": 3}, ENCODE),
    # A sample, to be looked at before more is paid for.
    (describe(limit=300), {"stopped_by": "limit"}, VIEW),
    (describe(), {"rejected": 9}, VIEW),
    (describe(max_cost=5.0), {"stopped_by": "max_cost"}, ENCODE),
    (describe("w/p.db", ask="class"), {}, "gpt4image label --data photos --answers w/p.db --out w/targets.parquet"),
    (describe("w/b.db", ask="boxes"), {}, BOXES),
    (label(embeddings=TABLE, test_fraction=0.3), {"teacher_boxes": None},
     "gpt4image train --test-fraction 0.3 --data photos --targets w/t.parquet --out w/run"),
    (review(), {"labelled": 0}, ""),
    (review(), {"labelled": 5}, "gpt4image train --data manifest:l.csv --out run"),
    # Labels add to what was known: whatever the review read, and all classes.
    (review(answers=Path("w/p.db")), LABELLED, f"{LABEL} --answers w/p.db --classes cat,dog --out w/targets.parquet"),
    (review(embeddings=TABLE), LABELLED, f"{LABEL} --embeddings p.emb --classes cat,dog --out targets.parquet"),
    *((review(**{name: Path("made", file)}), LABELLED,
       "gpt4image distill manifest:l.csv --describer openai:m --prompt long --classes cat,dog --out made")
      for name, file in (("targets", "t.parquet"), ("answers", "answers.db"))),
    (("descriptions import", config.ImportDescriptionsConfig(file="a", store="w/b.db", data="photos")),
     {"counted": {"descriptions": 0, "boxes": 3}}, BOXES),
    (train(), SPLITS | {"test_images": 0}, "gpt4image evaluate run --split val"),
    (train("trained"), NONE, "gpt4image export trained --format timm --out trained-model"),
    (train("w/run", task="pretrain"), SPLITS,
     "gpt4image train --data photos --init w/run/model.safetensors --out w/run-tuned"),
    (("evaluate", config.EvaluateConfig(run_dir="run", split="val")), {}, "gpt4image evaluate run"),
    (("compare", config.CompareConfig(data="photos", out="cmp")), {},
     "gpt4image export cmp --format timm --out cmp-model"),
    (("export", config.ExportConfig(run_dir="run", format="onnx", out="m")), {},
     "gpt4image predict m new-photos --out predictions.csv"),
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
    for name in ("trained", "cmp/baseline-0"):
        write_json(
            Path(name) / "config.json", dict.fromkeys(("data", "arm"), "") | {"task": "classification", "chosen": {}}
        )
    Path("made").mkdir()
    given = {"data": "somewhere", "describer": "openai:m", "prompt": ["long"], "out": "made", "ask": None}
    StageRecords(Path("made")).write_options(given)
    return tmp_path


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("given", "facts", "step"), STEPS, ids=lambda value: str(value)[:20])
def test_the_next_command_has_the_paths_that_were_given(
    given: tuple[str, Any], facts: dict[str, Any], step: str
) -> None:
    name, options = given
    assert next_step(name, options, told(name, facts)) == step
