"""The dataset: keys, digests, labels and splits of images whose bytes stay where they are."""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.base import plugins
from gpt4image.base.errors import DataError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import say
from gpt4image.base.visible import visible
from gpt4image.data.regions import Regions

NO_LABEL = -1
MAX_CLASSES = 1_000_000
MAX_LABEL_LETTERS = 1000
MAX_SEVERAL = 20_000  # classes where images have several, which takes a byte per image and class
SEPARATOR = "|"  # between the names of several classes in one cell
# Names of the label in published datasets, the usual ones first.
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "cls")
# Of these only lists are labels of an image: text of that name may be anything.
LIST_NAMES = (*LABEL_NAMES, "tags")
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,99}")  # "01" is a name: as a number it would be one with "1"
_WHOLE = re.compile(r"[0-9]{1,9}\.0")
_PRESENCE = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": NO_LABEL, "nan": NO_LABEL}


def encode_labels(
    cells: Sequence[object], spec: str, rows: Sequence[int] | None = None, *, names: bool = False
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names and the (N,) labels of a column of N names or numbers.

    None, NaN, an empty cell and -1 mean no label. Whole numbers are class numbers, unless they are ``names``; names are
    sorted, in composed Unicode. ``rows`` are the numbers of the rows for messages. Raises DataError.
    """
    rows = rows or range(1, len(cells) + 1)
    for row, cell in zip(rows, cells, strict=True):
        if isinstance(cell, list | tuple | dict | bytes) or (isinstance(cell, str) and len(cell) > MAX_LABEL_LETTERS):
            raise DataError(
                f"{spec}: label {str(cell)[:50]!r} of row {row} is a {type(cell).__name__} of length {len(cell)}; give "
                f"one class, as text of up to {MAX_LABEL_LETTERS} letters or as a whole number. A column of several "
                "classes per image is called 'labels' or 'tags'."
            )
    values = [_value(cell) for cell in cells]
    given = [value for value in values if value is not None]
    if not names and all(isinstance(value, str) and _WHOLE.fullmatch(value) for value in given):
        values = [None if value is None else int(float(value)) for value in values]
    elif names or not all(isinstance(value, int) for value in given):
        classes = tuple(sorted({str(value) for value in given}))
        label_of = {name: label for label, name in enumerate(classes)}
        labels = [NO_LABEL if value is None else label_of[str(value)] for value in values]
        return classes, np.array(labels, np.int64)
    numbers = [NO_LABEL if value is None else int(value) for value in values]
    for row, number in zip(rows, numbers, strict=True):
        if not NO_LABEL <= number < MAX_CLASSES:
            numbered = f"class numbers are 0 to {MAX_CLASSES - 1}, -1 means no label"
            raise DataError(f"{spec}: label {number} of row {row} is out of range; {numbered}.")
    return tuple(map(str, range(max(numbers, default=NO_LABEL) + 1))), np.array(numbers, np.int64)


def encode_several(cells: Sequence[object], spec: str) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Return the class names and the (N, K) labels of a column with several classes per image.

    A cell is a list, or a text of names between bars; an empty list and a single bar mean that no class is present.
    """

    def refuse(row: int, fault: str) -> DataError:
        return DataError(f"{spec}: row {row}, {str(cells[row - 1])[:50]!r}{fault}")

    lists = [_several(cell) for cell in cells]
    texts = {row: cell for row, cell in enumerate(cells, 1) if isinstance(cell, str)}
    found = [(row, sign) for row, text in texts.items() for sign in ";," if sign in text]
    if found and not any(SEPARATOR in text for text in texts.values()):
        raise refuse(found[0][0], f": classes of one image are separated by {SEPARATOR!r}, not by {found[0][1]!r}.")
    rows = [row for row, values in enumerate(lists, 1) for _ in values or ()]
    classes, numbers = encode_labels([value for values in lists for value in values or ()], spec, rows)
    if len(empty := np.flatnonzero(numbers == NO_LABEL)):
        raise refuse(rows[empty[0]], ", has a class without a name; leave the cell empty where there is no label.")
    require_few(classes, spec)
    number = iter(numbers.tolist())
    present = [None if values is None else [next(number) for _ in values] for values in lists]
    if twice := next((row for row, some in enumerate(present, 1) if some and len(set(some)) < len(some)), None):
        raise refuse(twice, ", has a class twice; give each class once, by name or number, not a vector of 0 and 1.")
    return classes, label_matrix(present, len(classes))


def require_few(classes: Sequence[str], spec: str, limit: int = MAX_SEVERAL) -> None:
    """Raise DataError where there are too many classes."""
    if len(classes) > limit:
        raise DataError(
            f"{spec}: {len(classes):,} classes, such as {first_few(classes)}; up to {limit:,} are possible."
        )


def encode(
    cells: Sequence[object], spec: str, *, names: bool = False, several: bool = False
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Return class names and labels of cells: (N,) one class each, or (N, K) if ``several``. Raises DataError."""
    classes, labels = encode_several(cells, spec) if several else encode_labels(cells, spec, names=names)
    used = [classes[label] for label in used_classes(labels)]
    if 2 * len(used) < len(classes):
        raise DataError(
            f"{spec}: the labels are class numbers up to {classes[-1]}, but only {len(used)} of these {len(classes)} "
            f"classes have an image, such as {first_few(used)}. Number the classes from 0 on, or give them names."
        )
    return classes, labels


def label_matrix(present: Sequence[Sequence[int] | None], classes: int) -> NDArray[np.int8]:
    """Return the (N, K) labels of images whose present classes are known, as numbers; None for no label."""
    labels = np.zeros((len(present), classes), np.int8)
    for row, numbers in zip(labels, present, strict=True):
        row[slice(None) if numbers is None else list(numbers)] = NO_LABEL if numbers is None else 1
    return labels


def presence(cells: Sequence[object]) -> NDArray[np.int8] | None:
    """Return (N,) int8 of a column of 1, 0, true, false and empty cells; None where it has another cell."""
    if any(isinstance(cell, list | dict) for cell in cells):
        return None
    code = {cell: _PRESENCE.get("" if cell is None else str(cell).strip().lower()) for cell in set(cells)}
    return None if None in code.values() else np.fromiter((code[cell] for cell in cells), np.int8, len(cells))


def used_classes(labels: NDArray[Any]) -> list[int]:
    """Return the numbers of the classes that some image has, in order; labels are those of a ``Dataset``."""
    used = np.flatnonzero((labels == 1).any(axis=0)) if labels.ndim == 2 else np.setdiff1d(labels, [NO_LABEL])
    return used.tolist()


def require_trained(classes: Sequence[str], labels: NDArray[Any], splits: NDArray[np.str_], spec: str) -> None:
    """Refuse a class of val or test that no image of train can have, as all are labelled. Raises DataError.

    Where some have no label, they may be of that class, and answers or descriptions say so: a note names it.
    """
    in_train = splits == "train"
    trained = used_classes(labels[in_train])
    unknown = sorted(set(used_classes(labels[~in_train])).difference(trained))
    if trained and unknown:
        lacks = first_few(classes[label] for label in unknown)
        has = first_few((classes[label] for label in trained), 20)
        known = labels[in_train] if labels.ndim == 1 else labels[in_train][:, unknown]
        if (known != NO_LABEL).all():
            raise DataError(
                f"{spec}: train lacks the class {lacks} of val or test; its classes are {has}. "
                "Mend the label, or give train images of that class."
            )
        note_once(f"{spec}: no label of train is {lacks}, as in val or test; labels of train are {has}. Is it a slip?")


def rarest_classes(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return (N,) the rarest class that each row of labels (N, K) has as 1; NO_LABEL where it has none."""
    present = labels == 1
    if not present.any():
        return np.full(len(labels), NO_LABEL)
    rarest_first = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), rarest_first[present[:, rarest_first].argmax(axis=1)], NO_LABEL)


