"""A record per image, which every format yields; here boxes are checked, and records become a dataset."""

import contextlib
import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset, ImageSource
from gpt4image.data.decode import sides
from gpt4image.data.labels import encode, note_once, require_few
from gpt4image.data.regions import Boxes, Regions

TOLERANCE = 0.005  # part of a side by which a box may pass the border of its picture before a note says so
UNKNOWN_SIZE = (math.nan, math.nan)
Corners = tuple[float, float, float, float]  # left, top, right, bottom
Unit = Literal["pixels", "parts"]
"""Corners of a box in pixels, or as parts of the picture."""
NO_CORNERS = (math.nan, math.nan, math.nan, math.nan)


@dataclass(slots=True)
class Object:
    """An object as a file lists it: ``name`` is for messages, ``corners`` may be anything, in any unit.

    ``weight`` is how much it counts; ``fault`` says why it cannot be used; ``outline`` is a segmentation of COCO.
    """

    name: str
    label: str | int
    corners: Corners = NO_CORNERS
    weight: float = 1.0
    fault: str = ""
    outline: object = None


@dataclass(slots=True, kw_only=True)
class Record:
    """An image as a file lists it.

    ``label`` is a class name, a list of several, or None. ``objects`` are None where nobody looked for them. The width
    and height of the picture are ``size``, as far as the file states it.
    """

    key: str
    split: str = "train"
    label: Any = None
    objects: list[Object] | None = None
    size: tuple[float, float] = UNKNOWN_SIZE


class Faults:
    """What cannot be used of a file: the names of the items, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one item."""
        self._names.setdefault(reason, []).append(name)

    def skipped(self, where: str) -> list[Skipped]:
        """Return one skipped item for each reason; ``where`` names the file."""
        return [
            Skipped(f"{where}: {len(names):,} annotation{'s' * (len(names) > 1)}", f"{reason}: {first_few(names)}")
            for reason, names in self._names.items()
        ]


def to_dataset(
    spec: str,
    records: Sequence[Record],
    source: ImageSource,
    *,
    classes: Sequence[str] | None = None,
    labels: NDArray[Any] | None = None,
    regions: Regions | None = None,
    skipped: Sequence[Skipped] = (),
) -> Dataset:
    """Return the dataset of records, of which ``source`` gives the bytes. Without ``classes``, labels make them."""
    if classes is not None and regions is not None:
        labels = regions.presence(len(classes))
    elif labels is None:
        cells = [record.label for record in records]
        several = any(isinstance(cell, list) for cell in cells)
        classes, labels = encode(cells, spec, several=several, classes=classes)
    return Dataset(
        spec=spec,
        classes=tuple(classes or ()),
        keys=tuple(record.key for record in records),
        labels=labels,
        splits=np.array([record.split for record in records]),
        source=source,
        rows=np.arange(len(records)),
        skipped=tuple(skipped),
        regions=regions,
    )


def number(value: object) -> float:
    """Return a number, or a text that is one, as float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def from_sides(box: object) -> Corners:
    """Return the corners of a box that is a list of left, top, width and height; NaN where it is something else."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return NO_CORNERS
    left, top, width, height = map(number, box)
    return left, top, left + width, top + height


def weight_of(ignored: bool, score: object) -> float:
    """Return the weight of a box: 0 where it is to be ignored, else its score if it has one from 0 to 1, else 1."""
    stated = number(score)
    return 0.0 if ignored else stated if 0 <= stated <= 1 else 1.0


def require_some(found: Sized, message: str, skipped: Sequence[Skipped]) -> None:
    """Raise DataError where nothing is found; it tells of the first item that was skipped."""
    if not len(found):
        raise DataError(message + "".join(f" The first: {item.name}: {item.reason}." for item in skipped[:1]))


