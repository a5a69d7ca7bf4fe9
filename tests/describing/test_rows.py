"""Rows of descriptions: what a stored description becomes and comes back from, and what is no row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.artifacts.store import Description, Prompt
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.outcome import Skipped
from gpt4image.describing.rows import Row, describer_settings, parse_line, parse_row, read_rows, to_fields

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(TEXT, TEXT, st.integers(0, 9), st.booleans(), st.none() | st.integers(0, 10**9), st.none() | st.floats(0, 1e6))
def test_a_stored_description_comes_back_from_its_row(
    text: str, question: str, sample: int, told: bool, tokens: int | None, cost: float | None
) -> None:
    prompt = Prompt("own", 3, question, told or "{class_name}" in question)
    stored = Description(
        digest="0f" * 32, prompt=prompt, describer={"kind": "x", "seed": 1}, sample=sample, created=1.5, text=text,
        tokens_in=tokens, cost_usd=cost,
    )  # fmt: skip
    row = parse_row(to_fields(stored, "a.png"), "row 1")
    assert isinstance(row, Row)
    assert (row.digest, row.key, row.description, row.prompt) == (stored.digest, "a.png", text, prompt)
    assert (row.describer, row.sample) == ({"kind": "x", "seed": 1}, sample)
    assert row.result.get("tokens_in") == tokens and row.result.get("cost_usd") == cost


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "a row is a text, or an object"),
        ({"digest": "abc", "description": "x"}, "64 hexadecimal digits, got 'abc'"),
        ({"key": "a", "description": " \n"}, "the description is empty or missing"),
        ({"key": "a", "description": ["x"]}, "description must be of type str"),
        ({"key": True, "description": "x"}, "key must be of type str, got True"),
        ({"key": "a", "description": "x", "sample": -1}, "sample is out of range: -1"),
        ({"key": "a", "description": "x", "cost_usd": float("nan")}, "cost_usd is out of range"),
        ({"key": "a", "description": "\ud800"}, "description is not valid Unicode"),
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
    for text in ("gpt-5", "[1]", "7", "true", '{"a": NaN}', '{"a": "\\ud800"}'):
        assert describer_settings(text) == {"name": text}


def test_a_file_that_is_missing_unknown_or_without_descriptions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_rows(tmp_path / "a.jsonl")
    (tmp_path / "a.xls").touch()
    with pytest.raises(ConfigError, match=r"unknown kind of file '\.xls'"):
        read_rows(tmp_path / "a.xls")
    (tmp_path / "a.csv").write_text("key,words\n1,x\n")
    with pytest.raises(DataError, match="there is no column 'description', only key, words"):
        list(read_rows(tmp_path / "a.csv"))