def note_alike(classes: Sequence[str], spec: str) -> None:
    """Note classes whose names differ only in case, spaces, hyphens or underscores: most often one class."""
    by_form: dict[str, list[str]] = {}
    for name in classes:
        by_form.setdefault(re.sub(r"[\s_-]+", " ", name).casefold(), []).append(name)
    if alike := [" and ".join(map(repr, names)) for names in by_form.values() if len(names) > 1]:
        note_once(f"{spec}: {'; '.join(alike[:5])} count as different classes. If they are one, spell it in one way.")


def note_other_classes(where: str, names: Sequence[str], own: Sequence[str], spec: str) -> None:
    """Note on standard error which ``names`` no image of a dataset with the classes ``own`` has: often a slip."""
    if own and (others := [name for name in names if name not in own]):
        lost = [name for name in own if name not in names]  # a name that both have is no slip
        slips = {name: close[0] for name in others[:5] if (close := difflib.get_close_matches(name, lost, n=1))}
        meant = "".join(f" Is {name!r} meant to be {right!r}?" for name, right in slips.items())
        note_once(f"{where} has the classes {first_few(others)}, and no image of {spec} has such a label.{meant}")


@functools.cache  # a comparison loads the same dataset many times
def note_once(text: str) -> None:
    """Print a note on standard error about a usual slip, once per process."""
    say(f"Note: {visible(text)}")


