"""From the cells of a label column to class names and class numbers, and what is strange about classes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.progress import console
from gpt4image.base.visible import visible

NO_LABEL = -1
MAX_CLASSES = 1_000_000
MAX_LABEL_LETTERS = 1000
MAX_SEVERAL = 20_000  # classes of a set with several per image, whose labels take a byte per image and class
SEPARATOR = "|"  # between the names of several classes in one cell
# Names of the label in published sets, the usual ones first.
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
# Of these only lists are labels of an image: text of that name may be anything.
LIST_NAMES = (*LABEL_NAMES, "tags")
_PRESENCE = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": NO_LABEL, "nan": NO_LABEL}


def encode_labels(
    cells: Sequence[object], spec: str, rows: Sequence[int] | None = None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the class names and the labels that a column of names or of numbers stands for.

    None, NaN, an empty cell and -1 mean no label. Whole numbers are class numbers: the classes are "0"
    to the largest one.
    Names are sorted.

    Args:
        cells: N cells: str, int, float or None.
        spec: of the image set, for messages.
        rows: N row numbers for messages, where they are not 1 to N.

    Returns:
        Class names; (N,) int64 labels.

    Raises:
        DataError: a number is below -1, too large to be a class number; a cell holds several values, or bytes.
    """
    rows = rows or range(1, len(cells) + 1)
    for row, cell in zip(rows, cells, strict=True):
        if isinstance(cell, list | tuple | dict | bytes):
            raise DataError(
                f"{spec}: label {str(cell)[:50]} of row {row} is a {type(cell).__name__}; one class each is needed, as "
                "text or as a whole number. A column of several classes per image is called 'labels' or 'tags'."
            )
        if isinstance(cell, str) and len(cell) > MAX_LABEL_LETTERS:
            raise DataError(
                f"{spec}: the label of row {row} has {len(cell):,} letters; class names have up to {MAX_LABEL_LETTERS}."
            )
    values = [_value(cell) for cell in cells]
    if all(isinstance(value, int) for value in values if value is not None):
        numbers = np.array([NO_LABEL if value is None else value for value in values], dtype=object)
        return _numbered(numbers, rows, spec)
    names = ["" if value is None else str(value) for value in values]
    classes = tuple(sorted({name for name in names if name}))
    label_of = {name: label for label, name in enumerate(classes)} | {"": NO_LABEL}
    return classes, np.array([label_of[name] for name in names], dtype=np.int64)


def encode_several(cells: Sequence[object], spec: str) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Return the class names and the labels of a column with several classes per image.

    A cell is a list of names or of class numbers, or a text of names between bars: ``red|round``. None, NaN, an empty
    text and -1 mean no label; an empty list and a bar alone mean that no class is present.

    Args:
        cells: N cells.
        spec: of the image set, for messages.

    Returns:
        K class names, as of ``encode_labels``; (N, K) int8 labels, 1 present, 0 absent, rows of -1 for no label.

    Raises:
        DataError: a value is no class, there are too many classes, or names are not separated by bars.
    """
    lists = [_several(cell) for cell in cells]
    _require_bars(cells, spec)
    places = [row for row, values in enumerate(lists) for _ in values or ()]
    classes, numbers = encode_labels(
        [value for values in lists for value in values or ()], spec, rows=[row + 1 for row in places]
    )
    if len(empty := np.flatnonzero(numbers == NO_LABEL)):
        raise DataError(
            f"{spec}: row {places[empty[0]] + 1}, {str(cells[places[empty[0]]])[:50]!r}, has a class without a name "
            f"among others. Remove it; for an image without a label leave the whole cell empty."
        )
    if len(classes) > MAX_SEVERAL:
        raise DataError(
            f"{spec}: its labels name {len(classes):,} classes, such as {first_few(classes)}; with several per image "
            f"up to {MAX_SEVERAL:,} are possible. Keep those that many images have."
        )
    number = iter(numbers.tolist())
    present = [None if values is None else [next(number) for _ in values] for values in lists]
    return classes, label_matrix(present, len(classes))


def label_matrix(present: Sequence[Sequence[int] | None], classes: int) -> NDArray[np.int8]:
    """Return the (N, K) labels of images whose present classes are known, as numbers; None for no label."""
    labels = np.zeros((len(present), classes), np.int8)
    for row, numbers in zip(labels, present, strict=True):
        row[slice(None) if numbers is None else list(numbers)] = NO_LABEL if numbers is None else 1
    return labels


def presence(cells: Sequence[object]) -> NDArray[np.int8] | None:
    """Return (N,) int8 of a column of 1, 0, true, false and empty cells; None where another cell is among them."""
    if any(isinstance(cell, list | dict) for cell in cells):
        return None
    code = {cell: _PRESENCE.get("" if cell is None else str(cell).strip().lower()) for cell in set(cells)}
    if None in code.values():
        return None
    return np.fromiter((code[cell] for cell in cells), np.int8, len(cells))


def used_classes(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of the classes that some image has, in order; (N,) and (N, K) labels as of an image set."""
    return np.flatnonzero((labels == 1).any(axis=0)) if labels.ndim == 2 else np.setdiff1d(labels, [NO_LABEL])


