"""Rows and saved datasets, damaged in ways of their own; fuzz_targets.py has the parsers of files."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fuzz import mutated
from fuzz_targets import ROWS
from gpt4image.config import ImportDescriptionsConfig
from gpt4image.data.digests import file_digests
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.descriptions import import_descriptions
from region_cases import survives


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


def test_damaged_saved_datasets_are_named_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "1.png")
    png = (tmp_path / "1.png").read_bytes()
    rows = [{"key": str(number), "image": {"bytes": png, "path": None}, "label": 0} for number in range(20)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        for number in range(12):  # what is mapped into memory may not change: each copy is a folder of its own
            folder = shutil.copytree(tmp_path / "saved", tmp_path / f"{path.name}-{number}")
            (folder / path.name).write_bytes(mutated(path.read_bytes(), random.Random(number)))
            if (images := survives(f"hf:{folder}")) is not None:
                with contextlib.suppress(OSError):  # told of this image alone
                    images.read(0)


def test_a_damaged_digest_in_the_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "1.png").write_bytes(b"content")
    with monkeypatch.context() as later:
        later.setattr("time.time_ns", lambda: 2**62)  # of a file that was written a moment ago nothing is kept
        digests = file_digests([str(tmp_path / "1.png")])
    with contextlib.closing(sqlite3.connect(tmp_path / "gpt4image" / "digests.sqlite")) as connection, connection:
        assert connection.execute("UPDATE digests SET digest = 5").rowcount == 1
    assert file_digests([str(tmp_path / "1.png")]) == digests
