"""Masks over the pictures of a report: the true one, and what each run predicted."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import DamagedError, DecodeError
from gpt4image.base.files import read_parquet
from gpt4image.data.decode import decode, decode_numbers
from gpt4image.data.image_set import ImageSet
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import Masks
from gpt4image.pages.masks import overlaid

SIDE = 128
"""Pixels of the longer side of a picture with a mask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnMasks:
    """The masks of a held-out split, and those that runs predicted.

    Attributes:
        images: N images with masks.
        predicted: by run, then by key, a PNG file of class numbers.
        scores: by key, the score of the first run; NaN without a mask.
    """

    images: ImageSet
    predicted: Mapping[str, Mapping[str, bytes]]
    scores: Mapping[str, float]

    @classmethod
    def of_runs(cls, images: ImageSet, run_dirs: Mapping[str, Path], split: str) -> DrawnMasks | None:
        """Return those of runs by name; None where they predicted no masks."""
        if not isinstance(images.regions, Masks) or not run_dirs:
            return None
        try:
            tables = {
                name: read_parquet(folder / f"predictions-{split}.parquet", ["key", "mask", "score"]).to_pydict()
                for name, folder in run_dirs.items()
            }
        except DamagedError:  # of runs for another task
            return None
        predicted = {name: dict(zip(table["key"], table["mask"], strict=True)) for name, table in tables.items()}
        first = next(iter(tables.values()))
        return cls(images=images, predicted=predicted, scores=dict(zip(first["key"], first["score"], strict=True)))

    def worst_first(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return images at ``rows`` by the score of the first run, the lowest first."""
        scores = np.array([self.scores.get(self.images.keys[row], np.nan) for row in rows.tolist()], np.float64)
        return rows[np.argsort(scores, kind="stable")]

    def of(self, row: int) -> dict[str, str]:
        """Return pictures of an image as data URLs: with its true mask, and with the mask of each run."""
        regions, key = self.images.regions, self.images.keys[row]
        found: dict[str, str] = {}
        try:
            picture = decode(self.images.read(row))
            picture.thumbnail((SIDE, SIDE))
            if isinstance(regions, Masks) and regions.known[row]:
                found["true mask"] = self._over(picture, regions[row : row + 1].pixels(2 * SIDE)[0])
            for name, masks in self.predicted.items():
                if key in masks:
                    found[name] = self._over(picture, decode_numbers(masks[key]))
        except (DecodeError, OSError):
            return {}
        return found

    def _over(self, picture: Image.Image, mask: NDArray[np.uint8]) -> str:
        unseen = [number for number, name in enumerate(self.images.classes) if name.lower() in UNSEEN]
        buffer = io.BytesIO()
        overlaid(picture, mask, unseen[0] if unseen else -1).save(buffer, "WEBP", quality=80)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
