from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt4image.artifacts import targets
from gpt4image.artifacts.targets import FORMAT, Targets
from gpt4image.base.checksums import fingerprint
from gpt4image.base.errors import TableError
from text_label_cases import made


@pytest.mark.parametrize("rows", [100_000, 2])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch):
    written = made()
    monkeypatch.setattr(targets, "ROW_GROUP", rows)
    written.save(tmp_path / "labels.parquet")
    assert pq.ParquetFile(tmp_path / "labels.parquet").num_row_groups == -(-3 // rows)
    lists = [getattr(written, name) for name in ("keys", "digests", "splits", "labels", "out_of_fold")]
    numbers = hashlib.sha256(written.probabilities.tobytes()).hexdigest()
    plain = [written.facts.to_json(), [np.asarray(each).tolist() for each in lists], numbers]
    assert written._checksum() == fingerprint(plain)
    read = Targets.load(tmp_path / "labels.parquet")
    assert (read.keys, read.digests, read.facts) == (written.keys, written.digests, written.facts)
    for name in ("splits", "labels", "probabilities", "out_of_fold"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    columns = pq.read_table(tmp_path / "labels.parquet").to_pydict()
    assert columns["given_label"] == ["cat", "dög", None]
    assert columns["text_label"] == ["cat", "cat", "dög"]
    assert columns["doubt"] == [pytest.approx(0.1), pytest.approx(0.8), None]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: pq.write_table(pa.table({"key": ["a"]}), path),
    ],
)
def test_a_file_that_is_no_text_labels_is_refused(tmp_path, spoil: Callable[[Path], object]):
    path = tmp_path / "labels.parquet"
    made().save(path)
    spoil(path)
    with pytest.raises(TableError, match="not a file of text labels"):
        Targets.load(path)
    with pytest.raises(TableError, match="there are no text labels"):
        Targets.load(tmp_path / "none.parquet")


def test_facts_of_later_versions_are_written_only_where_they_say_something(tmp_path):
    path = tmp_path / "labels.parquet"
    made().save(path)
    stored = json.loads((pq.read_table(path).schema.metadata or {})[FORMAT.encode()])
    assert not {"task", "evidence", "weights", "answers", "answered"} & stored.keys(), "as earlier versions wrote it"
    facts = replace(made().facts, evidence="fused", weights={"answers": 1.0, "texts": 0.2}, answers="/a.db", answered=3)
    replace(made(), facts=facts).save(path)
    assert Targets.load(path).facts == facts


@pytest.mark.parametrize("value", [-1.0, 1e30, np.inf])
def test_numbers_that_are_no_probabilities_are_refused(tmp_path: Path, value: float):
    spoilt = made().probabilities.copy()
    spoilt[1, 1] = value
    replace(made(), probabilities=spoilt).save(tmp_path / "labels.parquet")
    with pytest.raises(TableError, match=r"is no probability, which is from 0 to 1"):
        Targets.load(tmp_path / "labels.parquet")
