"""`manifest:FILE.csv|parquet`: a table with one image a row, or one clip.

path          image or video file, relative to the manifest's folder; may not lead out of it. After
              " --image-root DIR" in the SPEC, that folder takes its place
label         class name or number; empty or -1 for none (optional)
labels, tags  several classes per image instead: names with bars between them, in Parquet also lists (optional)
boxes         or boxes of objects: a JSON list of [class, left, top, right, bottom], parts of the picture from 0 to 1,
              perhaps with a weight; empty where nobody looked (optional)
label:NAME    or one column per class: 1, 0 or empty for not known; without "label:" where all cells are of these
split         train, val or test (optional; without it all are train)
key           stable name (optional; without it the path); without a path column also the path
review        what `review` notes for itself (optional; not read here, but labels are names then: "10" is no number)
digest        sha256 of the image, by which `review` finds its label again (optional; not read here)
confidence    of the label, as `export-labels` writes it (optional; not read)
caption       a description (optional; no label: `gpt4image descriptions import` reads it from the same file)

Columns may have other usual names: image, file or filename for path, class or category for label, text for caption.
Cells of a CSV file that begin with an apostrophe before what a spreadsheet would run as a formula are read without it.
"""

from __future__ import annotations

import csv
import difflib
import math
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gpt4image.base.errors import ConfigError, DataError, first_few, nearest, parsing
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.file_source import OUTSIDE, FileSource, expanded, locate_all
from gpt4image.data.labels import SEPARATOR, encode, note_once, presence
from gpt4image.data.records import Faults, Object, Record, number, require_some, to_dataset, weight_of, with_boxes
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

REVIEW, DIGEST = "review", "digest"
SYNONYMS = {
    **dict.fromkeys(("file", "image", "filename", "file_name", "image_path", "filepath", "video", "clip"), "path"),
    **dict.fromkeys(("class", "category", "class_name"), "label"),
    **dict.fromkeys(("text", "description"), "caption"),
}
"""Other usual names of columns."""
_TYPED = ("path", "label", "labels", "tags", "boxes", "split", "key", "caption")
COLUMNS = (*_TYPED, REVIEW, DIGEST, "confidence")
LABEL_COLUMNS = ("label", "labels", "tags")
BOXES = "boxes"
CLASS_COLUMN = "label:"


def load_manifest(argument: str, name: str = "manifest") -> Dataset:
    """Load the images that a CSV (UTF-8, comma) or Parquet file lists; ``name`` is that of the SPEC.

    Rows whose file is missing or lies outside the manifest's folder are skipped by name. Where most files are videos,
    the images are clips, so that a table that ``review`` wrote of clips needs no other name.
    """
    spec = f"{name}:{argument}"
    place, _, stated = argument.partition(IMAGE_ROOT)
    file = expanded(place)
    root = expanded(stated) if stated else file.parent
    if stated and not root.is_dir():
        raise DataError(f"{spec}: --image-root {stated} is no folder.")
    table = read_table(file, spec)
    given = [_text(path) for path in table["path"]]
    located = locate_all(root, given)
    rows = [row for row, (_, fault) in enumerate(located) if not fault]
    advice = "; give --image-root DIR, a folder that holds all images"
    skipped = [
        Skipped(name=path or f"{file.name}, row {row}", reason=fault + advice * fault.startswith(OUTSIDE))
        for row, (path, (_, fault)) in enumerate(zip(given, located, strict=True), 1)
        if fault
    ]
    require_some(rows, f"{spec}: none of its {len(given)} rows names an image that can be used.", skipped)
    objects = {row: _objects(table[BOXES][row]) for row in rows} if BOXES in table else {}
    classes, labels = _labels(table, [not fault for _, fault in located], spec)
    splits = [_split(cell, row, spec) for row, cell in enumerate(table.get("split", ["train"] * len(given)), 1)]
    keys = [
        posixpath.normpath(file if stated and file and posixpath.isabs(path) else path)
        for path, (file, _) in zip(given, located, strict=True)
    ]
    keys = [_text(key) for key in table.get("key", keys)]
    if "" in keys:
        raise DataError(f"{spec}: row {keys.index('') + 1} has no key; give every row one, or leave the column out.")
    records = [Record(key=keys[row], split=splits[row], objects=objects.get(row)) for row in rows]
    source = FileSource(root, [located[row][0] for row in rows])
    if BOXES in table:
        names = sorted({str(one.label) for some in objects.values() for one in some or () if one.label})
        images = with_boxes(spec, records, source, names, Faults(), file.name, skipped, "parts")
    else:
        images = to_dataset(spec, records, source, classes=classes, labels=labels[rows], skipped=skipped)
    if clips := 2 * sum(given[row].lower().endswith(tuple(VIDEO_EXTENSIONS)) for row in rows) > len(rows):
        require_decoder(f"{spec}, a table of videos,")
    return replace(images, clips=clips)


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
        return _read_csv(file, spec)
    with parsing(f"{spec}: not a Parquet file that can be read"), pq.ParquetFile(file) as content:
        table = content.read()
        table.validate(full=True)
        columns = {name: cells.to_pylist() for name, cells in zip(table.column_names, table.columns, strict=True)}
    return _checked(table.column_names, columns, spec)


