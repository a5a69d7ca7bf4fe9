"""Rows of answers outside the store: read from and written to JSON lines, CSV or Parquet.

A row has ``description``, ``class``, ``tags`` or ``boxes``, and names its image by ``digest`` or ``key``. Exported rows
carry the rest of the result too; every other column is ignored. A bad row is named and costs no other row.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    StringConstraints,
    ValidationError,
    model_validator,
)

from gpt4image.artifacts.answers import (
    BOXES,
    CLASS,
    CLASS_NAME,
    DESCRIPTION,
    PROMPTS,
    TAGS,
    Answer,
    find_prompt,
    in_thousandths,
)
from gpt4image.artifacts.class_lists import ClassNames
from gpt4image.artifacts.store import Description, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, first_line, parsing
from gpt4image.base.files import atomic_path
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_cell, from_csv_cell
from gpt4image.describing.answer_json import boxes, share, tags, to_answer, valid

ROWS_PER_GROUP = 4096
_LONGEST_CELL = 2**31 - 1  # characters; Python's own limit would refuse the file for a long text


def _list_of(parse: Callable[[Any], Any], what: str) -> BeforeValidator:
    """Return what reads a list from a cell: one in Python, as JSON, or as words separated by ``|``."""

    def read(value: Any) -> list[Any]:
        if isinstance(value, str):
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        found = parse(value)
        if found is None or (parse is boxes and len(found) != len(value)):
            raise ValueError(f"must be a list of {what}")
        return list(found)

    return BeforeValidator(read)


def _share(value: Any) -> float | None:
    with contextlib.suppress(ValueError, TypeError):  # of a table, "1e-5", say
        value = value if isinstance(value, bool) else float(value)
    return share(value)


class _Asked(BaseModel):
    ask: tuple[str, ...]
    classes: tuple[tuple[str, str], ...]


_Text = Annotated[str | None, AfterValidator(lambda text: text and valid(text))]
_Count = Annotated[int | None, Field(ge=0, lt=2**63)]
_Amount = Annotated[float | None, Field(ge=0)]
_Share = Annotated[float | None, BeforeValidator(_share)]
_Tags = Annotated[list[str] | None, _list_of(tags, "texts")]
_Boxes = Annotated[list[Any] | None, _list_of(boxes, "objects with label and box_2d (four numbers)")]


class Row(BaseModel):
    """One answer that came from a file; None is what the row does not have."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)

    where: str = ""  # file and line, or number of the row
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$", to_lower=True)] | None = None
    key: _Text = None
    description: Annotated[_Text, AfterValidator(lambda text: text if text and text.strip() else None)] = None
    class_name: _Text = Field(None, alias="class")
    said: _Text = None
    second: _Text = None
    confidence: _Share = None
    probability: _Share = None
    tags: _Tags = None
    boxes: _Boxes = None
    prompt_name: _Text = Field(None, alias="prompt")
    prompt_version: int | None = None
    prompt_text: _Text = None
    class_conditioned: bool | None = None
    asked: Json[_Asked] | None = None  # what the prompt asked for, and its class list
    describer: _Text = None
    sample: _Count = None
    finish_reason: _Text = None
    tokens_in: _Count = None
    tokens_out: _Count = None
    cost_usd: _Amount = None
    latency_s: _Amount = None
    created: _Amount = None

    @model_validator(mode="after")
    def _is_an_answer(self) -> Row:
        if self.description is None and (DESCRIPTION in self.ask or not self.ask):
            raise ValueError("the description is empty or missing, and what else an answer may have")
        assert self.prompt or not self.prompt_name  # noqa: S101  (refuses a slip of a name)
        return self

    @cached_property
    def ask(self) -> tuple[str, ...]:
        """What the row brings."""
        columns = {DESCRIPTION: (DESCRIPTION,), CLASS: _CLASS, TAGS: (TAGS,), BOXES: (BOXES,)}
        there = {part: any(getattr(self, name) is not None for name in columns[part]) for part in columns}
        return self.asked.ask if self.asked else tuple(part for part in there if there[part])

    @property
    def fields(self) -> dict[str, Any]:
        """Class, tags and boxes, by the names of their columns."""
        return self.model_dump(include={*_CLASS, TAGS, BOXES}, by_alias=True)

    @cached_property
    def prompt(self) -> Prompt | None:
        """The prompt that was answered, as far as the row knows it."""
        told = {"class_conditioned": True if CLASS_NAME in (self.prompt_text or "") else self.class_conditioned}
        known: dict[str, Any] = {"version": self.prompt_version, "text": self.prompt_text, **told}
        known = {part: value for part, value in known.items() if value is not None}
        if self.prompt_name is None:
            return PROMPTS["class-conditioned"] if self.class_conditioned else None
        # If everything is known, the name may be like that of another prompt.
        whole = len(known) == 3
        return Prompt(self.prompt_name, **known) if whole else replace(find_prompt(self.prompt_name), **known)

    def answer(self, names: ClassNames, box_format: str, picture: tuple[int, int] | None) -> Answer | None:
        """Return the structured part; boxes in pixels need width and height of the ``picture``."""
        if self.ask == (DESCRIPTION,):
            return None
        return in_thousandths(replace(to_answer(self.fields, self.ask, names), picture=picture), box_format)

    def as_json(self, ask: Sequence[str]) -> str | None:
        """Return what was asked for as a model would write it; None where the row lacks some of it."""
        if not set(ask) <= set(self.ask):
            return None
        return json.dumps({"description": self.description, **self.fields, "class": self.class_name or self.said})


