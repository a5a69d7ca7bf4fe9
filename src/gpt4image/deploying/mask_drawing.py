"""What predict draws: each image with its boxes or its mask, and the mask as a file of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from gpt4image.base.errors import ConfigError
from gpt4image.base.files import atomic_path
from gpt4image.data.decode import decode
from gpt4image.data.file_source import read_bounded
from gpt4image.data.masks import UNSEEN
from gpt4image.deploying.drawing import draw
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.rows import Prediction
from gpt4image.pages.masks import coloured, overlaid
from gpt4image.tasks.base import Predictions


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
            OSError, DecodeError: the image is gone, or the folder cannot be written.
        """
        number = next(self._numbers)
        if prediction.boxes is not None:
            draw(prediction, self.folder, number, self.classes)
            return prediction
        picture = decode(read_bounded(prediction.image))
        place = self.folder / f"{number:06d}-{Path(prediction.image).stem}.png"
        _save(overlaid(picture, found, self.background), place.with_suffix(".jpg"), "JPEG")
        _save(coloured(found, picture.size), place, "PNG")
        return prediction._replace(mask=str(place))


def _save(drawn: Image.Image, path: Path, kind: str) -> None:
    with atomic_path(path) as temporary:
        drawn.save(temporary, kind)
