"""What predict draws: for each image the mask that was found, and the image with the mask over it."""

from __future__ import annotations

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
        folder: where they are written; what has the same name is replaced.
        background: number of the class that is not drawn over images; -1 for none.
    """

    folder: Path
    background: int
    _taken: set[str] = field(default_factory=set)

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
        name = self._name(Path(image).stem)
        for drawn, suffix in (
            (coloured(mask, picture.size), "-mask.png"),
            (overlaid(picture, mask, self.background), "-drawn.jpg"),
        ):
            self._save(drawn, self.folder / f"{name}{suffix}")
        return str(self.folder / f"{name}-mask.png")

    def _save(self, drawn: Image.Image, path: Path) -> None:
        with atomic_path(path) as temporary:
            drawn.save(temporary, "PNG" if path.suffix == ".png" else "JPEG")

    def _name(self, stem: str) -> str:
        """Return the name of an image's drawings: its own, with a number where an earlier image has that."""
        names = [stem] if stem not in self._taken else (f"{stem}-{number}" for number in range(2, 1_000_000))
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return name
