"""What predict draws: for each image the mask that was found, and the image with the mask over it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import ConfigError
from gpt4image.base.files import atomic_path
from gpt4image.data.decode import decode
from gpt4image.data.file_source import read_bounded
from gpt4image.data.masks import UNSEEN
from gpt4image.deploying.loading import Classifier
from gpt4image.pages.masks import coloured, overlaid


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A folder that drawings go to.

    Attributes:
        folder: where they are written, as NUMBER-NAME.png and NUMBER-NAME.jpg; what has the same name is replaced.
        background: number of the class that is not drawn over images; -1 for none.
    """

    folder: Path
    background: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def of(cls, folder: Path, classifier: Classifier) -> Drawing:
        """Make the folder. Raises ConfigError: the model predicts nothing that could be drawn."""
        if classifier.task.output != "mask":
            raise ConfigError(
                f"--draw {folder}: the model is for {classifier.task.name}, which finds nothing to draw; leave it out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        unseen = [number for number, name in enumerate(classifier.classes) if name.lower() in UNSEEN]
        return cls(folder=folder, background=unseen[0] if unseen else -1)

    def masks(self, image: str, mask: NDArray[np.uint8]) -> str:
        """Write the mask (S, S) of an image file and the image with it, and return the file of the mask."""
        picture = decode(read_bounded(image))
        name = f"{next(self._numbers):06d}-{Path(image).stem}"
        _save(overlaid(picture, mask, self.background), self.folder / f"{name}.jpg", "JPEG")
        _save(coloured(mask, picture.size), place := self.folder / f"{name}.png", "PNG")
        return str(place)


def _save(drawn: Image.Image, path: Path, kind: str) -> None:
    with atomic_path(path) as temporary:
        drawn.save(temporary, kind)
