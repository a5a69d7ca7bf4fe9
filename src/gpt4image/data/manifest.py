"""`manifest:FILE.csv|parquet`: a table with one image a row.

path          image file, relative to the manifest's folder; may not lead out of it
label         class name or number; empty or -1 for none (optional)
split         train, val or test (optional; without it all are train)
key           stable name (optional; without it the path)
"""

from __future__ import annotations

import csv
import functools
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.base.errors import ConfigError, DataError, nearest, parsing
from gpt4image.base.outcome import SetAside
from gpt4image.data.file_source import FileSource, expanded, is_below
from gpt4image.data.image_set import SPLIT_OF, ImageSet
from gpt4image.data.labels import encode_labels, refuse_gaps

COLUMNS = ("path", "label", "split", "key")


def load_manifest(argument: str) -> ImageSet:
    """Load the images that a CSV (UTF-8, comma) or Parquet file lists.

    Rows whose file is missing or lies outside the manifest's folder are set aside by name.

    Raises:
        ConfigError: no file is given, or one of another kind.
        DataError: the file is missing, damaged or empty; a column is unknown; `path` is missing; a split or a label
            is out of range, or no single class; most class numbers are empty; keys come twice.
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
    cells = table.get("label", [None] * len(given))
    classes, labels = encode_labels(
        [cell if place.file else None for cell, place in zip(cells, located, strict=True)], spec
    )
    refuse_gaps(classes, labels, spec)
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


def _require_columns(names: Sequence[str], spec: str, advice: str = "") -> None:
    """Refuse a table whose columns are not those of a manifest; the advice is for one that has none of them."""
    if twice := [name for name in COLUMNS if list(names).count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "path" not in names:
        lack = "" if "path" in names else " Column 'path' is missing."
        wrong = f" Column {nearest(unknown[0], COLUMNS)}" if unknown else ""
        raise DataError(
            f"{spec}: its columns are {', '.join(map(repr, names)) or 'none'}; allowed are {', '.join(COLUMNS)}."
            f"{lack}{wrong}{'' if set(names) & set(COLUMNS) else advice}"
        )


def _read_csv(file: Path, spec: str) -> dict[str, list[Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [row for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: not a CSV file in UTF-8: {error}.") from None
    separator = next((letter for letter in ";\t|" if len(header) == 1 and letter in header[0]), None)
    _require_columns(
        header,
        spec,
        " The first line must name the columns, for instance: path,label."
        if separator is None
        else f" Columns are separated by commas, not by {separator!r}.",
    )
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise DataError(f"{spec}: row {number} has {len(row)} cells, but there are {len(header)} columns.")
    return {name: [row[column] for row in rows] for column, name in enumerate(header)}


def _read_parquet(file: Path, spec: str) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    with parsing(f"{spec}: not a Parquet file that can be read"):
        table = pq.read_table(file)
        _require_columns(table.column_names, spec)
        table.validate(full=True)
        return {name: table[name].to_pylist() for name in table.column_names}


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
