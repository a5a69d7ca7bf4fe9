"""`manifest:FILE.csv|parquet`: a table with one image a row, or one clip; docs/data.md lists its columns.

Columns may have other usual names: image, file or filename for path, class or category for label, text for caption.
Cells of a CSV file that begin with an apostrophe before what a spreadsheet would run as a formula are read without it.
"""

from __future__ import annotations

import csv
import difflib
import math
import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError, first_few, first_line, nearest, parsing
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import SAMPLED, SEPARATOR, SPLIT_OF, Dataset, encode, note_once, presence
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import (
    OUTSIDE,
    FileSource,
    expanded,
    locate_all,
    table_in,
    unlisted,
    with_slashes,
)
from gpt4image.data.records import Faults, Object, Record, number, require_some, to_dataset, weight_of, with_boxes
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

REVIEW, DIGEST, WHY = "review", "digest", "sampled"
DIGEST_LETTERS = 64
SYNONYMS = {
    **dict.fromkeys(("file", "image", "filename", "file_name", "image_path", "filepath", "video", "clip"), "path"),
    **dict.fromkeys(("class", "category", "class_name"), "label"),
    **dict.fromkeys(("text", "description"), "caption"),
}
"""Other usual names of columns."""
_TYPED = ("path", "label", "labels", "tags", "boxes", "split", "key", "caption")
COLUMNS = (*_TYPED, REVIEW, DIGEST, WHY, "confidence")
LABEL_COLUMNS = ("label", "labels", "tags")
BOXES = "boxes"
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
CLASS_COLUMN = "label:"


def load_manifest(argument: str, name: str = "manifest") -> Dataset:
    """Load what a CSV (UTF-8, comma) or Parquet file lists: images, or clips where most files are videos."""
    spec = f"{name}:{argument}"
    place, _, stated = argument.partition(IMAGE_ROOT)
    file = expanded(place)
    if is_folder := file.is_dir():
        file = table_in(file) or file
    root = expanded(stated) if stated else file.parent
    if stated and not root.is_dir():
        raise DataError(f"{spec}: --image-root {stated} is no folder.")
    table = read_table(file, spec)
    given = with_slashes([_text(path) for path in table["path"]], root)
    located = locate_all(root, given)
    clips = 2 * sum(path.lower().endswith(tuple(VIDEO_EXTENSIONS)) for path in given) > len(given)
    if not stated:
        others = _unlisted(spec, file, located, VIDEO_EXTENSIONS if clips else EXTENSIONS, is_folder=is_folder)
        located += [(path, "") for path in others]
        given += others
        own = {"path": others, "key": others, "split": ["train"] * len(others)}
        table = {name: cells + own.get(name, [None] * len(others)) for name, cells in table.items()}
    rows = [row for row, (_, fault) in enumerate(located) if not fault]
    advice = "; give --image-root DIR, a folder that holds all images"
    elsewhere = "; it is a path on another machine: write paths from the folder of the table"
    skipped = [
        Skipped(
            path or f"{file.name}, row {row}",
            fault + advice * fault.startswith(OUTSIDE) + elsewhere * bool(_OF_WINDOWS.match(path)),
        )
        for row, (path, (_, fault)) in enumerate(zip(given, located, strict=True), 1)
        if fault
    ]
    require_some(rows, f"{spec}: none of its {len(given)} rows names an image that can be used.", skipped)
    splits = [_text(cell) for cell in table.get("split", ["train"] * len(given))]
    if wrong := next((row for row, split in enumerate(splits, 1) if split not in SPLIT_OF), 0):
        raise DataError(f"{spec}: the split of row {wrong}, {nearest(splits[wrong - 1], SPLIT_OF)}")
    why = [_text(cell) for cell in table.get(WHY, [""] * len(given))]
    if odd := next((row for row, one in enumerate(why, 1) if one not in SAMPLED), 0):
        raise DataError(f"{spec}: {WHY} of row {odd}, {nearest(why[odd - 1], SAMPLED[1:])}")
    keys = [
        posixpath.normpath(file if stated and file and posixpath.isabs(path) else path)
        for path, (file, _) in zip(given, located, strict=True)
    ]
    keys = [_text(key) for key in table.get("key", keys)]
    if "" in keys:
        raise DataError(f"{spec}: row {keys.index('') + 1} has no key; give every row one, or leave the column out.")
    records = [Record(key=keys[row], split=SPLIT_OF[splits[row]]) for row in rows]
    source = FileSource(root, [located[row][0] for row in rows])
    classes, labels = _labels(table, [not fault for _, fault in located], spec)
    if BOXES in table:
        for row, record in zip(rows, records, strict=True):
            record.objects = _objects(table[BOXES][row])
        names = sorted({str(one.label) for record in records for one in record.objects or () if one.label})
        images = with_boxes(spec, records, source, names, Faults(), file.name, skipped, "parts")
    else:
        images = to_dataset(spec, records, source, classes=classes, labels=labels[rows], skipped=skipped)
    if clips:
        require_decoder(f"{spec}, a table of videos,")
    return replace(images, clips=clips, sampled=np.array([why[row] for row in rows]) if WHY in table else None)


