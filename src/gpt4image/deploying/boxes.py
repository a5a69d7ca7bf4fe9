"""Predictions of images, and their boxes: in pixels, as COCO's results, and drawn on their pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from gpt4image.base.files import atomic_path
from gpt4image.base.visible import in_one_line

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#c2185b")


class Prediction(NamedTuple):
    """The prediction of one image: its most probable classes, best first, with what ``Task.value`` names.

    ``present`` has the classes that count as present, if an image may have several, else None. ``boxes`` has left, top,
    right and bottom of each object in pixels of the upright picture, in the order of ``classes``, else None. ``mask``
    is the file of its mask, if it is drawn.
    """

    image: str
    classes: Sequence[str]
    probabilities: Sequence[float]
    present: Sequence[str] | None = None
    boxes: Sequence[Sequence[float]] | None = None
    mask: str | None = None

    def in_pixels(self, size: tuple[int, int], least: float) -> Prediction:
        """Return the prediction with boxes in pixels of a picture of that width and height, none below a score."""
        if self.boxes is None:
            return self
        count = sum(score >= least for score in self.probabilities)
        boxes = [[round(part * side, 2) for part, side in zip(box, (*size, *size), strict=True)] for box in self.boxes]
        return self._replace(
            classes=self.classes[:count], probabilities=self.probabilities[:count], boxes=boxes[:count]
        )


class CocoResults:
    """A JSON array of COCO's results, written as predictions come.

    ``image_id`` is the name of the file without its ending, a number where it is one, as in COCO; ``category_id``
    counts classes from 1. Pictures without a box have no entry.
    """

    def __init__(self, stream: TextIO, classes: Sequence[str]) -> None:
        self._stream = stream
        self._number = {name: number for number, name in enumerate(classes, start=1)}
        self._empty = True

    def write(self, row: Prediction) -> None:
        """Write the boxes of a picture."""
        stem = Path(row.image).stem
        image = int(stem) if stem.isascii() and stem.isdigit() else stem
        for name, score, (left, top, right, bottom) in zip(
            row.classes, row.probabilities, row.boxes or (), strict=True
        ):
            box = [round(number, 2) for number in (left, top, right - left, bottom - top)]
            entry = {"image_id": image, "category_id": self._number[name], "bbox": box, "score": round(score, 6)}
            self._stream.write(("[\n" if self._empty else ",\n") + json.dumps(entry))
            self._empty = False

    def end(self) -> None:
        """Close the array."""
        self._stream.write("[]\n" if self._empty else "\n]\n")


def draw(row: Prediction, place: Path, number: int, classes: Sequence[str]) -> None:
    """Write a picture with its boxes into a folder, as NUMBER-NAME.jpg. Raises OSError, DecodeError."""
    from PIL import ImageDraw

    from gpt4image.data.decode import decode
    from gpt4image.data.file_source import read_bounded

    picture = decode(read_bounded(row.image))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    for name, score, box in reversed(list(zip(row.classes, row.probabilities, row.boxes or (), strict=True))):
        colour = COLOURS[classes.index(name) % len(COLOURS)]
        words = in_one_line(f"{name} {score:.2f}")
        pen.rectangle(list(box), outline=colour, width=width)
        left, top, right, bottom = pen.textbbox((box[0] + width, box[1] + width), words)
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour)
        pen.text((box[0] + width, box[1] + width), words, fill="white")
    place.mkdir(parents=True, exist_ok=True)
    with atomic_path(place / f"{number:06d}-{Path(row.image).stem}.jpg") as temporary, temporary.open("wb") as file:
        picture.save(file, "JPEG", quality=90)
