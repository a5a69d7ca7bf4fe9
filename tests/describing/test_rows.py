"""Rows of descriptions: what a stored description becomes and comes back from, and what is no row."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4image.base.outcome import Skipped
from gpt4image.describing.rows import Row, describer_settings, parse_line, parse_row


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