def _unlisted(
    spec: str, file: Path, located: Sequence[tuple[str, str]], extensions: Collection[str], *, is_folder: bool
) -> list[str]:
    """Return the images of a folder that its table does not list, which have no label; of a table given alone none."""
    root, listed = file.parent, {path for path, fault in located if not fault}
    if others := unlisted(root, listed, extensions, below=is_folder) if is_folder or table_in(root) == file else []:
        count = f"{spec}: {len(others):,} images that {file.name} does not list, such as {others[0]!r}, are"
        way = f"left out. They are taken, without a label, where the folder is given: --data {root}"
        note_once(f"{count} taken without a label." if is_folder else f"{count} {way}.")
    return others if is_folder else []


def _objects(cell: Any) -> list[Object] | None:
    """Return the objects of a cell of the column of boxes; None where it is empty."""
    if not (text := _text(cell).strip()):
        return None
    try:
        each = [(str(name), list(map(number, numbers))) for name, *numbers in parse_json(text.encode())]
    except (ValueError, TypeError):
        return [Object("boxes", "", fault="the cell is no JSON list of [class, numbers ...]")]
    objects = list[Object]()
    for place, (name, numbers) in enumerate(each, 1):
        left, top, right, bottom, weight = (numbers + [math.nan] * 5)[:5]
        objects.append(Object(f"box {place}", name, (left, top, right, bottom), weight_of(weight == 0, weight)))
    return objects


def read_table(file: Path, spec: str) -> dict[str, list[Any]]:
    """Return the columns of a manifest as lists of cells, one per row. Raises ConfigError, DataError."""
    if file.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{spec}: a manifest is a .csv or a .parquet file, got {file.suffix or 'no extension'!r}.")
    if not file.is_file():
        raise DataError(f"{spec}: there is no such file.")
    if file.suffix == ".csv":
        return _checked(*_read_csv(file, spec), spec)
    with parsing(f"{spec}: not a Parquet file that can be read"), pq.ParquetFile(file) as content:
        table = content.read()
        table.validate(full=True)
        columns = {name: cells.to_pylist() for name, cells in zip(table.column_names, table.columns, strict=True)}
    return _checked(table.column_names, columns, spec)


