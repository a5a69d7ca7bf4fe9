"""Boxes as files list them, checked: what cannot be used is dropped, counted and named, and costs no other box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.data.decode import sides
from gpt4image.data.labels import note_once
from gpt4image.data.regions import Boxes

TOLERANCE = 0.005
"""Part of a side by which a box may pass the border of its picture before a note says so."""
PROPORTION = 0.02
"""How far the proportions of a stated size may be from those of the picture: sides are whole pixels."""
MANY_BEYOND = 3
"""Boxes beyond their picture from which on all may be corners in place of sides."""
SAMPLE = 64
"""Pictures whose proportions are compared with the stated ones before all are."""
NAMED = 5
Sizes = NDArray[np.float64]
Read = Callable[[int], bytes]
Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Faults:
    """What cannot be used of a file, by reason: the number of items, and the names of the first ones."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one item."""
        names = self._names.setdefault(reason, [])
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if len(names) < NAMED:
            names.append(name)

    def skipped(self, where: str) -> tuple[Skipped, ...]:
        """Return one skipped item for each reason; ``where`` names the file."""
        return tuple(
            Skipped(
                name=f"{where}: {self._counts[reason]:,} annotation{'s' * (self._counts[reason] > 1)}",
                reason=f"{reason}: {first_few(names)}" + (" and others" if self._counts[reason] > len(names) else ""),
            )
            for reason, names in self._names.items()
        )


