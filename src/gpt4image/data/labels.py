"""From the cells of a label column to class names and class numbers, and what is strange about classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.progress import console
from gpt4image.base.visible import visible
from gpt4image.data.image_set import NO_LABEL

MAX_CLASSES = 1_000_000
MAX_LABEL_LETTERS = 1000
# Names of the label in published sets, the usual ones first.
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


def encode_labels(cells: Sequence[object], spec: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names and the labels that a column of names or of numbers stands for.

    None, NaN, an empty cell and -1 mean no label. Whole numbers are class numbers: the classes are "0"
    to the largest one.
    Names are sorted.

    Args:
        cells: N cells: str, int, float or None.
        spec: of the image set, for messages.

    Returns:
        Class names; (N,) int64 labels.

    Raises:
        DataError: a number is below -1, too large to be a class number; a cell holds several values, or bytes.
    """
    for row, cell in enumerate(cells, 1):
        if isinstance(cell, list | tuple | dict | bytes):
            raise DataError(
                f"{spec}: label {str(cell)[:50]} of row {row} is a {type(cell).__name__}; one class each is needed, as "
                "text or as a whole number."
            )
        if isinstance(cell, str) and len(cell) > MAX_LABEL_LETTERS:
            raise DataError(
                f"{spec}: the label of row {row} has {len(cell):,} letters; class names have up to {MAX_LABEL_LETTERS}."
            )
    values = [_value(cell) for cell in cells]
    if all(isinstance(value, int) for value in values if value is not None):
        numbers = np.array([NO_LABEL if value is None else value for value in values], dtype=object)
        return _numbered(numbers, spec)
    names = ["" if value is None else str(value) for value in values]
    classes = tuple(sorted({name for name in names if name}))
    label_of = {name: label for label, name in enumerate(classes)} | {"": NO_LABEL}
    return classes, np.array([label_of[name] for name in names], dtype=np.int64)


def require_trained(classes: Sequence[str], labels: NDArray[np.int64], splits: NDArray[np.str_], spec: str) -> None:
    """Refuse a class of val or test that no image of train has; a set without a label in train is left alone.

    Args:
        classes: class names.
        labels: (N,) int64, NO_LABEL where there is none.
        splits: (N,) names of splits.
        spec: of the image set, for messages.

    Raises:
        DataError: naming the classes.
    """
    in_train = splits == "train"
    trained: set[int] = set(labels[in_train].tolist()) - {NO_LABEL}
    unknown: list[int] = sorted(set(labels[~in_train].tolist()) - trained - {NO_LABEL})
    if trained and unknown:
        lacks, has = ([classes[label] for label in some] for some in (unknown, sorted(trained)))
        raise DataError(
            f"{spec}: train lacks the class {first_few(lacks)} of val or test; its classes are {first_few(has, 20)}. "
            "Mend the label, or give train images of that class."
        )


def refuse_gaps(classes: Sequence[str], labels: NDArray[np.int64], spec: str) -> None:
    """Refuse class numbers of which most have no image, such as years: each number below the largest is a class.

    Args:
        classes: class names, as ``encode_labels`` gives them.
        labels: (N,) int64, NO_LABEL where there is none.
        spec: of the image set, for messages.

    Raises:
        DataError: naming the largest number.
    """
    used = [classes[label] for label in map(int, np.setdiff1d(labels, [NO_LABEL]))]
    if 2 * len(used) < len(classes):
        raise DataError(
            f"{spec}: the labels are class numbers up to {classes[-1]}, but only {len(used)} of these {len(classes)} "
            f"classes have an image, such as {first_few(used)}. Number the classes from 0 on, or give them names."
        )


def rarest_classes(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return (N,) the rarest present class of each image, NO_LABEL where no class is known to be present.

    Args:
        labels: (N, K) 1 present, 0 absent, -1 not known.
    """
    present = labels == 1
    counts = np.where(present, present.sum(axis=0), len(labels) + 1)
    return np.where(present.any(axis=1), counts.argmin(axis=1), NO_LABEL)


def differing_in_case(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of class names that differ in case alone; single letters are no such names."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(name.casefold(), []).append(name)
    return [tuple(group) for folded, group in groups.items() if len(group) > 1 and len(folded) > 1]


@functools.cache  # said once, however often a comparison loads the set
def note_once(text: str) -> None:
    """Say on standard error what is a slip as a rule, but not in every set."""
    console.print(f"Note: {visible(text)}", markup=False, highlight=False, soft_wrap=True)


def _numbered(values: NDArray[np.object_], spec: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    for row, value in enumerate(values):
        if not NO_LABEL <= value < MAX_CLASSES:
            raise DataError(
                f"{spec}: label {value} of row {row + 1} is out of range; class numbers are 0 to {MAX_CLASSES - 1}, "
                "-1 stands for no label."
            )
    labels = values.astype(np.int64)
    return tuple(str(number) for number in range(labels.max(initial=NO_LABEL) + 1)), labels


def _value(cell: object) -> int | str | None:
    """Return a cell as class number, class name or None for no label."""
    if isinstance(cell, str):
        text = cell.strip()
        # "01" is a name: as a number it would be one with "1".
        number = int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else None
        value = number if number is not None and str(number) == text else text or None
    elif isinstance(cell, float):
        value = None if math.isnan(cell) else int(cell) if cell.is_integer() else str(cell)
    elif isinstance(cell, int) and not isinstance(cell, bool):
        value = cell
    else:
        value = None if cell is None else str(cell)
    return None if value == NO_LABEL else value
