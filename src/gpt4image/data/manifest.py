"""`manifest:FILE.csv|parquet`: a table with one image a row, or one clip; docs/data.md lists its columns.

Columns with other names are named by the SPEC: ``manifest:FILE.csv,path=file_name,label=category``.
Cells of a CSV file that begin with an apostrophe before what a spreadsheet would run as a formula are read without it.
"""

import csv
import math
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gpt4image.base.errors import ConfigError, DataError, first_few, first_line, nearest, parsing
from gpt4image.base.files import parse_json
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.data.dataset import SAMPLED, SPLIT_OF, Dataset
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.file_source import IMAGES, OUTSIDE, FileSource, expanded, files_below, locate_all, table_in
from gpt4image.data.labels import SEPARATOR, encode, note_once, presence
from gpt4image.data.records import Faults, Object, Record, number, require_some, to_dataset, weight_of, with_boxes
from gpt4image.data.spec import Spec
from gpt4image.data.video import VIDEO_EXTENSIONS, require_decoder

REVIEW, DIGEST, WHY = "review", "digest", "sampled"
LABEL_COLUMNS = ("label", "labels")
BOXES = "boxes"
ROLES = ("path", *LABEL_COLUMNS, BOXES, "split", "key")
"""Columns that are read, which the SPEC may name otherwise."""
NOT_READ = ("caption", "confidence", REVIEW, DIGEST, WHY)
CLASS_COLUMN = "label:"


def load_manifest(spec: Spec) -> Dataset:
    """Load what a CSV (UTF-8, comma) or Parquet file lists: images, or clips where the first file is a video."""
    file = spec.path
    if is_folder := file.is_dir():
        file = table_in(file) or file
    root = expanded(spec.options["images"]) if "images" in spec.options else file.parent
    if not root.is_dir():
        raise DataError(f"{spec}: images={root} is no folder.")
    table = _columns(read_table(file, spec.text), spec)
    given = [_text(path).replace("\\", "/") for path in table["path"]]
    clips = spec.name == "clips" or PurePosixPath(given[0] if given else "").suffix.lower() in VIDEO_EXTENSIONS
    if is_folder and (others := _unlisted(file.parent, given, VIDEO_EXTENSIONS if clips else EXTENSIONS)):
        note_once(f"{spec}: {len(others):,} images that {file.name} does not list, such as {others[0]!r}, are taken.")
        own = {"path": others, "key": others}
        table = {name: cells + own.get(name, [None] * len(others)) for name, cells in table.items()}
        given += others
    located = locate_all(root, given)
    rows = [row for row, (_, fault) in enumerate(located) if not fault]
    advice = "; give images=FOLDER in the SPEC, a folder that holds all images"
    skipped = [
        Skipped(path or f"{file.name}, row {row}", fault + advice * fault.startswith(OUTSIDE))
        for row, (path, (_, fault)) in enumerate(zip(given, located, strict=True), 1)
        if fault
    ]
    require_some(rows, f"{spec}: none of its {len(given)} rows names an image that can be used.", skipped)
    splits = _known(table, "split", SPLIT_OF, "train", spec)
    why = _known(table, WHY, SAMPLED, "", spec)
    in_root = "images" in spec.options  # an absolute path is named by its place there
    usual = [
        found if in_root and posixpath.isabs(path) else path for path, (found, _) in zip(given, located, strict=True)
    ]
    keys = [_text(key) for key in table.get("key", map(posixpath.normpath, usual))]
    if "" in keys:
        raise DataError(f"{spec}: row {keys.index('') + 1} has no key; give every row one, or leave the column out.")
    records = [Record(key=keys[row], split=SPLIT_OF[splits[row]]) for row in rows]
    source = FileSource(root, [located[row][0] for row in rows])
    if BOXES in table:
        for row, record in zip(rows, records, strict=True):
            record.objects = _objects(table[BOXES][row])
        names = sorted({str(one.label) for record in records for one in record.objects or () if one.label})
        images = with_boxes(spec.text, records, source, names, Faults(), file.name, skipped, "parts")
    else:
        classes, labels = _labels({name: [cells[row] for row in rows] for name, cells in table.items()}, spec)
        images = to_dataset(spec.text, records, source, classes=classes, labels=labels, skipped=skipped)
    if clips:
        require_decoder(f"{spec}, a table of videos,")
    return replace(images, clips=clips, sampled=np.array([why[row] for row in rows]) if WHY in table else None)


