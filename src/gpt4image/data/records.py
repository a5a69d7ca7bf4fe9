"""A record per image, which every format yields; here boxes are checked, and records become a dataset."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, DecodeError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import (
    NO_LABEL,
    Dataset,
    ImageSource,
    encode,
    label_matrix,
    note_once,
    require_few,
    split_in_folders,
)
from gpt4image.data.decode import sides
from gpt4image.data.regions import Boxes, Regions

TOLERANCE = 0.005  # part of a side by which a box may pass the border of its picture before a note says so
PROPORTION = 0.02  # how far the proportions of a stated size may be from those of the picture: sides are whole pixels
SAMPLE = 64  # pictures whose proportions are compared with the stated ones before all are
UNKNOWN_SIZE = (math.nan, math.nan)
Corners = tuple[float, float, float, float]  # left, top, right, bottom
Unit = Literal["corners", "sides", "parts"]
"""Numbers of a box: corners in pixels; left, top, width and height; or corners as parts of the picture."""
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

    ``label`` is a class name or number, a list of several, or None; ``objects`` are None where nobody looked for them;
    ``size`` is the stated width and height of the picture that boxes are in.
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
    if classes is None:
        cells = [record.label for record in records]
        classes, labels = encode(cells, spec, several=any(isinstance(cell, list) for cell in cells))
    elif regions is not None:
        labels = regions.presence(len(classes))
    elif labels is None:
        place = {name: label for label, name in enumerate(classes)}
        if any(isinstance(record.label, list) for record in records):
            present = [None if record.label is None else [place[name] for name in record.label] for record in records]
            labels = label_matrix(present, len(classes))
        else:
            labels = np.array([place.get(record.label, NO_LABEL) for record in records], np.int64)
    return Dataset(
        spec=spec,
        classes=tuple(classes),
        keys=tuple(record.key for record in records),
        labels=labels,
        splits=np.array([record.split for record in records]),
        source=source,
        rows=np.arange(len(records)),
        skipped=tuple(skipped),
        regions=regions,
    )


def paired(files: Mapping[str, str], pictures: Sequence[str], faults: Faults) -> dict[str, str]:
    """Return the file of each picture that has one: of its name, nearest by names of folders, never of another split.

    ``files`` has the stem that each file stands for; those that belong to no picture go to ``faults``.
    """

    def common(picture: str, file: str) -> int:
        own, other = (path.lower().split("/")[:-1] for path in (picture, file))
        return len(set(own) & set(other)) * 100 - len(own)

    by_stem: dict[str, list[str]] = {}
    for path in pictures:
        by_stem.setdefault(PurePosixPath(path).stem, []).append(path)
    found: dict[str, str] = {}
    for file, stem in files.items():
        splits = {split_in_folders(file), None}
        near = [one for one in by_stem.get(stem, []) if len(splits | {split_in_folders(one)}) < 3]
        closest = max((common(picture, file) for picture in near), default=0)
        near = [picture for picture in near if common(picture, file) == closest]
        if len(near) != 1:
            faults.add(file, "several images have its name" if near else "there is no image of its name")
            continue
        before = found.get(near[0], file)
        found[near[0]], other = sorted((before, file), key=lambda one: -common(near[0], one))
        if before != file:
            faults.add(other, "its image has another file")
    return found


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
        raise DataError(message + "".join(f" The first: {item.name!r} {item.reason}." for item in skipped[:1]))


def with_boxes(
    spec: str,
    records: Sequence[Record],
    source: ImageSource,
    classes: Sequence[str],
    faults: Faults,
    where: str,
    skipped: Sequence[Skipped] = (),
    unit: Unit = "corners",
) -> Dataset:
    """Return the dataset of records and their boxes, cut at the borders of their pictures; a note counts those.

    An image of which everything listed is dropped is not annotated: something was there. Raises DataError.
    """
    require_few(classes, spec)
    found = [(row, one) for row, record in enumerate(records) for one in record.objects or ()]
    image = np.array([row for row, _ in found], np.int64)
    corners = np.array([one.corners for _, one in found], np.float64).reshape(-1, 4)
    names = [f"{records[row].key}, {one.name}" for row, one in found]
    size = np.ones((len(found), 2)) if unit == "parts" else picture_sizes(records, source.read)[image]
    if unit != "parts":
        _require_pixels(corners, size, names, spec)
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


def _require_pixels(boxes: NDArray[np.float64], size: NDArray[np.float64], names: Sequence[str], spec: str) -> None:
    """Refuse boxes (M, 4) that are parts of their pictures."""
    usable = np.isfinite(boxes).all(axis=1) & (size > 1).all(axis=1)
    found = boxes[usable]
    if len(found) and np.abs(found).max() <= 1 + TOLERANCE and (found % 1 != 0).any():
        first = f"{', '.join(f'{value:.4g}' for value in found[0])} of {names[np.flatnonzero(usable)[0]]!r}"
        raise DataError(
            f"{spec}: all boxes lie in the first pixel of their picture, such as {first}. They seem to be parts of "
            "the picture, and this format has pixels: multiply them by the width and height of the picture."
        )


def picture_sizes(records: Sequence[Record], read: Callable[[int], bytes]) -> NDArray[np.float64]:
    """Return (N, 2) width and height of the picture that the boxes of each record are in; NaN where not known.

    That is the stated size if its proportions are the picture's, which may have been made smaller later. Of pictures
    with boxes that fit, an even sample is read first; all of them if it shows a difference.
    """
    stated = np.array([record.size for record in records], np.float64).reshape(-1, 2)
    furthest, sizes = np.zeros(stated.shape), stated.copy()
    for row, record in enumerate(records):
        for one in record.objects or ():
            furthest[row] = np.fmax(furthest[row], one.corners[2:])

    def compare(rows: NDArray[np.int64]) -> None:
        for row in rows.tolist():
            width, height = stated[row]
            is_size = width >= 1 and height >= 1 and width * height < math.inf
            own = UNKNOWN_SIZE
            with contextlib.suppress(DecodeError, OSError):  # it is named when its pixels are read
                own = sides(read(row))
            if not is_size or abs((width / height) / (own[0] / own[1]) - 1) >= PROPORTION:
                sizes[row] = own

    fits = np.asarray((furthest <= stated * (1 + TOLERANCE)).all(axis=1))
    compare(np.flatnonzero(~fits))
    others = np.flatnonzero(fits & np.array([bool(record.objects) for record in records], np.bool_))
    sample = others[:: max(1, -(-len(others) // SAMPLE))]
    compare(sample)
    if (sizes[sample] != stated[sample]).any():
        compare(np.setdiff1d(others, sample))
    return sizes
