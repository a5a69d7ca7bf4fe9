"""Pictures of coloured squares with boxes, what annotators drew of them, and what a describer answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Prompt
from gpt4image.data import load_dataset
from tables import write_store

NAMES = ("red", "green", "blue")
COLOURS = ((220, 40, 40), (40, 200, 40), (40, 60, 220))
SIDE = 32


def write_squares(folder: Path, train: int = 18, test: int = 6, names: tuple[str, ...] = NAMES) -> str:
    """Write pictures of two squares each, of which annotators drew the one that touches no border; return the SPEC."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        images: list[Any] = []
        annotations: list[Any] = []
        for number in range(count):
            colour, file = number % 3, f"images/{split}{number}.png"
            pixels = 128 + rng.integers(0, 20, (SIDE, SIDE, 3)).astype(np.uint8)
            for left, top, right, bottom in squares(number):
                pixels[top:bottom, left:right] = COLOURS[colour]
            Image.fromarray(pixels).save(folder / file)
            images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
            left, top, right, bottom = squares(number)[0]
            box = {"bbox": [left, top, right - left, bottom - top], "category_id": colour, "image_id": number}
            annotations.append({"id": number, "iscrowd": 0, "area": 100, **box})
        categories = [{"id": k, "name": name} for k, name in enumerate(names)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return f"coco:{folder / 'train.json'}"


def squares(number: int) -> list[tuple[int, int, int, int]]:
    """Return the squares of a picture in pixels: one inside, one at the right border."""
    left, top, high = 3 + number % 4, 4 + number % 3, 17 + number % 5
    return [(left, top, left + 10, top + 11), (SIDE - 9, high, SIDE, high + 10)]


def boxes_said_of(key: str, names: tuple[str, ...] = NAMES, place: str = "box_2d", **more: Any) -> list[dict[str, Any]]:
    """Return boxes of both squares of a picture as a describer answers them, in thousandths."""
    number = int("".join(filter(str.isdigit, key.rsplit("/")[-1])))
    thousandths = ([round(1000 * side / SIDE) for side in square] for square in squares(number))
    return [{"label": names[number % 3], place: corners, **more} for corners in thousandths]


def answer_squares(spec: str, path: Path, names: tuple[str, ...] = NAMES, **more: Any) -> Path:
    """Write a store in which a describer has boxes of both squares of every picture."""
    images = load_dataset(spec)

    said = (Answer(boxes=tuple(boxes_said_of(key, names, **more))) for key in images.keys)
    return store_boxes(path, list(zip(images.digests, said, strict=True)))


def store_boxes(path: Path, rows: Sequence[tuple[str, Answer]]) -> Path:
    """Write a store of answers by digest; several about one image are samples."""
    prompt = Prompt(name="boxes", version=1, text="Where is what?", class_conditioned=False, ask=("boxes",))
    seen: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    for digest, answer in rows:
        found.append({"digest": digest, "answer": answer, "sample": seen[digest]})
        seen[digest] += 1
    return write_store(path, found, prompt=prompt)