def _value(cell: object) -> int | str | None:
    if isinstance(cell, str):
        text = cell.strip()
        name = None if text in ("", "nan", "NaN") else unicodedata.normalize("NFC", text)
        value = int(text) if _NUMBER.fullmatch(text) else name
    elif isinstance(cell, float):
        value = None if math.isnan(cell) else int(cell) if cell.is_integer() else str(cell)
    elif isinstance(cell, int) and not isinstance(cell, bool):
        value = cell
    else:
        value = None if cell is None else str(cell)
    return None if value == NO_LABEL else value


def _several(cell: object) -> list[Any] | None:
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, str) and SEPARATOR in cell:
        return [name for name in cell.split(SEPARATOR) if name.strip()]
    return None if _value(cell) is None else [cell]


SPLITS = ("train", "val", "test")
RANDOM, DOUBT = "random", "doubt"
SAMPLED = ("", RANDOM, DOUBT)
"""Why a person was asked about an image: nobody was, or it is not known; at random; as its label was in doubt.

What was in doubt teaches and never measures, for it is harder than the others.
"""
# Names that folders, manifests and published datasets use for them.
SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_named(name: str, splits: Mapping[str, str] = SPLIT_OF) -> str | None:
    """Return the split named in a word of a name, such as train of ``instances_train2017``; None without."""
    return next((splits[word] for word in re.split(r"[^a-z]+", name.lower()) if word in splits), None)


def split_in_folders(path: str) -> str | None:
    """Return the split of the first folder with a split name; None without."""
    return next(filter(None, map(split_named, PurePosixPath(path).parts[:-1])), None)


def is_unicode(name: str) -> bool:
    """Return whether a name is valid UTF-8; others cannot be written as keys or class names."""
    return name.isascii() or name.encode(errors="ignore").decode() == name


