"""Rows, saved datasets and caches, damaged in ways of their own; fuzz_targets.py has the parsers of files."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.config import ImportDescriptionsConfig
from gpt4image.data import load_image_set
from gpt4image.data.digests import file_digests
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.descriptions import import_descriptions
from mutations import mutations

ROWS = [
    {
        "digest": f"{number:064x}",
        "description": f"Ein Käuzchen, number {number}.",
        "prompt": "mine",
        "prompt_version": number,
        "prompt_text": "Tell of it.",
        "class_conditioned": False,
        "describer": '{"model": "m", "t": [1, {"a": 0.5}]}',
        "sample": 0,
        "tokens_in": 3,
        "cost_usd": 0.25,
        "created": 1.5,
    }
    for number in range(20)
]


def loaded(spec: str) -> Callable[[Path], None]:
    """Return what loads an image set and reads of it what stages read."""

    def load(path: Path) -> None:
        images = load_image_set(f"{spec}:{path}")
        assert len(images.digests) == len(images)
        json.dumps([images.classes, images.keys]).encode()
        with contextlib.suppress(OSError):  # told of this image alone
            images.read(0)

    return load


def write_all(path: Path) -> None:
    """Write two pictures into a folder."""
    for name in ("1.png", "2.png"):
        Image.fromarray(np.full((8, 8, 3), int(name[0]), np.uint8)).save(path / name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", folder / "hf")
    return folder / "gpt4image"


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
    good = json.dumps(ROWS[0])[:-1]
    bad = json.dumps(ROWS[1])[:-1]
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{good}}}\n{bad}, {fault}}}\n", "utf-8")
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


def test_damaged_saved_datasets_are_named_or_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_all(tmp_path)
    png = (tmp_path / "1.png").read_bytes()
    rows = [{**row, "image": {"bytes": png, "path": None}, "label": 0} for row in ROWS]
    for row in rows:
        row.pop("describer")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    whole = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    for file, content in whole.items():
        for number, damaged in enumerate(mutations(content, 12)):
            # What is mapped into memory may not change: each copy is a folder of its own.
            folder = tmp_path / f"{file.name}-{number}"
            folder.mkdir()
            for other, other_content in whole.items():
                (folder / other.name).write_bytes(damaged if other == file else other_content)
            with contextlib.suppress(Gpt4ImageError):
                loaded("hf")(folder)


def test_a_damaged_digest_in_the_cache_is_not_used(tmp_path: Path, own_cache: Path) -> None:
    write_all(tmp_path)
    files = [str(tmp_path / "1.png")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time_ns", lambda: 2**62)
        digests = file_digests(files)
    with contextlib.closing(sqlite3.connect(own_cache / "digests.sqlite")) as connection, connection:
        assert connection.execute("UPDATE digests SET digest = 5").rowcount == 1
    assert file_digests(files) == digests
