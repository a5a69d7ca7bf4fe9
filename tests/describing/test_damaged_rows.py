"""Damaged rows cost themselves alone; fuzz_targets.py has the parsers of files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from fuzz_targets import ROWS
from gpt4image.config import ImportDescriptionsConfig
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.descriptions import import_descriptions


@pytest.mark.parametrize(
    "fault",
    [
        '"cost_usd": 1' + "0" * 400,
        '"cost_usd": 1e999',
        '"cost_usd": NaN',
        '"tokens_in": 18446744073709551616',
        '"tokens_in": ' + "9" * 5000,
        '"prompt": "\\ud800"',
        '"prompt": ' + "[" * 100_000,
        '"note": ' + '{"a":' * 20_000 + "1" + "}" * 20_000,
        '"digest": "' + "é" * 64 + '"',
        '"prompt": "\0"',
    ],
    ids=lambda fault: fault[:16],
)
def test_a_bad_line_costs_itself_alone(fault: str, tmp_path: Path) -> None:
    good, bad = (json.dumps(row)[:-1] for row in ROWS[:2])
    (file := tmp_path / "rows.jsonl").write_text(f"{good}}}\n{bad}, {fault}}}\n", "utf-8")
    outcome = import_descriptions(ImportDescriptionsConfig(file=file, store=tmp_path / "a.db"))
    assert (outcome.summary["added"], [item.name for item in outcome.skipped]) == (1, ["rows.jsonl, line 2"])
    assert len(ReplayDescriber(str(file))._places) == 1


def test_a_row_of_parquet_that_is_not_text_costs_itself_alone(tmp_path: Path) -> None:
    values = pyarrow.array([b"A cat.", b"\xff\xfe", b"A dog."]).view(pyarrow.string())
    digests = [f"{number:064x}" for number in range(3)]
    pyarrow.parquet.write_table(pyarrow.table({"digest": digests, "description": values}), tmp_path / "a.parquet")
    outcome = import_descriptions(ImportDescriptionsConfig(file=tmp_path / "a.parquet", store=tmp_path / "a.db"))
    assert outcome.summary["added"] == 2
    assert [(item.name, item.reason) for item in outcome.skipped] == [("a.parquet, row 2", "a value in it is damaged")]
