"""Pictures that tests draw or take from the package: noisy colours, photographs of clothes, pictograms with boxes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data.dataset import Dataset
from gpt4image.data.known_sets import ANSWERS, DESCRIPTIONS, load_clothes, load_openmoji

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}


def noisy(colour: tuple[int, int, int], rng: np.random.Generator, side: int = 16) -> Image.Image:
    values = np.array(colour) + rng.normal(0, 30, (side, side, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def write_colours(root: Path, each: int = 16, side: int = 16) -> Path:
    """Write so many pictures of each colour in class folders."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noisy(colour, rng, side).save(root / name / f"{number:02}.png")
    return root


def write_photos(
    folder: Path, labelled: int, colours: Mapping[str, tuple[int, int, int]] = COLOURS, each: int = 12
) -> list[dict[str, Any]]:
    """Write pictures of which so many per colour have a label, or one folder of them; return what is said of each."""
    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for name, colour in colours.items():
        for number in range(each):
            place = name if number < labelled else "unlabelled" if labelled else ""
            key = f"{place}/{name[0]}{number:02}.png".lstrip("/")
            (folder / place).mkdir(parents=True, exist_ok=True)
            noisy(colour, rng).save(folder / key)
            said = {"description": f"A {name} square, number {number}.", "class": name, "confidence": 0.9}
            rows.append({"key": key, **said})
    return rows


def packaged_texts() -> dict[str, str]:
    """Return the packaged descriptions of pictograms by the keys of these."""
    rows = map(json.loads, DESCRIPTIONS.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row["description"] for row in rows}


def some(per_class: int) -> Dataset:
    """Return so many photographs of each class and split."""
    images = load_clothes()
    rows = [
        np.flatnonzero((images.splits == split) & (images.labels == label))[:per_class]
        for split in ("train", "val", "test")
        for label in range(len(images.classes))
    ]
    return images.select(np.sort(np.concatenate(rows)))


def write_folders(root: Path, per_class: int) -> None:
    """Write them as class folders, ``labelled`` and ``unlabelled`` in train, and ``answers.jsonl`` about the latter."""
    images, key_of = some(per_class), dict[str, str]()
    for row, key in enumerate(images.keys):
        split, name = str(images.splits[row]), images.classes[images.labels[row]]
        key_of[key] = f"{split}/{'unlabelled' if split == 'train' else name}/{key}.webp"
        for path in (root / "labelled" / split / name / f"{key}.webp", root / "unlabelled" / key_of[key]):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.read(row))
    write_answers(root / "answers.jsonl", key_of)


def write_answers(path: Path, key_of: dict[str, str]) -> None:
    """Write the recorded answers about some photographs, by the keys that these have now."""
    rows = map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())
    lines = [json.dumps(row | {"key": key_of[row["key"]]}) for row in rows if row["key"] in key_of]
    path.write_text("\n".join(lines), encoding="utf-8")


KINDS = {"apple": "1F34E", "star": "2B50", "frog": "1F438"}
SIDE = 96


def write_boxes(folder: Path, *, train: int = 96, test: int = 32, seed: int = 0) -> Path:
    """Write pictures of one to three pictograms each with train.json and test.json; return the file of train."""
    folder.mkdir(parents=True, exist_ok=True)
    packaged = load_openmoji()
    pictures = [
        Image.open(io.BytesIO(packaged.read(packaged.keys.index(key)))).convert("RGB") for key in KINDS.values()
    ]
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        images, boxes = [], []
        for number in range(count):
            name = f"{split}-{number:03d}.png"
            picture = Image.new("RGB", (SIDE + 32, SIDE), "white")
            taken: list[tuple[int, int, int, int]] = []
            for kind in rng.integers(0, len(KINDS), int(rng.integers(1, 4))).tolist():
                side = int(rng.integers(24, 49))
                left, top = int(rng.integers(0, SIDE + 32 - side)), int(rng.integers(0, SIDE - side))
                if any(left < r and x < left + side and top < b and y < top + side for x, y, r, b in taken):
                    continue
                taken.append((left, top, left + side, top + side))
                picture.paste(pictures[kind].resize((side, side)), (left, top))
                box = {"bbox": [left, top, side, side], "area": side * side, "iscrowd": 0}
                boxes.append({"id": len(boxes) + 1, "image_id": number + 1, "category_id": kind + 1, **box})
            picture.save(folder / name)
            images.append({"id": number + 1, "file_name": name, "width": SIDE + 32, "height": SIDE})
        kinds = [{"id": number, "name": name} for number, name in enumerate(KINDS, start=1)]
        text = json.dumps({"images": images, "annotations": boxes, "categories": kinds})
        (folder / f"{split}.json").write_text(text, encoding="utf-8")
    return folder / "train.json"


def detector_options(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    """Return the options of a short run on the pictures in a folder."""
    tiny = {"image_size": 64, "val_fraction": 0.0, "precision": "fp32", "memory_format": "channels_last"}
    return TrainConfig(**{**tiny, "data": f"coco:{folder / 'train.json'}", "out": out, **changes})


def train_detector(folder: Path, out: Path) -> None:
    """Train one that finds the pictograms, and measure it."""
    from gpt4image.evaluating.evaluate import evaluate
    from gpt4image.training.train import train

    train(detector_options(folder, out, epochs=15))
    evaluate(EvaluateConfig(run_dir=out))
