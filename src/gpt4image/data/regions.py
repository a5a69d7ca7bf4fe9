"""Boxes and masks of images: which regions of a picture are what, for detection and segmentation.

Both are indexed by images as an array is: ``boxes[rows]`` are the boxes of some images. Coordinates are fractions of
the width and height of the upright picture.

Legend: N images, M boxes of all of them, K classes, B images of a batch, D most boxes of one of them, S side in pixels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NO_BOX, NO_ANNOTATION = -1, -2
"""Class of rows of ``Boxes.padded`` that hold no box; of all rows of an image of which nothing is known."""
MOST_BOXES, LEAST_SCORE = 100, 0.05
"""Boxes that are predicted of an image, at most, and the score below which one is not worth keeping."""
VOID = 255  # value of the pixels of a mask that count for nothing
KEPT, KEPT_SIDE = 4096, 256  # decoded masks that are kept, and their largest side: 256 MiB at most
NEARLY_ALL = 0.95  # share of the pixels of a class that one piece holds, for it to be one object
Index = NDArray[Any] | Sequence[int] | slice
ImageBoxes = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]
"""Boxes of one image: corners (n, 4), classes (n,), weights (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """Boxes of N images: image i has the boxes ``starts[i]`` to ``starts[i + 1]`` of M.

    ``corners`` are left, top, right, bottom, 0 to 1. ``weights`` say how much each counts: 1 for a sure one, 0 for a
    region that counts neither as an object nor as background. ``known`` says which images are annotated.
    """

    starts: NDArray[np.int64]
    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    known: NDArray[np.bool_]

    @classmethod
    def of_images(cls, images: Sequence[ImageBoxes | None]) -> Boxes:
        """Return the boxes of images; None for an image that is not annotated."""
        empty = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
        each = [empty, *(empty if found is None else found for found in images)]
        corners, labels, weights = (np.concatenate(part) for part in zip(*each, strict=True))
        return cls(
            starts=np.cumsum([len(labels) for _, labels, _ in each], dtype=np.int64),
            corners=corners.astype(np.float32, copy=False),
            labels=labels.astype(np.int64, copy=False),
            weights=weights.astype(np.float32, copy=False),
            known=np.array([found is not None for found in images], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.known)

    def places(self, index: Index) -> NDArray[np.int64]:
        """Return the positions of the boxes of the images at positions, or of a mask (N,) bool, in that order."""
        rows: NDArray[np.int64] = np.arange(len(self))[index]
        counts = np.diff(self.starts)[rows]
        return np.repeat(self.starts[rows] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())

    def __getitem__(self, index: Index) -> Boxes:
        """Return the boxes of the images at positions, or of a mask (N,) bool, in that order."""
        return self._taken(self.places(index), np.diff(self.starts)[index], self.known[index])

    def _taken(self, place: NDArray[Any], counts: NDArray[Any], known: NDArray[np.bool_]) -> Boxes:
        parts = {name: getattr(self, name)[place] for name in ("corners", "labels", "weights")}
        return Boxes(starts=np.cumsum([0, *counts], dtype=np.int64), **parts, known=known)

    def image(self, index: int) -> ImageBoxes:
        """Return the boxes of one image."""
        own = slice(self.starts[index], self.starts[index + 1])
        return self.corners[own], self.labels[own], self.weights[own]

    @property
    def image_of(self) -> NDArray[np.int64]:
        """(M,) the image of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def replaced(self, rows: NDArray[np.int64], others: Boxes) -> Boxes:
        """Return boxes of which those of the images at ``rows`` (n,) are ``others``, of n images."""
        place = np.arange(len(self))
        place[rows] = len(self) + np.arange(len(rows))
        names = ("corners", "labels", "weights", "known")
        both = {name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in names}
        return Boxes(starts=np.concatenate([self.starts, self.starts[-1] + others.starts[1:]]), **both)[place]

    def only(self, chosen: NDArray[np.bool_]) -> Boxes:
        """Return some of the boxes, by a mask (M,); images stay annotated."""
        counts = np.bincount(self.image_of[chosen], minlength=len(self))
        return self._taken(np.flatnonzero(chosen), counts, self.known)

    def hidden(self, images: NDArray[np.bool_]) -> Boxes:
        """Return boxes of which those of some images (N,) are not known."""
        return replace(self.only(~images[self.image_of]), known=self.known & ~images)

    def with_classes(self, place: Sequence[int], classes: int = 0) -> Boxes:
        """Return the boxes with other numbers of their classes: class k is ``place[k]``."""
        return replace(self, labels=np.asarray(place, np.int64)[self.labels])

    def presence(self, classes: int) -> NDArray[np.int8]:
        """Return (N, K) int8: 1 where an image has a box of a class, 0 where it has none, -1 where not known."""
        found = np.where(self.known[:, None], np.zeros(classes, np.int8), np.int8(-1))
        sure = self.weights > 0
        found[self.image_of[~sure], self.labels[~sure]] = -1
        found[self.image_of[sure], self.labels[sure]] = 1
        return found

    def padded(self) -> NDArray[np.float32]:
        """Return (B, D, 6) float32: left, top, right, bottom, class, weight; class NO_BOX or NO_ANNOTATION without."""
        counts = np.diff(self.starts)
        rows = np.zeros((len(self), max(1, counts.max(initial=0)), 6), np.float32)
        rows[..., 4] = np.where(self.known, NO_BOX, NO_ANNOTATION)[:, None]
        column = np.arange(len(self.labels)) - np.repeat(self.starts[:-1], counts)
        rows[self.image_of, column] = np.column_stack([self.corners, self.labels, self.weights])
        return rows

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        parts = (self.starts, self.corners, self.labels, self.weights, self.known)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


class MaskSource(Protocol):
    """Where masks are."""

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the classes of the pixels, upright: (height, width) uint8, or VOID. Raises DecodeError, OSError."""
        ...

    def content(self, row: int) -> bytes:
        """Return what decides the mask, for fingerprints. Raises OSError."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Masks of N images, read when they are needed.

    ``rows`` (N,) are positions in the source, -1 without a mask; ``place`` (256,) has the class number of each value of
    the source; ``presence_of_classes`` is (N, K) int8, by masks or tags: 1 present, 0 absent, -1 not known. Tags do not
    name the class ``background``.
    """

    source: MaskSource
    rows: NDArray[np.int64]
    presence_of_classes: NDArray[np.int8]
    place: NDArray[np.uint8] = field(default_factory=lambda: np.arange(256, dtype=np.uint8))
    background: int = -1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index) -> Masks:
        """Return the masks of the images at positions, or of a mask (N,) bool, in that order."""
        return replace(self, rows=self.rows[index], presence_of_classes=self.presence_of_classes[index])

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) which images have a mask."""
        return self.rows >= 0

    def hidden(self, images: NDArray[np.bool_]) -> Masks:
        """Return masks of which those of some images (N,) are not known; what is known to be present stays."""
        return replace(self, rows=np.where(images, -1, self.rows))

    def with_classes(self, place: Sequence[int], classes: int) -> Masks:
        """Return the masks with other numbers of their classes: class k of before is ``place[k]`` of ``classes``."""
        moved = np.full((len(self), classes), -1, np.int8)
        moved[:, list(place)] = self.presence_of_classes
        table = np.arange(256, dtype=np.uint8)
        table[: len(place)] = place
        return replace(self, presence_of_classes=moved, place=table[self.place])

    def around(self) -> Boxes:
        """Return one box around each class in one piece, but the background, of each image with a mask."""
        boxes: list[ImageBoxes | None] = []
        for image, known in enumerate(self.known):
            mask = self[image : image + 1].pixels(KEPT_SIDE)[0] if known else np.full((1, 1), VOID, np.uint8)
            labels = [k for k in np.setdiff1d(mask, [VOID, self.background]) if _in_one_piece(mask == k)]
            places = [[np.flatnonzero((mask == k).any(axis=axis)) for axis in (0, 1)] for k in labels]
            corners = np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in places]).reshape(-1, 4) / KEPT_SIDE
            found = corners.astype(np.float32), np.array(labels, np.int64), np.ones(len(labels), np.float32)
            boxes.append(found if known else None)
        return Boxes.of_images(boxes)

    def presence(self, classes: int) -> NDArray[np.int8]:
        """Return (N, K) int8: 1 where an image shows a class, 0 where it does not, -1 where nothing is known."""
        return self.presence_of_classes

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """Return (B, S, S) uint8 classes, stretched to a square; VOID where there is no mask."""
        read = _kept if size <= KEPT_SIDE else _stretched
        found = np.full((len(self), size, size), VOID, np.uint8)
        for i in np.flatnonzero(self.known):
            found[i] = self.place[read(self.source, int(self.rows[i]), size)]
        return found

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        found = hashlib.sha256(self.place.tobytes() + np.ascontiguousarray(self.presence_of_classes).tobytes())
        for row in self.rows.tolist():
            found.update(hashlib.sha256(self.source.content(row) if row >= 0 else b"").digest())
        return found.hexdigest()


def _stretched(source: MaskSource, row: int, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(source.read(row)).resize((size, size), Image.Resampling.NEAREST))


def _in_one_piece(pixels: NDArray[np.bool_]) -> bool:
    from scipy import ndimage

    labelled: Any = ndimage.label(pixels, structure=np.ones((3, 3)))
    return bool(np.bincount(labelled[0][pixels]).max() >= NEARLY_ALL * pixels.sum())


_kept = functools.lru_cache(maxsize=KEPT)(_stretched)

Regions = Boxes | Masks


def palette() -> NDArray[np.uint8]:
    """Return (256, 3) RGB colours by class number, those that Pascal VOC uses: neighbours differ, class 0 is black."""
    numbers, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours
