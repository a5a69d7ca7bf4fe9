"""What each command prints as the next one, given as it stands, leads from a folder of pictures to predictions."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from box_cases import boxes_said_of, write_squares
from drawn_masks import draw
from gpt4image import next_steps
from gpt4image.cli import main
from made_pictures import write_photos

TINY = (
    "--epochs 1 --image-size 32 --batch-size 4 --model resnet10t --threads 1 --precision fp32 "
    """--memory-format contiguous --model-args '{"channels":[8,8,16,16],"stem_width":8}'"""
)
SHORT = {"train": TINY, "encode": "--encoder bag-of-words:16", "label": "--val-fraction 0", "predict": "--threads 1"}
"""What the test adds to a command, so that it takes seconds. Nothing else differs from what is printed."""
KINDS = {"cat": (200, 60, 40), "dog": (40, 60, 200)}


def answers(rows: list[dict[str, Any]]) -> str:
    Path("said.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return "--describer replay:said.jsonl"


def described(data: str, labelled: int, words: str) -> str:
    """Return a command that reads answers about pictures of which so many per class have a label."""
    spec, said = shlex.quote(data), answers(write_photos(Path(data.removeprefix("folder:")), labelled, KINDS))
    return f"describe --data {spec} {said} {words}"


def reviewed() -> str:
    """Pictures with answers and embeddings, and labels that a person gave in another program."""
    rows = write_photos(Path("photos"), 0, KINDS)
    run(f"describe --data photos --store photos.db {answers(rows)} --ask description,class --classes cat,dog")
    run("encode --store photos.db --out photos.emb --encoder bag-of-words:16")
    tasks(rows)
    Path("run").mkdir()  # of an earlier training
    evidence = "--answers photos.db --embeddings photos.emb"
    return f"review --data photos --labels photos/labels.csv {evidence}"


def tasks(rows: list[dict[str, Any]]) -> None:
    Path("tasks.json").write_text(json.dumps({row["key"]: row["class"] for row in rows[::2]}), encoding="utf-8")


def click(sessions: Any, *_: Any) -> None:
    """Label on the page as a person does."""
    session = sessions["label"]
    given = json.loads(Path("tasks.json").read_text(encoding="utf-8"))
    digest_of = dict(zip(session.file.images.keys, session.file.images.digests, strict=True))
    session.mark({digest_of[key]: (name, "checked") for key, name in given.items()})


def boxes() -> str:
    """A COCO dataset of which half of the boxes are drawn, and answered boxes of all, in thousandths."""
    spec, keys = write_squares(Path("shop")), [f"images/train{number}.png" for number in range(18)]
    rows = [{"key": key, "description": f"{key} squares", "boxes": boxes_said_of(key, place="box")} for key in keys]
    return f"describe --data {spec} --store shop.db {answers(rows)} --ask description,boxes"


def masks() -> str:
    spec = draw(Path("street"), train=8, test=4, tagged=8)
    lines = Path("street/tags.csv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split(",") for line in lines]
    rows = [{"key": f"images/{key}", "description": f"With {tags}.", "tags": tags.split("|")} for key, tags in pairs]
    return f"describe --data {spec} --store street.db {answers(rows)} --ask description,tags"


def distilled() -> str:
    rows = write_photos(Path("photos"), 0, KINDS)
    tasks(rows)
    short = f"--encoder bag-of-words:16 --val-fraction 0 {TINY}"
    return f"distill photos {answers(rows)} --classes cat,dog --out distilled {short}"


CHAINS: dict[str, tuple[Callable[[], str], str]] = {
    "few labels": (lambda: described("my photos", 6, "--store 'work/my photos.db' --ask description,class"),
                   "describe encode label train evaluate export predict"),
    "reviewed, with answers": (reviewed, "review label train evaluate export predict"),
    "boxes, as ONNX": (boxes, "describe encode label train evaluate export predict"),
    "masks": (masks, "describe encode label train evaluate predict"),
    "distilled, without a label": (lambda: distilled(), "distill review label train evaluate export predict"),
}  # fmt: skip
WRITTEN = {"few labels": "work/run-timm/model.safetensors", "reviewed, with answers": "run-2/run.json",
           "boxes, as ONNX": "run.onnx"}  # fmt: skip
LEARNED = {
    "few labels": "label --data 'my photos' --embeddings 'work/my photos.emb' --answers 'work/my photos.db'",
    "reviewed, with answers": "label --data manifest:photos/labels.csv --embeddings photos.emb --answers photos.db",
    "boxes, as ONNX": "--embeddings shop.emb --targets boxes.parquet --out run",
}
"""Options of a step by which it learns from all the evidence there is."""


def run(command: str) -> None:
    assert main(shlex.split(command)) == 0


@pytest.mark.parametrize(
    "chain", [pytest.param(name, marks=[pytest.mark.slow] * (name != "few labels")) for name in CHAINS]
)
def test_the_printed_steps_lead_to_predictions_and_cost_nothing_more(
    chain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt4image.reviewing.review.serve", click)
    if "ONNX" not in chain:  # writing ONNX takes seconds; without its extra, a run predicts as it is
        monkeypatch.setattr(next_steps, "OF_ONNX", ("no such package",))
    first, names = CHAINS[chain]
    write_photos(Path(next_steps.NEW_PHOTOS), 0, KINDS)
    command, given = first(), list[str]()
    while command:
        given.append(command)
        words = shlex.split(command)
        capsys.readouterr()
        code = main([*words, *shlex.split(SHORT.get(words[0], "") if len(given) > 1 else "")])
        said = capsys.readouterr()
        assert code == 0, (given, said.err)
        scores = re.findall(r"^(?:.* )?(?<!no )(?:top1|top5|accuracy|mAP|mIoU): (?!None).*", said.out, re.MULTILINE)
        interval = r" \(95 % interval [\d.]+ to [\d.]+\)$"
        assert [score for score in scores if not re.search(r" on \d+ images?\b", score)] == []
        assert [score for score in scores if not re.search(f"mAP|pixel|{interval}", score)] == []
        lines = [line for line in said.out.splitlines() if line.startswith("next: ")]
        command = lines[-1].removeprefix("next: gpt4image ") if lines else ""
    assert [step.split()[0] for step in given] == names.split(), given
    assert Path(WRITTEN.get(chain, "predictions.csv")).exists()
    assert LEARNED.get(chain, "") in "\n".join(given)
    assert Path("predictions.csv").stat().st_size
