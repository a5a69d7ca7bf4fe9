"""What predict draws: each image with its boxes or its mask, and the mask as a file of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from gpt4image.base.errors import ConfigError, DecodeError
from gpt4image.base.files import atomic_path
from gpt4image.base.visible import in_one_line
from gpt4image.data.decode import decode
from gpt4image.data.file_source import read_bounded
from gpt4image.data.masks import UNSEEN
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.rows import Prediction
from gpt4image.pages.masks import coloured, overlaid
from gpt4image.tasks.base import Predictions

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#c2185b")
LONGEST_SIDE = 65_500
"""Pixels of a side that JPEG files are written with."""
LONGEST_STEM = 100
"""Bytes of the name of an image in the names of its drawings: with a suffix, a file system takes 255."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A folder that drawings go to, as NUMBER-NAME.jpg; what has the same name there is replaced.

    Attributes:
        folder: the folder.
        classes: K class names.
        background: number of the class that is not drawn over images; -1 for none.
    """

    folder: Path
    classes: tuple[str, ...]
    background: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def of(cls, folder: Path, classifier: Classifier) -> Drawing:
        """Make the folder. Raises ConfigError: the model predicts nothing that could be drawn."""
        if classifier.task.output not in ("boxes", "mask"):
            raise ConfigError(
                f"--draw {folder}: the model is for {classifier.task.name}, which finds nothing to draw; leave it out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        unseen = [number for number, name in enumerate(classifier.classes) if name.lower() in UNSEEN]
        return cls(folder=folder, classes=classifier.classes, background=unseen[0] if unseen else -1)

    def drawn(self, prediction: Prediction, found: Predictions) -> Prediction:
        """Draw a prediction, and return it with the file of its mask, if it has one.

        Args:
            prediction: of an image file.
            found: what the model gave of it: boxes, or a mask (S, S) uint8.

        Raises:
            DecodeError: this image is gone, or is too large to be drawn.
            OSError: the folder cannot be written.
        """
        stem = Path(prediction.image).stem.encode(errors="replace")[:LONGEST_STEM].decode(errors="ignore")
        name = f"{next(self._numbers):06d}-{stem}"
        picture = _picture(prediction.image)
        if prediction.boxes is not None:
            _draw_boxes(picture, prediction, self.classes)
            _save(picture, self.folder / f"{name}.jpg", "JPEG", quality=90)
            return prediction
        _save(overlaid(picture, found, self.background), self.folder / f"{name}.jpg", "JPEG")
        _save(coloured(found, picture.size), place := self.folder / f"{name}.png", "PNG")
        return prediction._replace(mask=str(place))


def _picture(path: str) -> Image.Image:
    """Return the picture of a file that was predicted a moment ago. Raises DecodeError: it cannot be drawn over."""
    try:
        picture = decode(read_bounded(path))
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from None
    if max(picture.size) > LONGEST_SIDE:
        raise DecodeError(f"a side of {max(picture.size):,} pixels; JPEG files have at most {LONGEST_SIDE:,}")
    return picture


def _draw_boxes(picture: Image.Image, row: Prediction, classes: Sequence[str]) -> None:
    """Draw boxes with their classes and scores over a picture, the best one last."""
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    for name, score, box in reversed(list(zip(row.classes, row.probabilities, row.boxes or (), strict=True))):
        colour, corner = COLOURS[classes.index(name) % len(COLOURS)], (box[0] + width, box[1] + width)
        words = in_one_line(f"{name} {score:.2f}")
        pen.rectangle(list(box), outline=colour, width=width)
        left, top, right, bottom = pen.textbbox(corner, words)
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour)
        pen.text(corner, words, fill="white")


def _save(drawn: Image.Image, path: Path, kind: str, **options: int) -> None:
    with atomic_path(path) as temporary:
        drawn.save(temporary, kind, **options)
