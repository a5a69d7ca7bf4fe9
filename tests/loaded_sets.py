"""What loaded image sets say, in the form that tests compare."""

from __future__ import annotations

from collections.abc import Callable

from gpt4image.data import NO_LABEL, ImageSet

Png = Callable[..., bytes]


def label_names(images: ImageSet) -> dict[str, str | None]:
    return {
        key: None if label == NO_LABEL else images.classes[label]
        for key, label in zip(images.keys, images.labels, strict=True)
    }


def aside(images: ImageSet) -> dict[str, str]:
    return {item.name: item.reason for item in images.skipped}
