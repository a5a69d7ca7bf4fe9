"""Files that rows of descriptions are exported to: JSON lines, CSV or Parquet.

A file appears when it is whole: what fails, on a full disk say, leaves what was there before.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, Gpt4ImageError, StoreError, first_line
from gpt4image.base.files import atomic_path, flush
from gpt4image.base.visible import csv_cell
from gpt4image.describing.rows import COLUMNS, ROWS_PER_GROUP


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (see ``to_fields``) in the format that the name of ``path`` says.

    Raises:
        ConfigError: the suffix is unknown.
        StoreError: the file cannot be written; what was there before is still there.
    """
    kind = path.suffix.lower()
    writers = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}
    if kind not in writers:
        raise ConfigError(f"{path}: unknown kind of file {kind!r}; allowed are *.jsonl, *.csv and *.parquet.")
    try:
        writers[kind](path, rows)
        flush(path.parent)
    except Gpt4ImageError:
        raise
    except Exception as error:  # Arrow has errors of its own for a full disk
        reason = getattr(error, "strerror", None) or first_line(error.__cause__ or error)
        raise StoreError(
            f"{path}: cannot be written ({reason}); no half of it is left. Free some space or choose another place, "
            "and run the same command again."
        ) from error


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            present = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(present, ensure_ascii=False, allow_nan=False) + "\n")


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)  # CR and LF end its lines, so cells that hold one are quoted
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _to_cell(value) for name, value in row.items()})


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    value = _flat(value)
    return csv_cell(value) if isinstance(value, str) else value


def _flat(value: Any) -> Any:
    """Return a value as one cell: a list as JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if isinstance(value, list) else value


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    kinds = {str: text, list: text, int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    waiting = iter(rows)
    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(itertools.islice(waiting, ROWS_PER_GROUP)):
            flat = [{name: _flat(value) for name, value in row.items()} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema=schema))
