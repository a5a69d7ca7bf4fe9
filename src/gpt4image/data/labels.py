"""From the cells of a label column to class names and class numbers, and checks of classes."""

from __future__ import annotations

import difflib
import functools
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.progress import say
from gpt4image.base.visible import visible

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
    """Refuse a class of val or test that no image of train has, unless no image of train has a label. DataError."""
    in_train = splits == "train"
    trained = used_classes(labels[in_train])
    unknown = sorted(set(used_classes(labels[~in_train])).difference(trained))
    if trained and unknown:
        lacks, has = ([classes[label] for label in some] for some in (unknown, trained))
        raise DataError(
            f"{spec}: train lacks the class {first_few(lacks)} of val or test; its classes are {first_few(has, 20)}. "
            "Mend the label, or give train images of that class."
        )


def rarest_classes(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return (N,) the rarest class that each row of labels (N, K) has as 1; NO_LABEL where it has none."""
    present = labels == 1
    if not present.any():
        return np.full(len(labels), NO_LABEL)
    rarest_first = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), rarest_first[present[:, rarest_first].argmax(axis=1)], NO_LABEL)


def note_other_classes(where: str, names: Sequence[str], own: Sequence[str], spec: str) -> None:
    """Note on standard error which ``names`` no image of a dataset with the classes ``own`` has: often a slip."""
    if own and (others := [name for name in names if name not in own]):
        slips = {name: close[0] for name in others[:5] if (close := difflib.get_close_matches(name, own, n=1))}
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
