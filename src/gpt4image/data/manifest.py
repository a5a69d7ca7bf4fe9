"""`manifest:FILE.csv|parquet`: a table with one image a row.

path          image file, relative to the manifest's folder; may not lead out of it
label         class name or number; empty or -1 for none (optional)
labels, tags  several classes per image instead: names with bars between them, in Parquet also lists (optional)
label:NAME    or one column per class: 1, 0 or empty for not known; without "label:" where all cells are of these
split         train, val or test (optional; without it all are train)
key           stable name (optional; without it the path)
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError, first_few, nearest, parsing
from gpt4image.base.outcome import SetAside
from gpt4image.data.file_source import FileSource, expanded, is_below
from gpt4image.data.image_set import SPLIT_OF, ImageSet
from gpt4image.data.labels import SEPARATOR, encode_labels, encode_several, note_once, presence, refuse_gaps

COLUMNS = ("path", "label", "labels", "tags", "split", "key")
LABEL_COLUMNS = ("label", "labels", "tags")
CLASS_COLUMN = "label:"


def load_manifest(argument: str) -> ImageSet:
    """Load the images that a CSV (UTF-8, comma) or Parquet file lists.

    Rows whose file is missing or lies outside the manifest's folder are set aside by name.

    Raises:
        ConfigError: no file is given, or one of another kind.
        DataError: the file is missing, damaged or empty; a column is unknown; `path` is missing; several columns give
            labels; a split or a label is out of range; most class numbers are empty; keys come twice.
    """
    spec = f"manifest:{argument}"
    if not argument:
        raise ConfigError("--data 'manifest:' lacks a file: manifest:FILE.csv or manifest:FILE.parquet.")
    file = expanded(argument)
    table = _read_table(file, spec)
    given = [_text(path) for path in table["path"]]
    located = _Locator(file.parent).locate_all(given)
    rows = [row for row, place in enumerate(located) if place.file]
    set_aside = tuple(
        SetAside(name=given[row] or f"{file.name}, row {row + 1}", reason=place.fault)
        for row, place in enumerate(located)
        if not place.file
    )
    if not rows:
        first = f" The first: {set_aside[0].name!r}, {set_aside[0].reason}." if set_aside else ""
        raise DataError(f"{spec}: none of its {len(given)} rows names an image that can be used.{first}")
    classes, labels = _labels(table, [bool(place.file) for place in located], spec)
    splits = _splits(table["split"], spec) if "split" in table else ["train"] * len(given)
    keys = [_text(key) for key in table["key"]] if "key" in table else [posixpath.normpath(path) for path in given]
    if "" in keys:
        raise DataError(f"{spec}: row {keys.index('') + 1} has no key; give every row one, or leave the column out.")
    return ImageSet(
        spec=spec,
        classes=classes,
        keys=tuple(keys[row] for row in rows),
        labels=labels[rows],
        splits=np.array([splits[row] for row in rows]),
        source=FileSource(file.parent, [located[row].file for row in rows]),
        rows=np.arange(len(rows)),
        set_aside=set_aside,
    )


def _read_table(file: Path, spec: str) -> dict[str, list[Any]]:
    """Return the columns as lists of cells, one per row."""
    if file.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{spec}: a manifest is a .csv or a .parquet file, got {file.suffix or 'no extension'!r}.")
    if not file.is_file():
        raise DataError(f"{spec}: there is no such file.")
    return _read_csv(file, spec) if file.suffix == ".csv" else _read_parquet(file, spec)


def _require_unique(names: Sequence[str], spec: str) -> None:
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")


def _require_columns(table: dict[str, list[Any]], spec: str, advice: str = "") -> None:
    """Refuse a table whose columns are not those of a manifest; the advice is for one that has none of them."""
    unknown = [name for name in table if name not in COLUMNS and not _is_class(name, table[name])]
    if unknown or "path" not in table:
        lack = "" if "path" in table else " Column 'path' is missing."
        close = difflib.get_close_matches(unknown[0], COLUMNS, n=1) if unknown else []
        wrong = f" Column {unknown[0]!r} is none of these." if unknown else ""
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"{spec}: its columns are {', '.join(map(repr, table)) or 'none'}; allowed are path, label (one class per "
            f"image), labels or tags (several, separated by {SEPARATOR!r}), split, key, and columns of 0, 1 or empty "
            f"cells, one per class.{lack}{wrong}{hint}{'' if set(table) & set(COLUMNS) else advice}"
        )


def _is_class(name: str, cells: Sequence[Any]) -> bool:
    """Return whether a column of another name says which images have a class of that name; no slip such as "lable"."""
    if name.startswith(CLASS_COLUMN) and name != CLASS_COLUMN:
        return True
    known = presence(cells)
    return bool(name) and known is not None and (known >= 0).any() and not difflib.get_close_matches(name, COLUMNS)


def _labels(table: dict[str, list[Any]], usable: Sequence[bool], spec: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Return the class names and the labels of all rows; those that are not usable make no class."""
    class_columns = {name.removeprefix(CLASS_COLUMN): name for name in table if name not in COLUMNS}
    if twice := [name for name, column in class_columns.items() if column != name and name in table]:
        raise DataError(f"{spec}: columns 'label:{twice[0]}' and {twice[0]!r} are the same class; keep one.")
    given = [name for name in LABEL_COLUMNS if name in table]
    if len(given) + bool(class_columns) > 1:
        raise DataError(
            f"{spec}: its columns {first_few([*given, *class_columns.values()])} all give labels; keep 'label' for one "
            "class per image, or 'labels', 'tags' or one column of 0 and 1 per class for several."
        )
    if class_columns:
        classes = tuple(sorted(class_columns))
        columns = [_presence(class_columns[name], table[class_columns[name]], spec) for name in classes]
        return classes, np.stack(columns, axis=1)
    name = given[0] if given else "label"
    cells = table.get(name, [None] * len(usable))
    cells = [cell if is_usable else None for cell, is_usable in zip(cells, usable, strict=True)]
    if name == "label" and any(isinstance(cell, str) and SEPARATOR in cell for cell in cells):
        note_once(
            f"{spec}: names in its column 'label' hold {SEPARATOR!r}; for several classes per image call it 'labels'."
        )
    classes, labels = encode_labels(cells, spec) if name == "label" else encode_several(cells, spec)
    refuse_gaps(classes, labels, spec)
    return classes, labels


