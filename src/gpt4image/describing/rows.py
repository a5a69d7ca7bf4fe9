"""Rows of answers outside the store: read from and written to JSON lines, CSV or Parquet.

A row has ``description``, ``class``, ``tags`` or ``boxes``, and names its image by ``digest`` or ``key`` (or only by
its place). Exported rows carry the rest of the result too; every other column is ignored. A bad row is named and costs
no other row. A file that is written appears when it is whole.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt4image.artifacts.answers import CLASS_NAME, PROMPTS, Answer, find_prompt, in_thousandths
from gpt4image.artifacts.store import Description, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, StoreError, first_line, parsing
from gpt4image.base.files import atomic_path, flush
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_cell, from_csv_cell
from gpt4image.describing.answer_json import boxes, share, tags, to_answer
from gpt4image.describing.class_lists import ClassNames
from gpt4image.describing.questions import BOXES, CLASS, DESCRIPTION, TAGS

_STATED = ("confidence", "probability")
_CLASS_COLUMNS = ("class", "said", "second", *_STATED)
_RESULT_COLUMNS = ("finish_reason", "tokens_in", "tokens_out", "cost_usd", "latency_s", "created")
COLUMNS: Mapping[str, type] = {
    **dict.fromkeys(("digest", "key", "description", "class", "said", "second"), str),
    **dict.fromkeys(_STATED, float),
    **dict.fromkeys(("tags", "boxes"), list),
    **{"prompt": str, "prompt_version": int, "prompt_text": str, "class_conditioned": bool, "asked": str},
    **{"describer": str, "sample": int, "finish_reason": str, "tokens_in": int, "tokens_out": int},
    **dict.fromkeys(("cost_usd", "latency_s", "created"), float),
}
SYNONYMS = {
    **dict.fromkeys(("caption", "text"), "description"),
    **dict.fromkeys(("path", "image", "file", "filename", "file_name"), "key"),
}
"""Other usual names of columns."""
ROWS_PER_GROUP = 4096
_LONGEST_CELL = 2**31 - 1  # characters; Python's own limit would refuse the file for a long text
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no UTF-8 holds it
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # a pickle of a few bytes may hold lists that are endless when they are printed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer that came from a file; None is what the row does not have."""

    where: str  # file and line, or number of the row
    description: str | None
    ask: tuple[str, ...] = (DESCRIPTION,)  # what the row brings
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])  # class, tags and boxes, checked for their kind
    asked: Mapping[str, Any] | None = None  # what the prompt asked for, and its class list
    digest: str | None = None
    key: str | None = None
    prompt: Prompt | None = None
    describer: Mapping[str, Any] | None = None
    sample: int | None = None
    result: Mapping[str, Any]  # the other columns of an exported result, as Description takes them

    def answer(self, names: ClassNames, box_format: str, picture: tuple[int, int] | None) -> Answer | None:
        """Return the structured part; boxes in pixels need width and height of the ``picture``."""
        if self.ask == (DESCRIPTION,):
            return None
        found = to_answer(self.fields, self.ask, names)
        return in_thousandths(replace(found, picture=picture), box_format)

    def as_json(self, ask: Sequence[str]) -> str | None:
        """Return what was asked for as a model would write it; None where the row lacks some of it."""
        if not set(ask) <= set(self.ask):
            return None
        said = self.fields["class"] or self.fields["said"]
        return json.dumps({"description": self.description, **self.fields, "class": said})


def parse_row(value: Any, where: str) -> Row | Skipped:
    """Return the row that ``value`` (a mapping) stands for, or why it cannot be used."""
    try:
        if not isinstance(value, Mapping):
            raise ValueError(
                f"a row is an object with key or digest, and description or class; got {_SHORT.repr(value):.60}"
            )
        fields = {name: _checked(name, kind, value.get(name)) for name, kind in COLUMNS.items()}
        description, digest = fields["description"], fields["digest"]
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ValueError(f"digest must be a sha256 in 64 hexadecimal digits, got {digest!r:.80}")
        description = description if description and description.strip() else None
        there = {
            DESCRIPTION: description is not None,
            CLASS: any(fields[name] is not None for name in _CLASS_COLUMNS),
            **{part: fields[part] is not None for part in (TAGS, BOXES)},
        }
        asked = None if fields["asked"] is None else _asked(fields["asked"])
        ask = tuple(part for part in there if there[part]) if asked is None else asked["ask"]
        if description is None and (DESCRIPTION in ask or not ask):
            others = "" if ask else ", and so are class, tags and boxes"
            raise ValueError(f"the description is empty or missing{others}")
        return Row(
            where=where,
            description=description,
            ask=ask,
            fields={name: fields[name] for name in (*_CLASS_COLUMNS, TAGS, BOXES)},
            asked=asked,
            digest=digest and digest.lower(),
            key=fields["key"],
            prompt=_prompt(fields),
            describer=None if fields["describer"] is None else describer_settings(fields["describer"]),
            sample=fields["sample"],
            result={name: fields[name] for name in _RESULT_COLUMNS if fields[name] is not None},
        )
    except (ValueError, OverflowError, Gpt4ImageError) as error:
        return Skipped(name=where, reason=str(error))