_CLASS = ("class_name", "said", "second", "confidence", "probability")
RESULT = ("sample", "finish_reason", "tokens_in", "tokens_out", "cost_usd", "latency_s", "created")
"""Columns that are fields of a Description as they are."""
COLUMNS = {field.alias or name: Row.__annotations__[name] for name, field in [*Row.model_fields.items()][1:]}
"""The type of each column, as it is written above."""


def parse_row(value: Any, where: str) -> Row | Skipped:
    """Return the row that ``value`` (a mapping) stands for, or why it cannot be used."""
    try:
        if not isinstance(value, Mapping):
            raise ValueError(f"a row is an object with key or digest, and description or class, not {_short(value)}")
        cells = {name: value[name] for name in COLUMNS if value.get(name) is not None}
        return Row.model_validate({**cells, "where": where})
    except ValidationError as error:
        first = error.errors()[0]
        given = f", got {_short(first['input'])}" if first["loc"] else ""
        reason = ": ".join([*map(str, first["loc"][:1]), first["msg"].removeprefix("Value error, ")]) + given
    except (ValueError, RecursionError, Gpt4ImageError) as error:
        reason = str(error)
    return Skipped(name=where, reason=reason)


def _short(value: Any) -> str:
    return reprlib.repr(value)[:60]


def describer_settings(text: str) -> Mapping[str, Any]:
    """Return the settings that exported rows carry as JSON, or those of a plain name."""
    try:
        settings = json.loads(text)
        canonical_json(settings).encode()  # what no store can hold is a name: NaN, deep nesting, half characters
    except (ValueError, RecursionError, TypeError):  # TypeError: JSON, but no object
        settings = None
    return settings if isinstance(settings, dict) else {"name": text}


def to_fields(description: Description, key: str | None) -> dict[str, Any]:
    """Return a stored description as a row; ``parse_row`` reads it back without loss."""
    answer, prompt = description.answer or Answer(), description.prompt
    return {
        **{"digest": description.digest, "key": key, "description": description.text, "class": answer.class_name},
        **{name: getattr(answer, name) for name in _CLASS[1:]},
        **{name: None if value is None else [*value] for name in (TAGS, BOXES) for value in [getattr(answer, name)]},
        **{"prompt": prompt.name, "prompt_version": prompt.version, "prompt_text": prompt.text},
        **{"class_conditioned": prompt.class_conditioned, "asked": prompt.asked},
        "describer": canonical_json(description.describer),
        **{name: getattr(description, name) for name in RESULT},
    }