def _presence(name: str, cells: Sequence[Any], spec: str) -> NDArray[np.int8]:
    found = presence(cells)
    if found is None:
        row, cell = next((row, cell) for row, cell in enumerate(cells, 1) if presence([cell]) is None)
        raise DataError(
            f"{spec}: column {name!r} has {str(cell)[:50]!r} in row {row}; give 1 for a class that is present, 0 for "
            "one that is absent, and leave the cell empty where it is not known."
        )
    return found


def _read_csv(file: Path, spec: str) -> dict[str, list[Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [row for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: not a CSV file in UTF-8: {error}.") from None
    separator = next((letter for letter in ";\t|" if len(header) == 1 and letter in header[0]), None)
    _require_unique(header, spec)
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != len(header)), None)
    table = {name: [row[column] for row in rows[: wrong and wrong - 1]] for column, name in enumerate(header)}
    _require_columns(
        table,
        spec,
        " The first line must name the columns, for instance: path,label."
        if separator is None
        else f" Columns are separated by commas, not by {separator!r}.",
    )
    if wrong is not None:
        raise DataError(f"{spec}: row {wrong} has {len(rows[wrong - 1])} cells, but there are {len(header)} columns.")
    return table


def _read_parquet(file: Path, spec: str) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    with parsing(f"{spec}: not a Parquet file that can be read"):
        table = pq.read_table(file)
        _require_unique(table.column_names, spec)
        table.validate(full=True)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    _require_columns(columns, spec)
    return columns


def _splits(cells: Sequence[Any], spec: str) -> list[str]:
    names = [_text(cell) for cell in cells]
    for row, name in enumerate(names, 1):
        if name not in SPLIT_OF:
            raise DataError(f"{spec}: the split of row {row}, {nearest(name, SPLIT_OF)}")
    return [SPLIT_OF[name] for name in names]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


@dataclass(frozen=True)
class _Place:
    """Where a row's image is, relative to the manifest's folder; or else why it cannot be used."""

    file: str = ""
    fault: str = ""


class _Locator:
    """Finds files below one folder, links followed; each folder is looked up once."""

    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._real_folder = functools.cache(os.path.realpath)

    def locate_all(self, paths: Sequence[str]) -> list[_Place]:
        return [self._locate(path) for path in paths]

    def _locate(self, path: str) -> _Place:
        if not path:
            return _Place(fault="its path is empty")
        if "\0" in path:
            return _Place(fault="its path holds a NUL character")
        folder, name = os.path.split(os.path.join(self._root, path))  # noqa: PTH118
        real_file = os.path.join(self._real_folder(folder), name)  # noqa: PTH118
        try:
            mode = os.lstat(real_file).st_mode
            if stat.S_ISLNK(mode):
                real_file = os.path.realpath(real_file)
                mode = os.stat(real_file).st_mode  # noqa: PTH116
        except OSError as error:
            return _Place(fault=f"cannot be found: {error.strerror}")
        if not is_below(real_file, self._root):
            return _Place(fault="leads out of the folder of the manifest")
        if not stat.S_ISREG(mode):
            return _Place(fault="is not a file")
        return _Place(file=os.path.relpath(real_file, self._root))