def _checked(name: str, kind: type, value: Any) -> Any:
    if value is None:
        return None
    if kind is list:
        return _checked_list(name, value)
    if name in _STATED:
        return share(value)
    if type(value) is int and (kind is float or name == "key"):
        value = kind(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {_SHORT.repr(value):.60}")
    if kind in (int, float) and not (0 <= value < 2**63):  # not a number either
        raise ValueError(f"{name} is out of range: {_SHORT.repr(value):.60}")
    if isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise ValueError(f"{name} is not valid Unicode text")
    return value


def _checked_list(name: str, value: Any) -> list[Any]:
    """Return tags or boxes, of which a cell holds the JSON; tags may also be separated by ``|``."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except (ValueError, RecursionError):
            value = None
    usable = tags(value) if name == TAGS else boxes(value)
    if usable is None or (name == BOXES and len(usable) != len(value)):
        what = "texts" if name == TAGS else "objects with label and box_2d (four numbers)"
        raise ValueError(f"{name} must be a list of {what}, got {_SHORT.repr(value):.60}")
    return list(usable)


def _asked(text: str) -> Mapping[str, Any]:
    try:
        asked = json.loads(text)
        prompt = Prompt("", 1, "", class_conditioned=False, ask=asked["ask"], classes=asked["classes"])
        words: list[Any] = [*prompt.ask, *itertools.chain(*prompt.classes)]
        if all(isinstance(word, str) for word in words):
            return {"ask": prompt.ask, "classes": prompt.classes}
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ValueError(f"asked is not what an export writes: {_SHORT.repr(text):.60}")


def _prompt(fields: Mapping[str, Any]) -> Prompt | None:
    columns = {"version": "prompt_version", "text": "prompt_text", "class_conditioned": "class_conditioned"}
    known = {part: fields[column] for part, column in columns.items() if fields[column] is not None}
    if (name := fields["prompt"]) is None:
        return PROMPTS["class-conditioned"] if known.get("class_conditioned") else None
    if CLASS_NAME in known.get("text", ""):
        known["class_conditioned"] = True
    # If everything is known, the name may be like that of another prompt.
    return Prompt(name, **known) if len(known) == len(columns) else replace(find_prompt(name), **known)


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
    answer, prompt = description.answer, description.prompt
    said: dict[str, Any] = {}
    if answer is not None:
        said = {"class": answer.class_name, **{name: getattr(answer, name) for name in _CLASS_COLUMNS[1:]}}
        lists = {name: getattr(answer, name) for name in (TAGS, BOXES)}
        said |= {name: None if value is None else list(value) for name, value in lists.items()}
    return {
        "digest": description.digest,
        "key": key,
        "description": description.text,
        **said,
        "asked": prompt.row[-1] or None,
        "prompt": prompt.name,
        "prompt_version": prompt.version,
        "prompt_text": prompt.text,
        "class_conditioned": prompt.class_conditioned,
        "describer": canonical_json(description.describer),
        "sample": description.sample,
        **{name: getattr(description, name) for name in _RESULT_COLUMNS},
    }


# Reading


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
    read = columns or {name: name for name in COLUMNS}
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = list(reader.fieldnames or ())
            if columns is None:  # one that has a usual name keeps its own where the usual one is there too
                names = [name if SYNONYMS.get(name, name) in names else SYNONYMS[name] for name in names]
            reader.fieldnames = names
            _require_columns(path, names, None if columns is None else columns.values())
            for number, row in enumerate(reader, start=1):
                where = f"{path.name}, row {number}"
                if None in row:
                    yield Skipped(name=where, reason="more cells than columns; quote texts that hold a comma")
                else:
                    yield parse_row({name: _from_cell(name, row.get(given)) for name, given in read.items()}, where)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {first_line(error)}.") from None


def _from_cell(name: str, cell: str | None) -> Any:
    """Return the value of a cell; what is no such number or truth stays text, which ``parse_row`` then refuses."""
    if not cell:
        return None
    kind = COLUMNS[name]
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(cell.strip().lower(), cell)
    try:
        return from_csv_cell(cell) if kind in (str, list) else kind(cell)
    except ValueError:
        return cell


def _read_parquet(path: Path) -> Iterator[Row | Skipped]:
    import pyarrow.parquet

    with parsing(f"{path}: cannot be read as Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _require_columns(path, names, None)
        batches = file.iter_batches(batch_size=ROWS_PER_GROUP, columns=[name for name in names if name in COLUMNS])
        rows = (batch.slice(row, 1) for batch in batches for row in range(batch.num_rows))
        for number, row in enumerate(rows, start=1):
            where = f"{path.name}, row {number}"
            try:
                yield parse_row(row.to_pylist()[0], where)
            except (ValueError, OverflowError):  # text that is not UTF-8, a time that Python cannot hold
                yield Skipped(name=where, reason="a value in it is damaged")


def _require_columns(path: Path, columns: Sequence[str], names: Iterable[str] | None) -> None:
    """Refuse a table without these columns, or with nothing that could be an answer. Raises DataError."""
    if names is None:
        names = () if {CLASS, TAGS, BOXES}.intersection(columns) else (DESCRIPTION,)
    if lacking := [name for name in names if name not in columns]:
        has = f"only {', '.join(columns)}; rename the one that is"
        raise DataError(f"{path}: there is no column {lacking[0]!r}, {has}.")


# Writing


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (see ``to_fields``) in the format that the name of ``path`` says. Raises ConfigError, StoreError."""
    write = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}[_kind_of(path)]
    try:
        with atomic_path(path) as temporary:
            write(temporary, rows)
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
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            present = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(present, ensure_ascii=False, allow_nan=False) + "\n")


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if isinstance(value, list) else value


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    def cell(value: Any) -> Any:
        value = str(value).lower() if isinstance(value, bool) else _flat(value)
        return csv_cell(value) if isinstance(value, str) else value

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)  # CR and LF end its lines, so cells that hold one are quoted
        writer.writeheader()
        for row in rows:
            writer.writerow({name: cell(value) for name, value in row.items()})


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    kinds = {str: text, list: text, int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    waiting = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(waiting, ROWS_PER_GROUP)):
            flat = [{name: _flat(value) for name, value in row.items()} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema=schema))