def require_trained(classes: Sequence[str], labels: NDArray[Any], splits: NDArray[np.str_], spec: str) -> None:
    """Refuse a class of val or test that no image of train has; a set without a label in train is left alone.

    Args:
        classes: class names.
        labels: (N,) or (N, K), as of an image set.
        splits: (N,) names of splits.
        spec: of the image set, for messages.

    Raises:
        DataError: naming the classes.
    """
    in_train = splits == "train"
    trained = used_classes(labels[in_train])
    unknown = np.setdiff1d(used_classes(labels[~in_train]), trained)
    if len(trained) and len(unknown):
        lacks, has = ([classes[label] for label in some] for some in (unknown, trained))
        raise DataError(
            f"{spec}: train lacks the class {first_few(lacks)} of val or test; its classes are {first_few(has, 20)}. "
            "Mend the label, or give train images of that class."
        )


def refuse_gaps(classes: Sequence[str], labels: NDArray[Any], spec: str) -> None:
    """Refuse class numbers of which most have no image, such as years: each number below the largest is a class.

    Args:
        classes: class names, as ``encode_labels`` gives them.
        labels: (N,) or (N, K), as of an image set.
        spec: of the image set, for messages.

    Raises:
        DataError: naming the largest number.
    """
    used = [classes[label] for label in used_classes(labels)]
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
    if not present.any():
        return np.full(len(labels), NO_LABEL)
    rarest_first = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), rarest_first[present[:, rarest_first].argmax(axis=1)], NO_LABEL)


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


def _several(cell: object) -> list[Any] | None:
    """Return the values of a cell of several classes; None for no label."""
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, str) and SEPARATOR in cell:
        return [name for name in cell.split(SEPARATOR) if name.strip()]
    return None if _value(cell) is None else [cell]


def _require_bars(cells: Sequence[object], spec: str) -> None:
    texts = [(row, cell) for row, cell in enumerate(cells, 1) if isinstance(cell, str)]
    if any(SEPARATOR in cell for _, cell in texts):
        return
    for separator in ";,":
        if found := next(((row, cell) for row, cell in texts if separator in cell), None):
            raise DataError(
                f"{spec}: row {found[0]}, {found[1][:50]!r}: classes of one image are separated by {SEPARATOR!r}, not "
                f"by {separator!r}. Where {separator!r} is part of a name, give one column of 0 and 1 per class."
            )


def _numbered(values: NDArray[np.object_], rows: Sequence[int], spec: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    for row, value in zip(rows, values, strict=True):
        if not NO_LABEL <= value < MAX_CLASSES:
            raise DataError(
                f"{spec}: label {value} of row {row} is out of range; class numbers are 0 to {MAX_CLASSES - 1}, "
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
