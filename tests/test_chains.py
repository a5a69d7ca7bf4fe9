"""What each command prints as the next one, given as it stands, leads from a folder of pictures to predictions."""

import csv
import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpt4image
from gpt4image.base.outcome import Outcome
from gpt4image.cli import main
from gpt4image.config import ExportConfig
from gpt4image.next_step import NEW_PHOTOS
from worlds import NAMES, SIDE, boxes_answered, some, squares, write_answers, write_photos, write_shapes, write_squares

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
    """Label three pages as a person does who knows the truth."""
    session, given = sessions["label"], json.loads(Path("tasks.json").read_text(encoding="utf-8"))
    while session.learning:
        time.sleep(0.01)
    for _page in range(3):
        session.mark(
            {card.id: (given[card.key], "checked") for card in session.cards("label", 12) if card.key in given}
        )


def boxes() -> str:
    """A COCO dataset of which half of the boxes are drawn, and answered boxes of all, in thousandths."""
    spec, keys = write_squares(Path("shop")), [f"images/train{number}.png" for number in range(18)]
    rows = [{"key": key, "description": f"{key} squares", "boxes": boxes_answered(key, place="box")} for key in keys]
    return f"describe --data {spec} --store shop.db {answers(rows)} --ask description,boxes"


def masks() -> str:
    spec = write_shapes(Path("street"), train=8, test=4, tagged=8)
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
    "masks": (masks, "describe encode label train evaluate export predict"),
    "distilled, without a label": (lambda: distilled(), "distill review distill predict"),
    "distilled, masks": (lambda: masks().replace("describe --data", "distill").replace("--store street.db", TINY),
                         "distill predict"),
}  # fmt: skip
WRITTEN = {"few labels": "work/run-model/model.safetensors", "reviewed, with answers": "run-2/run.json",
           "boxes, as ONNX": "run-model/model.onnx"}  # fmt: skip
LEARNED = {
    "few labels": "label --data 'my photos' --embeddings 'work/my photos.emb' --answers 'work/my photos.db'",
    "reviewed, with answers": "--embeddings photos.emb --answers photos.db --classes cat,dog",
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
    first, names = CHAINS[chain]
    write_photos(Path(NEW_PHOTOS), 0, KINDS)
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


FROZEN = (
    "--model tf_efficientnet_lite0 --init pretrained --freeze all --image-size 64 --epochs 40 --batch-size 32 "
    "--features none --threads 1 --precision fp32 --memory-format contiguous"
)
UPPER = ("dress", "longsleeve", "outwear", "shirt", "t-shirt")


def clothes(*, tags: bool) -> tuple[str, str]:
    """Photographs of clothes without a label, what was answered about them and what a person knows; and others."""
    images, key_of, truth = some(12), dict[str, str](), dict[str, list[str]]()
    tables = {split: [f"path,{'labels' if tags else 'label'},split"] for split in ("train", "val", "test")}
    Path("photos").mkdir()
    for row, split in enumerate(images.splits.tolist()):
        key = key_of[images.keys[row]] = f"{images.keys[row]}.webp"
        name = images.classes[images.labels[row]]
        truth[key] = [name, *["upper"] * (tags and name in UPPER)]
        place = Path("photos", key) if split == "train" else Path(key)
        place.write_bytes(images.read(row))
        tables[split].append(f"{key},{'' if split == 'train' else '|'.join(truth[key])},{split}")
    Path("others.csv").write_text("\n".join(tables["test"]), encoding="utf-8")
    if tags:
        Path("photos/table.csv").write_text("\n".join(tables["train"]), encoding="utf-8")
    write_answers(Path("said.jsonl"), key_of)
    said = [json.loads(line) for line in Path("said.jsonl").read_text(encoding="utf-8").splitlines()]
    known = [{**row, "tags": [row["class"], *["upper"] * (row["class"] in UPPER)]} for row in said]
    words = answers([row for row in known if (Path("photos") / str(row["key"])).exists()])
    tasks = {key: names if tags else names[0] for key, names in truth.items()}
    Path("tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    names = ",".join([*images.classes, *["upper"] * tags])
    ask = "manifest:photos/table.csv --ask tags" if tags else "folder:photos"
    return f"distill {ask} {words} --classes {names} {FROZEN}", "manifest:others.csv"


def unboxed() -> tuple[str, str]:
    """Pictures of squares without a box; a person draws the one that touches no border."""
    write_squares(Path("shop"), train=36)
    (Path("shop") / "photos").mkdir()
    truth, rows = dict[str, Any](), list[dict[str, Any]]()
    for number in range(36):
        key = f"train{number}.png"
        (Path("shop/images") / key).rename(Path("shop/photos") / key)
        truth[key] = [[NAMES[number % 3], *(side / SIDE for side in squares(number)[0])]]
        rows.append({"key": key, "description": key, "boxes": boxes_answered(key, place="box")})
    Path("tasks.json").write_text(json.dumps(truth), encoding="utf-8")
    words = f"--task detection --classes {','.join(NAMES)} {TINY.replace('--epochs 1', '--epochs 20')}"
    return f"distill folder:shop/photos {answers(rows)} {words}", "coco:shop/test.json"


def unexported(config: ExportConfig) -> Outcome:
    return Outcome(path=config.out)


HALF_HOURS: dict[str, Callable[[], tuple[str, str]]] = {
    "classes": lambda: clothes(tags=False),
    "tags": lambda: clothes(tags=True),
    "boxes": unboxed,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HALF_HOURS)
def test_labels_that_a_person_gives_make_no_model_worse_on_pictures_kept_aside(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt4image.reviewing.review.serve", click)
    monkeypatch.setattr("gpt4image.distilling.distill.export", unexported)
    command, others = HALF_HOURS[kind]()
    given, said = list[str](), ""
    while not command.startswith("predict"):
        given.append(command)
        assert main(shlex.split(command)) == 0, (given, capsys.readouterr().err)
        said, _, command = capsys.readouterr().out.rpartition("next: gpt4image ")
    assert [step.split()[0] for step in given] == ["distill", "review", "distill"], given
    before, after = (
        gpt4image.evaluate(run_dir=f"distilled/{run}", data=others).score for run in ("earlier-1/run", "run")
    )
    assert after > before - 0.1 and before > 0
    [table] = Path().rglob("labels.csv")
    sampled = [row["sampled"] for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())]
    assert sampled.count("random") >= 9 and sampled.count("random") + sampled.count("doubt") == 36
    measured = gpt4image.evaluate(run_dir="distilled/run").labelled
    assert 0 < measured <= sampled.count("random"), "what was in doubt never measures"
    assert "36 labels of `review` is not measurable yet" in said
