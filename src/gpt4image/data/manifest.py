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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError, first_few, nearest, parsing
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.config.base import IMAGE_ROOT
from gpt4image.data.dataset import SPLIT_OF, Dataset
from gpt4image.data.file_source import OUTSIDE, FileSource, expanded, locate_all
from gpt4image.data.labels import SEPARATOR, encode, note_once, presence
from gpt4image.data.records import Faults, Object, Record, boxes_of, number, require_few, to_dataset, weight_of
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
    if not rows:
        first = f" The first: {skipped[0].name!r}, {skipped[0].reason}." if skipped else ""
        raise DataError(f"{spec}: none of its {len(given)} rows names an image that can be used.{first}")
    objects = {row: _objects(table[BOXES][row]) for row in rows} if BOXES in table else {}
    classes, labels = _labels(table, [not fault for _, fault in located], spec)
    splits = _splits(table["split"], spec) if "split" in table else ["train"] * len(given)
    keys = [_text(key) for key in table["key"]] if "key" in table else _keys(given, located, stated)
    if "" in keys:
        raise DataError(f"{spec}: row {keys.index('') + 1} has no key; give every row one, or leave the column out.")
    videos = sum(given[row].lower().endswith(tuple(VIDEO_EXTENSIONS)) for row in rows)
    if clips := 2 * videos > len(rows):
        require_decoder(f"{spec}, a table of videos,")
    records = [Record(key=keys[row], split=splits[row], objects=objects.get(row)) for row in rows]
    source = FileSource(root, [located[row][0] for row in rows])
    if BOXES in table:
        faults, names = Faults(), {str(one.label) for some in objects.values() for one in some or () if one.label}
        require_few(sorted(names), spec)
        boxes = boxes_of(records, sorted(names), faults, spec)
        skipped += faults.skipped(file.name)
        return to_dataset(spec, records, source, classes=sorted(names), regions=boxes, skipped=skipped, clips=clips)
    return to_dataset(spec, records, source, classes=classes, labels=labels[rows], skipped=skipped, clips=clips)


def _objects(cell: Any) -> list[Object] | None:
    """Return the objects of a cell of the column of boxes; None where it is empty."""
    if not (text := _text(cell).strip()):
        return None
    try:
        each = [(str(name), list(map(number, numbers))) for name, *numbers in parse_json(text.encode())]
    except (ValueError, TypeError):
        return [
            Object(
                "boxes",
                "",
                (math.nan, math.nan, math.nan, math.nan),
                fault="the cell is no JSON list of [class, numbers ...]",
            )
        ]
    objects = list[Object]()
    for place, (name, numbers) in enumerate(each, 1):
        left, top, right, bottom, weight = (numbers + [math.nan] * 5)[:5]
        objects.append(Object(f"box {place}", name, (left, top, right, bottom), weight_of(weight == 0, weight)))
    return objects


def _keys(given: Sequence[str], located: Sequence[tuple[str, str]], stated: str) -> list[str]:
    return [
        posixpath.normpath(file if stated and file and posixpath.isabs(path) else path)
        for path, (file, _) in zip(given, located, strict=True)
    ]


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
    uneven = next((row for row, cells in enumerate(rows, 1) if len(cells) != len(header)), None)
    whole = rows if uneven is None else rows[: uneven - 1]
    table = _checked(header, {name: [row[place] for row in whole] for place, name in enumerate(header)}, spec)
    if uneven is not None:
        cells = len(rows[uneven - 1])
        raise DataError(f"{spec}: row {uneven} has {cells} cells, but there are {len(header)} columns.")
    return table


def _checked(names: Sequence[str], table: dict[str, list[Any]], spec: str) -> dict[str, list[Any]]:
    names = [_usual_name(name, names, table[name]) for name in names]
    table = dict(zip(names, table.values(), strict=True)) if len(table) == len(names) else table
    if "path" not in table and "key" in table:
        table["path"] = table["key"]
    if twice := [name for name in table if list(names).count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")
    unknown = [name for name in names if name not in COLUMNS and not _is_class(name, table[name])]
    if unknown or "path" not in table:
        advice = "" if "path" in table else " Column 'path' is missing."
        if unknown:
            close = difflib.get_close_matches(unknown[0], _TYPED, n=1)
            advice += f" Column {unknown[0]!r} is none of these."
            advice += f" Did you mean {close[0]!r}?" if close else ""
        if not set(table) & set(COLUMNS):
            sign = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
            advice += (
                f" Columns are separated by commas, not by {sign!r}."
                if sign
                else " The first line must name the columns, for instance: path,label."
            )
        raise DataError(
            f"{spec}: its columns are {', '.join(map(repr, names)) or 'none'}; allowed are path, label (one class per "
            f"image), labels or tags (several, separated by {SEPARATOR!r}), boxes, split, key, caption, review, "
            f"digest, and one column per class with 0, 1 or empty cells.{advice}"
        )
    return table


def _usual_name(name: str, names: Sequence[str], cells: Sequence[Any]) -> str:
    every = SYNONYMS | {column: column for column in COLUMNS}
    usual = every.get(name.lower(), name)
    first = next(other for other in names if every.get(other.lower(), other) == usual)
    may_be_class = usual == "caption" and _is_class(name, cells)
    return name if name == usual or usual in names or first != name or may_be_class else usual


def _is_class(name: str, cells: Sequence[Any]) -> bool:
    if name.startswith(CLASS_COLUMN) and name != CLASS_COLUMN:
        return True
    known = presence(cells)
    if known is None or not name or difflib.get_close_matches(name, _TYPED):
        return False
    return bool((known >= 0).any())


def _labels(table: dict[str, list[Any]], usable: Sequence[bool], spec: str) -> tuple[tuple[str, ...], NDArray[Any]]:
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
        classes = tuple(sorted(class_columns))
        columns = [_presence(class_columns[name], table[class_columns[name]], spec) for name in classes]
        return classes, np.stack(columns, axis=1)
    if given == [BOXES]:
        return (), np.zeros((len(usable), 0), np.int8)
    name = given[0] if given else "label"
    cells = table.get(name, [None] * len(usable))
    cells = [cell if is_usable else None for cell, is_usable in zip(cells, usable, strict=True)]
    if name == "label":
        if any(isinstance(cell, str) and SEPARATOR in cell for cell in cells):
            note_once(
                f"{spec}: names in its column 'label' hold {SEPARATOR!r}; for several per image call it 'labels'."
            )
        return encode(cells, spec, names=REVIEW in table and not _are_class_numbers(cells))
    return encode(cells, spec, several=True)


def _are_class_numbers(cells: Sequence[Any]) -> bool:
    found = {str(cell).strip() for cell in cells} - {"None", "", "-1"}
    return found == set(map(str, range(len(found))))


def _presence(name: str, cells: Sequence[Any], spec: str) -> NDArray[np.int8]:
    found = presence(cells)
    if found is None:
        row, cell = next((row, cell) for row, cell in enumerate(cells, 1) if presence([cell]) is None)
        raise DataError(
            f"{spec}: column {name!r} has {str(cell)[:50]!r} in row {row}; give 1 for a class that is present, 0 for "
            "one that is absent, and leave the cell empty where it is not known."
        )
    return found


def _splits(cells: Sequence[Any], spec: str) -> list[str]:
    names = [_text(cell) for cell in cells]
    for row, name in enumerate(names, 1):
        if name not in SPLIT_OF:
            raise DataError(f"{spec}: the split of row {row}, {nearest(name, SPLIT_OF)}")
    return [SPLIT_OF[name] for name in names]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