class ImageSource(Protocol):
    """Where the bytes of images are."""

    def read(self, row: int) -> bytes:
        """Return the bytes of one image, in a format that Pillow reads. Raises OSError."""
        ...

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image; many at once, so that sources can be quick."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """N images of one dataset. Immutable; selecting images shares the source.

    Attributes:
        spec: the SPEC string it was loaded from.
        classes: K class names; a label is a position in it.
        keys: N unique stable names (relative path, dataset id).
        labels: (N,) int64, one class per image, NO_LABEL where there is none; or (N, K) int8, several classes per
            image: 1 present, 0 absent, -1 not known.
        splits: (N,) str, each one of SPLITS.
        source: gives the bytes of image i as ``source.read(rows[i])``.
        rows: (N,) int64, position of each image in the source.
        skipped: skipped images, with the reason.
        regions: boxes or masks of the N images, of which ``labels`` say which classes are present; None without.
        clips: whether the bytes are those of videos; see ``data.video``.
        sampled: (N,) str, why a person was asked about each image, one of ``SAMPLED``; None where nothing says it.
    """

    spec: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: NDArray[Any]
    splits: NDArray[np.str_]
    source: ImageSource
    rows: NDArray[np.int64]
    skipped: tuple[Skipped, ...] = ()
    regions: Regions | None = None
    clips: bool = False
    sampled: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        """Check lengths, keys, labels and splits. Raises DataError."""
        images, classes = len(self.keys), len(self.classes)
        parts = (self.keys, self.labels, self.splits, self.rows, self.regions, self.sampled)
        lengths = {len(part) for part in parts if part is not None}
        several = self.labels.ndim == 2
        wrong, fault = (self.labels < NO_LABEL) | (self.labels >= (2 if several else classes)), ""
        if len(lengths) > 1:
            fault = f"keys, labels, splits, rows and regions of {lengths} images; one of each per image is needed"
        elif not images:
            fault = "there are no images"
        elif twice := first_few(key for key, count in Counter(self.keys).items() if count > 1):
            fault = f"keys must be unique, but these come twice: {twice}"
        elif self.labels.shape[1:] not in ((), (classes,)):
            fault = f"labels have the shape {self.labels.shape}; ({images},) or ({images}, {classes}) is needed"
        elif wrong.any():
            keys = (self.keys[i] for i in np.unique(np.nonzero(wrong)[0]))
            allowed = "0 (absent), 1 (present) or -1 (not known)" if several else f"in 0..{classes - 1}, or -1 for none"
            fault = f"labels must be {allowed}; got {self.labels[wrong][0]} for {first_few(keys)}"
        elif broken := [name for name in (*self.classes, *self.keys) if not is_unicode(name)]:
            fault = f"the name {broken[0]!a} holds half a character (of a surrogate pair), which no file can hold"
        elif strange := sorted(set(np.unique(self.splits).tolist()) - set(SPLITS)):
            fault = f"splits are {', '.join(SPLITS)}; got {first_few(strange)}"
        if fault:
            raise DataError(f"{self.spec}: {fault}.")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """Return the bytes of image ``index``."""
        return self.source.read(int(self.rows[index]))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """N sha256 hex digests of the image bytes: descriptions belong to these. Equal images share one."""
        return self.source.digests(self.rows)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) which images have a label; of several classes, one at least that is known to be present or absent."""
        known = self.labels != NO_LABEL
        return known.any(axis=1) if known.ndim == 2 else known

    def was_sampled(self, why: str) -> NDArray[np.bool_]:
        """Return (N,) which images a person was asked about for one reason of ``SAMPLED``."""
        return np.zeros(len(self), bool) if self.sampled is None else self.sampled == why

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the class by which splits are cut: the label, of several classes the rarest one that is present.

        K where all known classes are absent; NO_LABEL without a label, or without the boxes or masks of a dataset of
        these.
        """
        if self.labels.ndim == 1:
            return self.labels
        rarest = rarest_classes(self.labels)
        groups = np.where(self.labelled & (rarest == NO_LABEL), len(self.classes), rarest)
        return groups if self.regions is None else np.where(self.regions.known, groups, NO_LABEL)

    def label_names(self, index: int) -> tuple[str, ...]:
        """Return the names of the classes of image ``index``; none where it has no label."""
        label = self.labels[index]
        present = np.flatnonzero(label == 1) if self.labels.ndim == 2 else [label] if label != NO_LABEL else []
        return tuple(self.classes[k] for k in present)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split, in order."""
        return np.flatnonzero(self.splits == split)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """Return the images at ``indices``, in that order; digests that are known stay known."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self.revised(
            chosen,
            keys=tuple(self.keys[i] for i in chosen),
            labels=self.labels[chosen],
            splits=self.splits[chosen],
            rows=self.rows[chosen],
            regions=None if self.regions is None else self.regions[chosen],
            sampled=None if self.sampled is None else self.sampled[chosen],
        )

    def revised(self, chosen: NDArray[np.int64] | None = None, **changes: Any) -> Dataset:
        """Return the same images, or those ``chosen``, with other fields; digests that are known stay known."""
        other = replace(self, **changes)
        if "digests" in self.__dict__:
            own = self.digests
            other.__dict__["digests"] = own if chosen is None else tuple(own[i] for i in chosen)
        return other

    def with_classes(self, names: Sequence[str], where: str = "the list of classes") -> Dataset:
        """Return the same images among more classes; ``names`` are those of ``where``, and hold all. DataError."""
        if tuple(names) == self.classes:
            return self
        if lost := sorted(set(self.classes) - set(names)):
            others = set(names) - set(self.classes)
            close = {name: difflib.get_close_matches(name, others, n=1) for name in lost[:5]}
            slips = "".join(f" Is {near[0]!r} meant to be {name!r}?" for name, near in close.items() if near)
            known = f"; other classes there are {first_few(sorted(others))}" if others else ""
            raise DataError(
                f"{self.spec} has images of {first_few(lost)}, which {where} lacks{known}.{slips} If a class was "
                "renamed or split, give both the same names. If the folders are no classes, put the images into one "
                "folder without others."
            )
        number_of = {name: number for number, name in enumerate(names)}
        place = [number_of[name] for name in self.classes]
        if self.labels.ndim == 1:
            labels = np.array([*place, NO_LABEL], np.int64)[self.labels]
        else:
            labels = np.full((len(self), len(names)), NO_LABEL, np.int8)
            labels[:, place] = self.labels
        regions = None if self.regions is None else self.regions.with_classes(place, len(names))
        return self.revised(classes=tuple(names), labels=labels, regions=regions)


@dataclass(frozen=True)
class ForeignSource:
    """Image bytes that code of another package gives; what it raises is an OSError of that image, and names it."""

    source: ImageSource
    who: str

    def read(self, row: int) -> bytes:
        """Return the bytes of one image."""
        try:
            with plugins.guarded(self.who, kind=DataError):
                return bytes(memoryview(self.source.read(row)))
        except DataError as error:
            raise OSError(str(error)) from None

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image."""
        with plugins.guarded(self.who, kind=DataError):
            found = tuple(self.source.digests(rows))
            if len(found) != len(rows) or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in found):
                raise DataError("its digests are not one sha256 per image, in hexadecimal.")
            return found


class MemorySource:
    """Image bytes held in a list."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self._images = images

    def read(self, row: int) -> bytes:
        """Return the bytes of one image."""
        return self._images[row]

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of the bytes of each image."""
        return tuple(hashlib.sha256(self._images[row]).hexdigest() for row in rows)