def _read_csv(file: Path, spec: str) -> tuple[list[str], dict[str, list[Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows, end = list[list[str]](), DIGEST in header and header.index(DIGEST)
            try:
                rows += ([from_csv_cell(cell) for cell in row] for row in reader if row)
            except (csv.Error, UnicodeDecodeError) as error:
                if REVIEW not in header or "unexpected end of data" not in str(error):
                    raise
                rows.append([])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: not a CSV file in UTF-8: {first_line(error)}.") from None
    # Of a table that review or audit wrote, all but the last row of a copy that was cut are whole.
    if REVIEW in header and rows and (len(rows[-1]) != len(header) or (end and len(rows[-1][end]) != DIGEST_LETTERS)):
        note_once(f"{spec}: its row {len(rows)} is cut off, and is left out.")
        rows.pop()
    for row, cells in enumerate(rows, 1):
        if len(cells) != len(header):
            raise DataError(
                f"{spec}: row {row} has {len(cells)} cells, but the first line has {len(header)}: {header}."
            )
    return header, {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _checked(names: Sequence[str], table: dict[str, list[Any]], spec: str) -> dict[str, list[Any]]:
    every = SYNONYMS | {column: column for column in COLUMNS}
    usual = [every.get(name.lower(), name) for name in names]
    for place, name in enumerate(usual):  # a name that comes twice, or that a class has, stays as it is
        may_be_class = name == "caption" and _is_class(names[place], table[names[place]])
        if name in names or usual.index(name) != place or may_be_class:
            usual[place] = names[place]
    if twice := [name for name in usual if usual.count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")
    table = dict(zip(usual, table.values(), strict=True))
    if "path" not in table and "key" in table:
        table["path"] = table["key"]
    unknown = [name for name in usual if name not in COLUMNS and not _is_class(name, table[name])]
    if unknown or "path" not in table:
        advice = "" if "path" in table else " Column 'path' is missing."
        if unknown:
            close = difflib.get_close_matches(unknown[0], [name for name in _TYPED if name not in table], n=1)
            advice += f" Column {unknown[0]!r} is none of these." + (f" Did you mean {close[0]!r}?" if close else "")
        raise DataError(
            f"{spec}: its first line names the columns {', '.join(map(repr, usual)) or 'none'}, separated by commas; "
            f"allowed are path, label (one class per image), labels or tags (several, separated by {SEPARATOR!r}), "
            "boxes, split, key, caption, review, digest, sampled, and one column per class with 0, 1 or empty cells."
            + advice
        )
    return table


def _is_class(name: str, cells: Sequence[Any]) -> bool:
    if name.startswith(CLASS_COLUMN) and name != CLASS_COLUMN:
        return True
    known = presence(cells)
    is_misspelt = difflib.get_close_matches(name, _TYPED, cutoff=0.8)  # 'lable', while 'cat' and 'monkey' are classes
    return known is not None and bool(name and (known >= 0).any()) and not is_misspelt


def _labels(table: dict[str, list[Any]], usable: Sequence[bool], spec: str) -> tuple[tuple[str, ...], Any]:
    columns = {name.removeprefix(CLASS_COLUMN): name for name in sorted(table) if name not in COLUMNS}
    if twice := [name for name in columns if name in table and CLASS_COLUMN + name in table]:
        raise DataError(f"{spec}: columns 'label:{twice[0]}' and {twice[0]!r} are the same class; keep one.")
    given = [name for name in (*LABEL_COLUMNS, BOXES) if name in table]
    if len(given) + bool(columns) > 1:
        raise DataError(
            f"{spec}: its columns {first_few([*given, *columns.values()])} all give labels; keep 'label' for one "
            "class per image, or 'labels', 'tags' or one column of 0 and 1 per class for several."
        )
    if columns:
        found = list[NDArray[np.int8]]()
        for name in sorted(columns):
            if (present := presence(table[columns[name]])) is None:
                cells = enumerate(table[columns[name]], 1)
                row, cell = next((row, cell) for row, cell in cells if presence([cell]) is None)
                raise DataError(
                    f"{spec}: column {columns[name]!r} has {str(cell)[:50]!r} in row {row}; give 1 for a class that is "
                    "present, 0 for one that is absent, and leave the cell empty where it is not known."
                )
            found.append(present)
        return tuple(sorted(columns)), np.stack(found, axis=1)
    name = given[0] if given else "label"
    if name == BOXES:
        return (), None
    cells = table.get(name, [None] * len(usable))
    cells = [cell if is_usable else None for cell, is_usable in zip(cells, usable, strict=True)]
    if name != "label":
        return encode(cells, spec, several=True)
    if any(isinstance(cell, str) and SEPARATOR in cell for cell in cells):
        note_once(f"{spec}: names in its column 'label' hold {SEPARATOR!r}; for several per image call it 'labels'.")
    numbers = {str(cell).strip() for cell in cells} - {"None", "", "-1"}
    return encode(cells, spec, names=REVIEW in table and numbers != set(map(str, range(len(numbers)))))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
