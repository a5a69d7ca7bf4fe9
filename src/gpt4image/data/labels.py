"""Class labels as cells of a table have them: each cell names a class, or several, and becomes a number.

A label is a name, also where it is a number: ``01`` and ``1`` are two. Names are sorted, whole numbers by their value.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, first_few
from gpt4image.base.progress import say
from gpt4image.base.visible import visible

NO_LABEL = -1
MAX_LABEL_LETTERS = 1000
MAX_SEVERAL = 20_000  # classes where images have several, which takes a byte per image and class
SEPARATOR = "|"  # between the names of several classes in one cell
_NO_NAME, _NO_VALUE = ("", "-1", "nan", "NaN"), ("None", "nan", "<NA>", "NaT")  # of texts; of other objects
_PRESENCE = {"1": 1, "true": 1, "0": 0, "false": 0, "": NO_LABEL, "nan": NO_LABEL}


def class_name(cell: object) -> str | None:
    """Return the class that a cell names, in composed Unicode; None for an empty cell, NaN, -1. Raises ValueError."""
    if isinstance(cell, float) and cell.is_integer():  # what Parquet and pandas make of integers with gaps
        cell = int(cell)
    if isinstance(cell, list | tuple | dict | bytes) or len(text := str(cell).strip()) > MAX_LABEL_LETTERS:
        raise ValueError(
            f"{str(cell)[:50]!r} is a {type(cell).__name__}; give one class, as text of up to {MAX_LABEL_LETTERS} "
            "letters, or several in a column of lists, labels=COLUMN"
        )
    nothing = text in _NO_NAME or (not isinstance(cell, str) and text in _NO_VALUE)
    return None if nothing else unicodedata.normalize("NFC", text)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once, in order: of whole numbers by their value."""
    found = set(names)
    is_number = all(name.isascii() and name.isdigit() for name in found)
    return tuple(sorted(found, key=lambda name: (len(name), name) if is_number else name))


def encode(
    cells: Sequence[object], spec: object, *, several: bool = False, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Return class names and labels of cells: (N,) int64 one class each, or (N, K) int8 if ``several``.

    A cell of several is a list, or a text of names between bars; an empty list and a single bar mean that no class is
    present. Without ``classes``, the names that come are the classes. Raises DataError.
    """
    names: list[list[str] | None] = []
    for row, cell in enumerate(cells, 1):
        try:
            each = _several(cell) if several else [cell]
            found = None if each is None else [class_name(one) or "" for one in each]
        except ValueError as error:
            raise DataError(f"{spec}: the label of row {row}, {error}.") from None
        if several and found is not None and ("" in found or len(set(found)) < len(found)):
            raise DataError(f"{spec}: row {row}, {str(cell)[:50]!r}, has a class without a name, or a class twice.")
        names.append(found)
    if classes is None:
        classes = sorted_names(name for found in names for name in found or () if name)
    place = {class_name(name) or name: label for label, name in enumerate(classes)}
    if several:
        require_few(classes, spec)
        present = [None if found is None else [place[name] for name in found] for found in names]
        return tuple(classes), label_matrix(present, len(classes))
    place[""] = NO_LABEL
    return tuple(classes), np.array([place[found[0]] if found else NO_LABEL for found in names], np.int64)


def _several(cell: object) -> list[object] | None:
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, str) and SEPARATOR in cell:
        return [name for name in cell.split(SEPARATOR) if name.strip()]
    return None if class_name(cell) is None else [cell]


def presence(cells: Sequence[object]) -> NDArray[np.int8]:
    """Return (N,) int8 of a column of 1, 0, true, false and empty cells. Raises ValueError: another cell."""
    texts = ["" if cell is None else str(cell).strip().lower().removesuffix(".0") for cell in cells]
    for row, text in enumerate(texts, 1):
        if text not in _PRESENCE:
            raise ValueError(
                f"has {text[:50]!r} in row {row}; give 1 for a class that is present, 0 for one that is absent, and "
                "leave the cell empty where it is not known"
            )
    return np.array([_PRESENCE[text] for text in texts], np.int8)


def label_matrix(present: Sequence[Sequence[int] | None], classes: int) -> NDArray[np.int8]:
    """Return the (N, K) labels of images whose present classes are known, as numbers; None for no label."""
    labels = np.zeros((len(present), classes), np.int8)
    for row, numbers in zip(labels, present, strict=True):
        row[slice(None) if numbers is None else list(numbers)] = NO_LABEL if numbers is None else 1
    return labels


def require_few(classes: Sequence[str], spec: object, limit: int = MAX_SEVERAL) -> None:
    """Raise DataError where there are too many classes."""
    if len(classes) > limit:
        raise DataError(
            f"{spec}: {len(classes):,} classes, such as {first_few(classes)}; up to {limit:,} are possible."
        )


def used_classes(labels: NDArray[Any]) -> list[int]:
    """Return the numbers of the classes that some image has, in order; labels are those of a ``Dataset``."""
    used = np.flatnonzero((labels == 1).any(axis=0)) if labels.ndim == 2 else np.setdiff1d(labels, [NO_LABEL])
    return used.tolist()


def rarest_classes(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return (N,) the rarest class that each row of labels (N, K) has as 1; NO_LABEL where it has none."""
    present = labels == 1
    if not present.any():
        return np.full(len(labels), NO_LABEL)
    rarest_first = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), rarest_first[present[:, rarest_first].argmax(axis=1)], NO_LABEL)


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