@dataclass(kw_only=True)
class Listed:
    """Boxes in the order in which files list them.

    Attributes:
        image: position of the image of each.
        corners: left, top, right, bottom in pixels, or in parts of any other size of the picture; may be anything.
        label: class number of each.
        weight: how much each counts.
        name: of each, for messages.
        lost: images that lost an annotation which could not be used.
    """

    image: list[int] = field(default_factory=list)
    corners: list[Corners] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)

    def add(self, image: int, corners: Corners, label: int, weight: float, name: str) -> None:
        """Add one box."""
        self.image.append(image)
        self.corners.append(corners)
        self.label.append(label)
        self.weight.append(weight)
        self.name.append(name)

    def still_known(self, known: Sequence[bool], left: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of N images are annotated: not those that lost annotations and have none ``left`` (N,).

        They would be taught as images without an object, but something was there.
        """
        lost = np.zeros(len(known), np.bool_)
        lost[list(self.lost)] = True
        return np.array(known, np.bool_) & (left | ~lost)


def number(value: object) -> float:
    """Return a JSON number as float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def from_sides(box: object) -> Corners:
    """Return the corners of a box that is a list of left, top, width and height; NaN where it is something else."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return math.nan, math.nan, math.nan, math.nan
    left, top, width, height = map(number, box)
    return left, top, left + width, top + height


def weight_of(ignored: bool, score: object) -> float:
    """Return the weight of a box: 0 where it is to be ignored, else its score if it has one from 0 to 1, else 1."""
    stated = number(score)
    return 0.0 if ignored else stated if 0 <= stated <= 1 else 1.0


def checked(listed: Listed, sizes: Sizes, known: Sequence[bool], classes: int, faults: Faults, spec: str) -> Boxes:
    """Return the boxes of images, cut at the borders of their pictures; what cannot be used goes to ``faults``.

    An image of which everything listed is dropped is not annotated. A note on standard error counts boxes that were
    cut.

    Args:
        listed: boxes.
        sizes: (N, 2) width and height of the picture that the boxes are in; NaN where it is not known.
        known: which of the N images are annotated.
        classes: number of classes.
        faults: collects boxes that are dropped.
        spec: of the dataset, for the note.

    Raises:
        DataError: all boxes are parts of their pictures, where pixels are expected.
    """
    image, boxes = np.array(listed.image, np.int64), _array(listed)
    _require_pixels(boxes, sizes[image], listed.name, spec)
    wide = boxes / np.tile(sizes, 2)[image]
    # Values beyond those of float32 are outside of every picture as well.
    given = np.clip(wide, -1e9, 1e9).astype(np.float32)
    label, weight = np.array(listed.label, np.int64), np.array(listed.weight, np.float32)
    corners = np.clip(given, 0, 1)
    finite = np.asarray(np.isfinite(wide).all(axis=1))
    sized = np.asarray((given[:, 2:] > given[:, :2]).all(axis=1))
    inside = np.asarray((corners[:, 2:] > corners[:, :2]).all(axis=1))
    rows = np.column_stack([image, label, given.view(np.int32).astype(np.int64)])
    first = np.zeros(len(image), np.bool_)
    first[np.unique(rows, axis=0, return_index=True)[1] if len(rows) else []] = True
    named = label < classes
    usable = finite & sized & inside & first & named
    for place in np.flatnonzero(~usable).tolist():
        faults.add(listed.name[place], _reason(named[place], finite[place], sized[place], inside[place]))
        listed.lost.add(listed.image[place])
    cut = usable & (np.abs(given - corners) > TOLERANCE).any(axis=1)
    if cut.any():
        names = (listed.name[place] for place in np.flatnonzero(cut).tolist())
        note_once(f"{spec}: {cut.sum():,} boxes reach beyond their picture and were cut: {first_few(names)}.")
    order = np.flatnonzero(usable)
    order = order[np.argsort(image[order], kind="stable")]
    counts = np.bincount(image[order], minlength=len(known))
    return Boxes(
        starts=np.cumsum([0, *counts], dtype=np.int64),
        corners=corners[order],
        labels=label[order],
        weights=weight[order],
        known=listed.still_known(known, counts > 0),
    )


def _require_pixels(boxes: NDArray[np.float64], sizes: Sizes, names: Sequence[str], spec: str) -> None:
    """Refuse a dataset all of whose boxes lie in the first pixel: they would be learned as boxes of no size.

    ``boxes`` (M, 4) are in pictures of ``sizes`` (M, 2).
    """
    usable = np.asarray(np.isfinite(boxes).all(axis=1) & (sizes > 1).all(axis=1))
    found = boxes[usable]
    if len(found) and np.abs(found).max() <= 1 + TOLERANCE and (found % 1 != 0).any():
        first = ", ".join(f"{value:.4g}" for value in found[0])
        raise DataError(
            f"{spec}: all boxes lie in the first pixel of their picture, such as {first} (left, top, right, bottom) of "
            f"{names[int(np.argmax(usable))]!r}. They seem to be parts of the picture, and this format has "
            "pixels: multiply them by the width and height of the picture."
        )


def require_sides(listed: Listed, sizes: Sizes, spec: str) -> None:
    """Refuse boxes that are left, top, right and bottom where the format has left, top, width and height.

    Such boxes all lie inside of their pictures as they are, with the right side beyond the left one and the lower one
    beyond the upper one; read as sides, many of them reach beyond their pictures.

    Args:
        listed: boxes by their corners, as the format has them read.
        sizes: (N, 2) width and height of the pictures.
        spec: of the dataset.

    Raises:
        DataError: it is so for all boxes, and ``MANY_BEYOND`` or more of them reach beyond.
    """
    boxes, size = _array(listed), sizes[np.array(listed.image, np.int64)]
    usable = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(size).all(axis=1))
    corners, far = boxes[usable].copy(), size[usable]
    beyond = (corners[:, 2:] > far * (1 + TOLERANCE)).any(axis=1)
    corners[:, 2:] -= corners[:, :2]
    inside = (corners[:, 2:] > corners[:, :2]) & (corners[:, 2:] <= far * (1 + TOLERANCE))
    if beyond.sum() >= MANY_BEYOND and inside.all():
        first = ", ".join(f"{value:.4g}" for value in corners[0])
        raise DataError(
            f"{spec}: {beyond.sum():,} of {len(usable):,} boxes reach beyond their picture, and all fit if their "
            f"numbers are left, top, right, bottom, such as {first} of {listed.name[int(usable[0])]!r}. This "
            "format has left, top, width, height: subtract left from the third number and top from the fourth."
        )


def _reason(named: bool, finite: bool, sized: bool, inside: bool) -> str:
    if not named:
        return "its class number has no name"
    if not finite:
        return "a coordinate is missing or no number"
    if not sized:
        return "the box has no area, or its right or lower side comes first"
    return "the box is outside of its picture" if not inside else "the box is listed twice"


def sizes_of_pictures(listed: Listed, stated: Sizes, read: Read) -> Sizes:
    """Return (N, 2) width and height of the picture that the boxes are in, as ``box_space`` finds them.

    A large dataset has too many pictures to read them all. Read are those without a stated size, those that a box
    passes, and an even sample of the others that have boxes; all of these if one of the sample has other proportions.
    """
    furthest, sizes = np.zeros(stated.shape), stated.copy()
    images = np.array(listed.image, np.int64)
    np.fmax.at(furthest, images, _array(listed)[:, 2:])

    def compare(rows: NDArray[np.int64]) -> None:
        for image in rows.tolist():
            sizes[image] = box_space(stated[image], lambda image=image: read(image))

    fits = np.asarray((furthest <= stated * (1 + TOLERANCE)).all(axis=1))
    compare(np.flatnonzero(~fits))
    others = np.intersect1d(np.flatnonzero(fits), images)
    sample = others[:: max(1, -(-len(others) // SAMPLE))]
    compare(sample)
    if (sizes[sample] != stated[sample]).any():
        compare(np.setdiff1d(others, sample))
    return sizes


def box_space(stated: Sizes, read: Callable[[], bytes]) -> Sizes:
    """Return (2,) width and height of the picture that boxes are in: as stated, if the proportions are the picture's.

    Then the picture was made smaller later. A size of other proportions, or none, is a mistake, and the picture's own
    counts. NaN where the picture cannot be read and no size is stated.
    """
    is_size = bool((np.isfinite(stated) & (stated >= 1)).all())
    try:
        own = np.array(sides(read()), np.float64)
    except (DecodeError, OSError):  # it is named when its pixels are read
        return stated if is_size else np.full(2, math.nan)
    proportion = (stated[0] / stated[1]) / (own[0] / own[1]) if is_size else math.nan
    return stated if abs(proportion - 1) < PROPORTION else own


def _array(listed: Listed) -> NDArray[np.float64]:
    return np.array(listed.corners, np.float64).reshape(-1, 4)