def read_rows(path: Path, *, lines: bool = False) -> Iterator[Row | Skipped]:
    """Yield the rows of a file, in its order, with the bad ones as Skipped; with ``lines``, it is one of JSON lines.

    Raises ConfigError, or DataError where it cannot be read as what its name says.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; give *.jsonl, *.csv or *.parquet.")
    readers = {".jsonl": _read_lines, ".csv": read_csv, ".parquet": _read_parquet}
    return readers[".jsonl" if lines else _kind_of(path)](path)


def _kind_of(path: Path) -> str:
    if (kind := path.suffix.lower()) not in (".jsonl", ".csv", ".parquet"):
        raise ConfigError(f"{path}: unknown kind of file {kind!r}; give *.jsonl, *.csv or *.parquet.")
    return kind


def parse_line(line: bytes, where: str) -> Row | Skipped | None:
    """Return the row of one JSON line, why it cannot be used, or None for a blank line."""
    if not line.strip():
        return None
    try:
        return parse_row(json.loads(line.decode("utf-8-sig")), where)
    except (ValueError, RecursionError) as error:
        return Skipped(name=where, reason=f"not a line of JSON ({first_line(error)})")


def _read_lines(path: Path) -> Iterator[Row | Skipped]:
    with path.open("rb") as file:
        rows = (parse_line(line, f"{path.name}, line {number}") for number, line in enumerate(file, start=1))
        yield from (row for row in rows if row is not None)


def read_csv(path: Path, columns: Mapping[str, str] | None = None) -> Iterator[Row | Skipped]:
    """Yield the rows of a CSV file: UTF-8, commas, the names of the columns in its first line; an empty cell is none.

    ``columns`` are those to read, with the name of each in the file, which must have them all; by default those of an
    exported row that are there. Raises DataError: it is no such file, or lacks a column.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with parsing(f"{path}: not a CSV file in UTF-8"), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _require_columns(path, reader.fieldnames or (), columns)
        names = columns or {name: name for name in COLUMNS}
        for number, row in enumerate(reader, start=1):
            cells = {name: from_csv_cell(cell) for name, column in names.items() if (cell := row.get(column))}
            too_many = Skipped(f"{path.name}, row {number}", "more cells than columns; quote texts that hold a comma")
            yield too_many if None in row else parse_row(cells, too_many.name)


def _read_parquet(path: Path) -> Iterator[Row | Skipped]:
    import pyarrow.parquet

    with parsing(f"{path}: cannot be read as Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _require_columns(path, names, None)
        batches = file.iter_batches(batch_size=ROWS_PER_GROUP, columns=[name for name in names if name in COLUMNS])
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from (parse_row(row, f"{path.name}, row {number}") for number, row in enumerate(rows, start=1))


def _require_columns(path: Path, header: Sequence[str], columns: Mapping[str, str] | None) -> None:
    """Refuse a table without the ``columns``, or with nothing that could be an answer. Raises DataError."""
    default = () if {CLASS, TAGS, BOXES}.intersection(header) else (DESCRIPTION,)
    if lacking := [name for name in (columns.values() if columns else default) if name not in header]:
        has = f"only {', '.join(header)}; rename the one that is"
        raise DataError(f"{path}: there is no column {lacking[0]!r}, {has}.")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of ``to_fields`` as the name of ``path`` says; the file appears when it is whole. ConfigError."""
    kind, waiting = _kind_of(path), iter(rows)
    with atomic_path(path) as temporary:
        if kind == ".parquet":
            _write_parquet(temporary, waiting)
            return
        with temporary.open("w", encoding="utf-8", newline="" if kind == ".csv" else "\n") as file:
            table = csv.DictWriter(file, COLUMNS)  # CR and LF end its lines, so cells that hold one are quoted
            if kind == ".csv":
                table.writeheader()
            for row in waiting:
                if kind == ".csv":
                    cells = {name: _flat(value) for name, value in row.items()}
                    table.writerow({n: csv_cell(cell) if isinstance(cell, str) else cell for n, cell in cells.items()})
                else:
                    file.write(_json({name: value for name, value in row.items() if value is not None}) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _flat(value: Any) -> Any:
    return _json(value) if isinstance(value, list) else value


def _write_parquet(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"_Count": "int64", "int": "int64", "_Amount": "double", "_Share": "double", "bool": "bool"}
    schema = pyarrow.schema(
        [(n, pyarrow.type_for_alias(kinds.get(kind.split()[0], "string"))) for n, kind in COLUMNS.items()]
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
            flat = [{name: _flat(value) for name, value in row.items()} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema=schema))