def read_table(file: Path, spec: str) -> dict[str, list[Any]]:
    """Return the columns of a manifest as lists of cells, one per row. Raises ConfigError, DataError."""
    if file.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{spec}: a manifest is a .csv or a .parquet file, got {file.suffix or 'no extension'!r}.")
    if not file.is_file():
        raise DataError(f"{spec}: there is no such file.")
    if file.suffix == ".parquet":
        with parsing(f"{spec}: not a Parquet file that can be read"), pq.ParquetFile(file) as content:
            table = content.read()
            table.validate(full=True)
            return {name: cells.to_pylist() for name, cells in zip(table.column_names, table.columns, strict=True)}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [[from_csv_cell(cell) for cell in row] for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: not a CSV file in UTF-8: {first_line(error)}.") from None
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{spec}: column {twice[0]!r} is there more than once; keep the one that counts.")
    for row, cells in enumerate(rows, 1):
        if len(cells) != len(header):
            raise DataError(
                f"{spec}: row {row} has {len(cells)} cells, but the first line has {len(header)}: {header}."
            )
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _columns(table: dict[str, list[Any]], spec: Spec) -> dict[str, list[Any]]:
    """Return the columns by what they mean. Raises DataError that names the option."""
    found = dict(table)
    for role in ROLES:
        if (own := spec.options.get(role, role)) != role:
            if own not in table:
                raise DataError(
                    f"{spec}: {role}={own}: there is no such column; its columns are {first_few(table, 20)}."
                )
            found[role] = found.pop(own)
    for name in filter(None, spec.options.get("classes", "").split(SEPARATOR)):
        if name not in table:
            raise DataError(f"{spec}: classes={name}: there is no such column; its columns are {first_few(table, 20)}.")
        found[CLASS_COLUMN + name] = found.pop(name)
    if "path" not in found and "key" in found:
        found["path"] = found["key"]
    unknown = [name for name in found if name not in (*ROLES, *NOT_READ) and not name.startswith(CLASS_COLUMN)]
    if unknown or "path" not in found:
        wrong = nearest(unknown[0], (*ROLES, *NOT_READ, f"{CLASS_COLUMN}NAME")) if unknown else "'path' is missing."
        raise DataError(
            f"{spec}: column {wrong} Name columns in the SPEC: path=COLUMN, label=COLUMN, "
            f"classes=COLUMN{SEPARATOR}COLUMN (0, 1 or empty cells); remove others."
        )
    return found


def _unlisted(root: Path, given: Sequence[str], extensions: frozenset[str]) -> list[str]:
    """Return the files of a folder that its table does not list."""
    listed = {posixpath.normpath(path) for path in given}
    return [file for file in files_below(root, root, extensions)[0] if f"{IMAGES}/" not in file and file not in listed]


def _known(
    table: dict[str, list[Any]], name: str, allowed: Sequence[str] | dict[str, str], usual: str, spec: Spec
) -> list[str]:
    """Return the cells of a column that has one of some texts, ``usual`` where it is empty. Raises DataError."""
    cells = [_text(cell) or usual for cell in table.get(name, [None] * len(table["path"]))]
    if odd := next((row for row, cell in enumerate(cells, 1) if cell not in allowed), 0):
        raise DataError(f"{spec}: {name} of row {odd}, {nearest(cells[odd - 1], allowed)}")
    return cells


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


def _labels(table: dict[str, list[Any]], spec: Spec) -> tuple[tuple[str, ...], Any]:
    columns = sorted(name for name in table if name.startswith(CLASS_COLUMN))
    given = [name for name in (*LABEL_COLUMNS, BOXES) if name in table]
    if len(given) + bool(columns) > 1:
        raise DataError(
            f"{spec}: its columns {first_few([*given, *columns])} all give labels; keep 'label' for one class per "
            f"image, or 'labels' or one column {CLASS_COLUMN}NAME per class for several."
        )
    if columns:
        try:
            found = [presence(table[name]) for name in columns]
        except ValueError as error:
            raise DataError(f"{spec}: a column {CLASS_COLUMN}NAME {error}.") from None
        return tuple(name.removeprefix(CLASS_COLUMN) for name in columns), np.stack(found, axis=1)
    if "labels" in table:
        return encode(table["labels"], spec, several=True)
    cells = table.get("label", [None] * len(table["path"]))
    if any(isinstance(cell, str) and SEPARATOR in cell for cell in cells):
        note_once(f"{spec}: names in its column 'label' hold {SEPARATOR!r}; several per image are 'labels'.")
    return encode(cells, spec)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