def _read_csv(file: Path, spec: str) -> dict[str, list[Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [[from_csv_cell(cell) for cell in row] for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: not a CSV file in UTF-8: {error}.") from None
    uneven = next((row for row, cells in enumerate(rows, 1) if len(cells) != len(header)), len(rows) + 1)
    columns = {name: [row[place] for row in rows[: uneven - 1]] for place, name in enumerate(header)}
    table = _checked(header, columns, spec)
    if uneven <= len(rows):
        cells = len(rows[uneven - 1])
        raise DataError(f"{spec}: row {uneven} has {cells} cells, but there are {len(header)} columns.")
    return table


def _checked(names: Sequence[str], table: dict[str, list[Any]], spec: str) -> dict[str, list[Any]]:
    every = SYNONYMS | {column: column for column in COLUMNS}
    usual = [every.get(name.lower(), name) for name in names]
    for place, name in enumerate(usual):  # a name that comes twice, or that a class has, stays as it is
        may_be_class = name == "caption" and _is_class(names[place], table[names[place]])
        if name in names or usual.index(name) != place or may_be_class:
            usual[place] = names[place]
    table = dict(zip(usual, table.values(), strict=True)) if len(table) == len(names) else table
    if "path" not in table and "key" in table:
        table["path"] = table["key"]
    if twice := [name for name in table if usual.count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")
    unknown = [name for name in usual if name not in COLUMNS and not _is_class(name, table[name])]
    if unknown or "path" not in table:
        advice = "" if "path" in table else " Column 'path' is missing."
        if unknown:
            close = difflib.get_close_matches(unknown[0], _TYPED, n=1)
            advice += f" Column {unknown[0]!r} is none of these." + (f" Did you mean {close[0]!r}?" if close else "")
        if not set(table) & set(COLUMNS):
            sign = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
            first = "The first line must name the columns, for instance: path,label."
            advice += f" Columns are separated by commas, not by {sign!r}." if sign else f" {first}"
        raise DataError(
            f"{spec}: its columns are {', '.join(map(repr, usual)) or 'none'}; allowed are path, label (one class per "
            f"image), labels or tags (several, separated by {SEPARATOR!r}), boxes, split, key, caption, review, "
            f"digest, and one column per class with 0, 1 or empty cells.{advice}"
        )
    return table


def _is_class(name: str, cells: Sequence[Any]) -> bool:
    if name.startswith(CLASS_COLUMN) and name != CLASS_COLUMN:
        return True
    known = presence(cells)
    if known is None or not name or difflib.get_close_matches(name, _TYPED):
        return False
    return bool((known >= 0).any())


def _labels(table: dict[str, list[Any]], usable: Sequence[bool], spec: str) -> tuple[tuple[str, ...], Any]:
    class_columns = {name.removeprefix(CLASS_COLUMN): name for name in table if name not in COLUMNS}
    if twice := [name for name, column in class_columns.items() if column != name and name in table]:
        raise DataError(f"{spec}: columns 'label:{twice[0]}' and {twice[0]!r} are the same class; keep one.")
    given = [name for name in (*LABEL_COLUMNS, BOXES) if name in table]
    if len(given) + bool(class_columns) > 1:
        raise DataError(
            f"{spec}: its columns {first_few([*given, *class_columns.values()])} all give labels; keep 'label' for one "
            "class per image, or 'labels', 'tags' or one column of 0 and 1 per class for several."
        )
    if class_columns:
        classes, columns = tuple(sorted(class_columns)), list[Any]()
        for column in map(class_columns.__getitem__, classes):
            columns.append(presence(table[column]))
            if columns[-1] is None:
                row, cell = next((row, cell) for row, cell in enumerate(table[column], 1) if presence([cell]) is None)
                raise DataError(
                    f"{spec}: column {column!r} has {str(cell)[:50]!r} in row {row}; give 1 for a class that is "
                    "present, 0 for one that is absent, and leave the cell empty where it is not known."
                )
        return classes, np.stack(columns, axis=1)
    if given == [BOXES]:
        return (), None
    name = given[0] if given else "label"
    cells = table.get(name, [None] * len(usable))
    cells = [cell if is_usable else None for cell, is_usable in zip(cells, usable, strict=True)]
    if name == "label":
        if any(isinstance(cell, str) and SEPARATOR in cell for cell in cells):
            note_once(
                f"{spec}: names in its column 'label' hold {SEPARATOR!r}; for several per image call it 'labels'."
            )
        found = {str(cell).strip() for cell in cells} - {"None", "", "-1"}
        return encode(cells, spec, names=REVIEW in table and found != set(map(str, range(len(found)))))
    return encode(cells, spec, several=True)


def _split(cell: Any, row: int, spec: str) -> str:
    if _text(cell) not in SPLIT_OF:
        raise DataError(f"{spec}: the split of row {row}, {nearest(_text(cell), SPLIT_OF)}")
    return SPLIT_OF[_text(cell)]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