def with_boxes(
    spec: str,
    records: Sequence[Record],
    source: ImageSource,
    classes: Sequence[str],
    faults: Faults,
    where: str,
    skipped: Sequence[Skipped] = (),
    unit: Unit = "pixels",
) -> Dataset:
    """Return the dataset of records and their boxes, cut at the borders of their pictures; a note counts those.

    An image of which everything listed is dropped is not annotated: something was there. Raises DataError.
    """
    require_few(classes, spec)
    found = [(row, one) for row, record in enumerate(records) for one in record.objects or ()]
    image = np.array([row for row, _ in found], np.int64)
    corners = np.array([one.corners for _, one in found], np.float64).reshape(-1, 4)
    names = [f"{records[row].key}, {one.name}" for row, one in found]
    size = np.ones((len(found), 2)) if unit == "parts" else picture_sizes(records, source)[image]
    inside = np.abs(corners[np.isfinite(corners).all(axis=1)])
    if unit == "pixels" and 0 < inside.max(initial=0) <= 1 and (inside % 1).any():
        raise DataError(
            f"{spec}: all boxes lie in the first pixel of their picture, such as {first_few(names[:1])}. They seem to "
            "be parts of the picture, and this format has pixels: multiply them by its width and height."
        )
    place = {name: label for label, name in enumerate(classes)}
    labels = [one.label if isinstance(one.label, int) else place.get(one.label, -1) for _, one in found]
    label = np.array(labels, np.int64)
    wide = corners / np.tile(size, 2)
    given = np.clip(wide, -1e9, 1e9).astype(np.float32)  # values beyond are outside of every picture as well
    cut = np.clip(given, 0, 1)
    rows = np.column_stack([image, label, given.view(np.int32).astype(np.int64)])
    again = np.ones(len(found), np.bool_)
    again[np.unique(rows, axis=0, return_index=True)[1] if len(rows) else []] = False
    wrong: dict[str, Any] = {
        "its class number has no name": (label < 0) | (label >= len(classes)),
        "a coordinate is missing or no number": ~np.isfinite(wide).all(axis=1),
        "the box has no area: xmax <= xmin or ymax <= ymin": ~(given[:, 2:] > given[:, :2]).all(axis=1),
        "the box is outside of its picture": ~(cut[:, 2:] > cut[:, :2]).all(axis=1),
        "the box is listed twice": again,
    }
    usable = np.ones(len(found), np.bool_)
    for at, (_, one) in enumerate(found):
        if reason := one.fault or next((reason for reason, here in wrong.items() if here[at]), ""):
            faults.add(names[at], reason)
            usable[at] = False
    beyond = np.flatnonzero(usable & (np.abs(given - cut) > TOLERANCE).any(axis=1))
    if len(beyond):
        first = first_few(names[at] for at in beyond.tolist())
        note_once(f"{spec}: {len(beyond):,} boxes reach beyond their picture and were cut: {first}.")
    counts = np.bincount(image[usable], minlength=len(records))
    boxes = Boxes(
        starts=np.cumsum([0, *counts], dtype=np.int64),
        corners=cut[usable],
        labels=label[usable],
        weights=np.array([one.weight for _, one in found], np.float32)[usable],
        known=still_known(records, counts > 0),
    )
    skipped = [*skipped, *faults.skipped(where)]
    return to_dataset(spec, records, source, classes=classes, regions=boxes, skipped=skipped)


def still_known(records: Sequence[Record], left: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N,) which images are annotated: not those with objects of which none is ``left`` (N,)."""
    return np.array([one.objects is not None and (not one.objects or left[n]) for n, one in enumerate(records)], bool)


def picture_sizes(records: Sequence[Record], source: ImageSource) -> NDArray[np.float64]:
    """Return (N, 2) width and height of the picture that the boxes of each record are in; NaN where not known.

    That is the stated size; a picture with objects whose size is not stated is asked for its own.
    """
    sizes = np.array([record.size for record in records], np.float64).reshape(-1, 2)
    for row, record in enumerate(records):
        if record.objects and not (sizes[row] >= 1).all():
            sizes[row] = UNKNOWN_SIZE
            with contextlib.suppress(DecodeError, OSError):  # it is named when its pixels are read
                sizes[row] = sides(source.read(row))
    return sizes
