"""Rows of descriptions: what a stored description becomes and comes back from, and what is no row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.store import Description, Prompt
from gpt4image.base.errors import ConfigError, StoreError
from gpt4image.base.outcome import Skipped
from gpt4image.describing.rows import Row, describer_settings, parse_line, parse_row, to_fields, write_rows


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "a row is an object"),
        ({"digest": "abc", "description": "x"}, "64 hexadecimal digits, got 'abc'"),
        ({"key": "a", "description": " \n"}, "the description is empty or missing"),
        ({"key": "a", "description": ["x"]}, "description must be of type str"),
        ({"key": True, "description": "x"}, "key must be of type str, got True"),
        ({"key": "a", "description": "x", "sample": -1}, "sample is out of range: -1"),
        ({"key": "a", "description": "x", "cost_usd": float("nan")}, "cost_usd is out of range"),
        ({"key": "a", "description": "\ud800"}, "description is not valid Unicode"),
        ({"key": "a", "class": ["cat"]}, "class must be of type str"),
        ({"key": "a", "class": "cat", "tags": 3}, "tags must be a list of texts"),
        ({"key": "a", "boxes": [{"label": "cat"}]}, "boxes must be a list of objects with label and box_2d"),
        ({"key": "a", "boxes": "[[["}, "boxes must be a list"),
        ({"key": "a", "class": None}, "so are class, tags and boxes"),
        ({"key": "a", "class": "cat", "asked": "no json"}, "asked is not what an export writes"),
        ({"key": "a", "class": "cat", "asked": '{"ask": ["description"], "classes": []}'}, "description is empty"),
    ],
)
def test_what_is_no_row_is_named_with_its_reason(value: Any, reason: str) -> None:
    found = parse_row(value, "row 7")
    assert isinstance(found, Skipped) and found.name == "row 7" and reason in found.reason


def test_lines_may_be_blank_or_broken() -> None:
    assert parse_line(b" \n", "line 1") is None
    row = parse_line(b'\xef\xbb\xbf{"key": 7, "description": "x"}', "line 2")
    assert isinstance(row, Row) and row.key == "7", "numbers are keys, and a byte order mark is no text"
    for line in (b"{", b"\xff", b"[" * 100_000):
        found = parse_line(line, "line 3")
        assert isinstance(found, Skipped) and found.reason.startswith("not a line of JSON")


def test_a_describer_that_is_no_json_object_is_a_name() -> None:
    assert describer_settings('{"kind": "x"}') == {"kind": "x"}
    for text in ("gpt-5", "[1]", "7", "true", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000):
        assert describer_settings(text) == {"name": text}


TEXTS = ("plain", "=1+1", 'two\nlines, "quoted"', "ü \U0001f408")


def fields() -> list[dict[str, Any]]:
    prompt = Prompt("paper", 1, "Describe it.", False)
    return [
        to_fields(
            Description(digest=f"{n:064x}", prompt=prompt, describer={"n": n}, created=0.0, text=text), f"{n}.png"
        )
        for n, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_write_that_fails_leaves_the_old_file_alone(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, fields())
    before = (tmp_path / name).read_bytes()

    def failing() -> Iterator[dict[str, Any]]:
        yield fields()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); no half of it is left"):
        write_rows(tmp_path / name, failing())
    assert (tmp_path / name).read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [name]


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of file '\.txt'"):
        write_rows(tmp_path / "a.txt", fields())
