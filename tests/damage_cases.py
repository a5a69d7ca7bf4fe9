"""One of everything that stages write, small, and what may happen to a file of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drawn_masks import SMALL, draw
from gpt4image import cli
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.config import TrainConfig
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.training.train import train
from pictogram_boxes import detector_options, write_boxes
from small_training import StoppedError, stop_after
from trained_runs import CLASSES, SHORT, TINY_RESNET, described, trained, write_pictures

RUN = {**SHORT, **TINY_RESNET, "epochs": 2, "memory_format": "contiguous"}
TINY = {**RUN, "epochs": 1, "batch_size": 8}
QUERY = "a brown animal"


def say(*words: object) -> None:
    """Give a command."""
    assert cli.main([str(word) for word in words]) == cli.OK


def build_few(root: Path) -> None:
    """Fill a folder with pictures and what the stages up to a run write."""
    spec = write_pictures(root / "photos", per_class=10)
    table = described(spec, root)
    answer(spec, root)
    trained(spec, root / "run", embeddings=table, **{**TINY_RESNET, "epochs": 1})
    trained(spec, root / "other", embeddings=table, **{**TINY_RESNET, "epochs": 1, "seed": 1})
    say("encode", "--store", root / "answers.db", "--encoder", "bag-of-words:32", "--out", root / "other.emb")
    say("label", "--data", spec, "--embeddings", table, "--out", root / "labels.parquet")
    say("search", root / "run", QUERY, "--data", spec, "--index", root / "index")
    say("export", root / "run", "--format", "timm", "--out", root / "exported")
    write_boxes(root / "scenes", train=8, test=4)
    images = load_dataset(f"coco:{root / 'scenes' / 'train.json'}")
    assert isinstance(images.regions, Boxes)
    BoxLabels(keys=images.keys, digests=images.digests, boxes=images.regions, classes=images.classes).save(
        root / "boxes.parquet"
    )


def build_rest(root: Path) -> None:
    """Add what takes longer: runs of other tasks, an unfinished one, a comparison, distill, other exports."""
    spec, table = f"folder:{root / 'photos'}", root / "texts.emb"
    for form, name in (("onnx", "model.onnx"), ("torch-export", "model.pt2")):
        say("export", root / "run", "--format", form, "--out", root / name)
    begin(spec, table, root / "begun")
    train(
        TrainConfig(**{**RUN, "data": spec, "epochs": 1}, task="pretrain", pretrain="simclr", out=root / "pretrained")
    )
    train(detector_options(root / "scenes", root / "detector", epochs=1, **TINY_RESNET))
    say("evaluate", root / "detector")
    trained(draw(root / "shapes", train=12, test=4), root / "segmenter", **{**SMALL, "epochs": 1})
    say(*compare_words(root, root / "cmp"))
    asked = ["--describer", f"replay:{root / 'answers.jsonl'}", "--encoder", "bag-of-words:32"]
    say("distill", root / "photos", *asked, "--out", root / "distilled", *words_of({**RUN, "epochs": 1}))


def compare_words(root: Path, out: Path) -> list[object]:
    """Return the command of the comparison."""
    data = ["--data", f"folder:{root / 'photos'}", "--embeddings", root / "texts.emb", "--out", out]
    few = ["--seeds", 2, "--jobs", 1, "--arms", "baseline,text-labels", *words_of({**RUN, "epochs": 1})]
    return ["compare", *data, *few]


def words_of(options: dict[str, object]) -> list[str]:
    """Return options as the words of a command."""
    found: list[str] = []
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return found


def answer(spec: str, root: Path) -> None:
    """Write a store of classes and descriptions, and the file that it came from."""
    keys = load_dataset(spec).keys
    said = [{"key": key, "description": f"Number {n}.", "class": key.split("/")[0]} for n, key in enumerate(keys)]
    lines = [json.dumps({**row, "confidence": 0.8 + 0.1 * (n % 2)}) for n, row in enumerate(said)]
    (root / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    asked = ["--ask", "description,class", "--classes", ", ".join(CLASSES)]
    replay = ["--describer", f"replay:{root / 'answers.jsonl'}"]
    say("describe", "--data", spec, "--store", root / "answers.db", *replay, *asked)


def begin(spec: str, table: Path, out: Path) -> None:
    """Begin a run and stop it after a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps=2)
        with pytest.raises(StoppedError):
            train(TrainConfig(**{**RUN, "epochs": 4, "select": "best"}, data=spec, out=out, checkpoint_seconds=0.0))


def _cut(content: bytes, _: random.Random) -> bytes:
    return content[: len(content) // 2]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a block, of 512 bytes where there are so many; one that was of zeros already is no damage."""
    size = min(512, max(1, len(content) // 3))
    start = rng.choice([at for at in range(0, len(content) - size + 1, size) if any(content[at : at + size])])
    return content[:start] + bytes(size) + content[start + size :]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut at half": _cut,
    "empty": lambda content, rng: b"",
    "zeroed block": _zeroed,
    **{f"flipped bit {number}": _flipped for number in range(4)},
}


def damaged(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield each damage by name with what it makes of a file; the same ones for the same ``name``."""
    content = path.read_bytes()
    for kind, damage in DAMAGE.items():
        if (found := damage(content, random.Random(f"{name} {kind}"))) != content:
            yield kind, found
