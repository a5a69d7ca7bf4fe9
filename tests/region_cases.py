"""Datasets of boxes and masks on disk, and what tests compare of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoded_images import encoded
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.regions import Boxes, ImageBoxes, Masks

SIZE = (40, 20)
"""Width and height of the pictures."""


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((seed, *path.name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask_bytes(numbers: Any, mode: str = "L", kind: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(np.asarray(numbers))
    return encoded(image if image.mode == mode else image.convert(mode), kind, **options)


def coco(*annotations: dict[str, Any], images: int = 2, **more: Any) -> dict[str, Any]:
    """A COCO table of pictures 1.png, 2.png and so on with the classes cat (id 7) and dog (id 3)."""
    listed = [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(1, images + 1)]
    whole = {"images": listed, "annotations": [{"id": n, **one} for n, one in enumerate(annotations, 1)]}
    return whole | {"categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]} | more


def write_coco_set(root: Path, content: dict[str, Any], name: str = "train.json") -> Path:
    for one in content["images"]:
        if (
            isinstance(one, dict)
            and isinstance(one.get("file_name"), str)
            and not one["file_name"].startswith((".", "/"))
        ):
            picture(root / one["file_name"])
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content), "utf-8")
    return root / name


def write_pairs(root: Path, pictures: str, others: str, contents: Mapping[str, str | bytes | None]) -> Path:
    """Write a picture for each name, and what it has beside it; of ``images/{}.png``, ``train_1`` is images/train/1."""
    for name, content in contents.items():
        place = name.replace("_", "/")
        picture(root / pictures.format(place))
        if content is not None:
            file = root / others.format(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def boxes(images: Dataset) -> Boxes:
    assert isinstance(images.regions, Boxes)
    assert np.array_equal(images.labels, images.regions.presence(len(images.classes)))
    return images.regions


def masks(images: Dataset) -> Masks:
    assert isinstance(images.regions, Masks)
    assert np.array_equal(images.labels, images.regions.presence(len(images.classes)))
    return images.regions


def rows(images: Dataset) -> dict[str, list[tuple[Any, ...]] | None]:
    """Class name, corners in pixels of SIZE and weight of each box, by key; None where nothing is known."""
    found = boxes(images)

    def one(row: int) -> list[tuple[Any, ...]]:
        corners, labels, weights = found.image(row)
        pixels = (corners * np.tile(SIZE, 2)).round(3).tolist()
        return [
            (images.classes[label], tuple(at), weight)
            for label, at, weight in zip(labels.tolist(), pixels, weights.tolist(), strict=True)
        ]

    return {key: one(row) if found.known[row] else None for row, key in enumerate(images.keys)}


def any_boxes(seed: int, images: int, classes: int) -> Boxes:
    """Up to three boxes of each image; some images are not annotated."""
    rng = np.random.default_rng(seed)

    def one() -> ImageBoxes | None:
        count = int(rng.integers(0, 4))
        corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
        known = rng.random() < 0.7
        return (corners, rng.integers(0, classes, count), rng.random(count, np.float32)) if known else None

    return Boxes.of_images([one() for _ in range(images)])


def aside_text(images: Dataset) -> str:
    return "\n".join(f"{item.name} {item.reason}" for item in images.skipped)


def survives(spec: str) -> Dataset | None:
    """Load a damaged dataset: an error of this package, or a set whose regions can all be read."""
    try:
        images = load_dataset(spec)
    except Gpt4ImageError:
        return None
    assert len(images.digests) == len(images)
    json.dumps([images.classes, images.keys, aside_text(images)]).encode(errors="surrogatepass")
    if isinstance(images.regions, Boxes):
        corners = images.regions.corners
        assert ((corners >= 0) & (corners <= 1)).all() and (corners[:, 2:] > corners[:, :2]).all()
        assert (images.regions.labels < len(images.classes)).all()
    if isinstance(images.regions, Masks):
        for row in images.regions.rows[images.regions.known].tolist():
            assert images.regions.source.read(row).dtype == np.uint8
    return images
