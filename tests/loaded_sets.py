"""Image sets in memory and on disk, and what loaded ones say, in the form that tests compare."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoded_images import encoded
from gpt4image.data import NO_LABEL, Dataset, MemorySource
from gpt4image.data.regions import Masks


def png(seed: int, side: int = 8) -> bytes:
    """A PNG file that differs from seed to seed."""
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)))


def write_images(root: Path, *names: str) -> None:
    """Write a different picture to each path below a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(int.from_bytes(name.encode()[-8:], "little")))


def in_memory(contents: Sequence[bytes], labels: Any = None, **others: Any) -> Dataset:
    """Images of these bytes: keys k0, k1 and so on, all of train; without labels, those of cat and dog in turn."""
    count = len(contents)
    fields: dict[str, Any] = {
        "spec": "memory",
        "classes": ("cat", "dog"),
        "keys": tuple(f"k{number}" for number in range(count)),
        "labels": np.arange(count) % 2 if labels is None else np.asarray(labels),
        "splits": np.full(count, "train"),
        "source": MemorySource(contents),
        "rows": np.arange(count),
    }
    return Dataset(**fields | others)


class MasksInMemory:
    """Masks (height, width) in a list."""

    def __init__(self, masks: Sequence[NDArray[np.uint8]]) -> None:
        self.masks = masks

    def read(self, row: int) -> NDArray[np.uint8]:
        return self.masks[row]

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(hashlib.sha256(self.masks[row].tobytes()).hexdigest() for row in rows)


def masks_of(values: Sequence[NDArray[np.uint8]], *, classes: int = 4, background: int = 0) -> Masks:
    present = np.array([[(mask == k).any() for k in range(classes)] for mask in values], np.int8)
    rows = np.arange(len(values))
    return Masks(source=MasksInMemory(values), rows=rows, presence_of_classes=present, background=background)


def label_names(images: Dataset) -> dict[str, str | None]:
    return {
        key: None if label == NO_LABEL else images.classes[label]
        for key, label in zip(images.keys, images.labels, strict=True)
    }


def aside(images: Dataset) -> dict[str, str]:
    return {item.name: item.reason for item in images.skipped}
