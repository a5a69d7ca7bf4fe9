"""Image sets in memory, and what loaded ones say, in the form that tests compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt4image.data import NO_LABEL, ImageSet, MemorySource

Png = Callable[..., bytes]


def in_memory(contents: Sequence[bytes], labels: Any = None, **others: Any) -> ImageSet:
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
    return ImageSet(**fields | others)


def label_names(images: ImageSet) -> dict[str, str | None]:
    return {
        key: None if label == NO_LABEL else images.classes[label]
        for key, label in zip(images.keys, images.labels, strict=True)
    }


def aside(images: ImageSet) -> dict[str, str]:
    return {item.name: item.reason for item in images.skipped}
