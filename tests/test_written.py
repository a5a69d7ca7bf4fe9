"""What each format on disk looked like is kept in tests/written/: today's commands read it, and refuse a later one.

CONTRIBUTING.md says when a folder is added there, and how.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import onnx
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, safe_open, save_file

from gpt4image import cli
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.runs import CHECKPOINT, RUN
from gpt4image.base import checksums
from gpt4image.base.checksums import FILES
from gpt4image.base.files import read_json, write_json
from gpt4image.training.loop import load_checkpoint
from written import make

WRITTEN = sorted(Path(make.__file__).parent.glob("format-*"))
DATA = ("--data", "folder:photos")
READING: dict[str, Sequence[str]] = {
    "all": ("doctor", "."),
    "store": ("descriptions", "export", "rows.jsonl", "--store", "model/answers.db"),
    "table": ("encode", "--store", "model/answers.db", "--encoder", "bag-of-words:16", "--out", "model/embeddings"),
    "texts": ("label", *DATA, "--embeddings", "model/embeddings", "--out", "new.parquet"),
    "labels": (*make.TRAIN[:-1], "new"),
    "run": ("evaluate", "model/run"),
    "run's report": ("report", "model/run"),
    "comparison": ("report", "comparison"),
    "plan": make.COMPARE,
    "index": make.SEARCH,
    "stages": make.DISTILL,
    "run's model": ("predict", "model/run", "photos/food"),
    "timm": ("predict", "model/model", "photos/food"),
    "onnx": ("predict", "model.onnx", "photos/food"),
}


@pytest.fixture(params=WRITTEN, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of what was written once, as the current folder."""
    shutil.copytree(request.param, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    yield tmp_path / "written"


@pytest.mark.slow
def test_all_of_it_is_read_by_every_command_and_no_answer_or_run_is_made_anew(
    written: Path, capsys: pytest.CaptureFixture[str], runs_here: None
) -> None:
    # distill trains anew where an option of training is gone or new; what was paid for stays.
    kept = [
        *Path("comparison").rglob("*.safetensors"),
        *Path("aligned").glob("*.safetensors"),
        Path("model/answers.db"),
    ]
    weights = {path: path.stat().st_mtime_ns for path in kept}
    for name, command in READING.items():
        assert cli.main(list(command)) == 0, f"{name}: {capsys.readouterr().err}"
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert len(Path("rows.jsonl").read_text(encoding="utf-8").splitlines()) == 15  # those of train
    boxes = BoxLabels.load(Path("boxes.parquet"))
    assert len(boxes.keys) == 24 and boxes.boxes.corners[0].tolist() == [0.25, 0.25, 0.75, 0.75]
    model, optimizer = make.model()
    state = load_checkpoint(Path("begun") / CHECKPOINT, {"model": model}, {"optimizer": optimizer})
    assert state == {"step": 1}


def newer_record(path: Path) -> None:
    record = read_json(path)
    with pytest.MonkeyPatch.context() as later:
        later.setattr(checksums, "RECORDS", 2)
        write_json(path, record)
    run = path.with_name(RUN)
    if path != run and run.is_file() and path.name in (whole := read_json(run)).get(FILES, {}):
        write_json(run, whole | {FILES: {name: facts for name, facts in whole[FILES].items() if name != path.name}})


def newer_parquet(path: Path) -> None:
    table = pq.read_table(path)
    metadata = {re.sub(rb"(gpt4image-.*)-1$", rb"\1-9", name): text for name, text in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def newer_weights(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata={**metadata, "version": "9"})
    if (run := path.with_name(RUN)).is_file():
        write_json(run, {name: value for name, value in read_json(run).items() if name != FILES})  # no checksum of it


def newer_store(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")


def newer_onnx(path: Path) -> None:
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "gpt4image":
            entry.value = json.dumps({**json.loads(entry.value), "format": 9})
    onnx.save(model, path)
    path.with_name(f"{path.name}.md").unlink()  # it has a checksum of the file


NEWER: dict[str, tuple[Callable[[Path], None], str]] = {
    "model/embeddings/manifest.json": (newer_record, "texts"),
    "model/distill.json": (newer_record, "stages"),
    "model/run/run.json": (newer_record, "run"),
    "model/run/config.json": (newer_record, "run's model"),
    "model/run/environment.json": (newer_record, "run's report"),
    "model/run/evaluation-test.json": (newer_record, "run's report"),
    "comparison/comparison.json": (newer_record, "comparison"),
    "comparison/plan.json": (newer_record, "plan"),
    "aligned/text_space.json": (newer_record, "index"),
    "aligned/search/*/index.json": (newer_record, "index"),
    "model/text-labels.parquet": (newer_parquet, "labels"),
    "boxes.parquet": (newer_parquet, "all"),
    "model/run/model.safetensors": (newer_weights, "run's model"),
    "begun/checkpoint.safetensors": (newer_weights, "all"),
    "model/answers.db": (newer_store, "store"),
    "model.onnx": (newer_onnx, "onnx"),
}


@pytest.mark.parametrize("name", NEWER)
def test_a_later_format_is_refused_by_name_with_what_to_do(
    name: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = Path().glob(name)
    change, reader = NEWER[name]
    change(path)
    before = path.read_bytes()
    assert cli.main(list(READING[reader])) == (1 if reader == "all" else 2)
    told = capsys.readouterr()
    assert re.search(r"(format|layout) '?(9|2)\b", told.err + told.out), told.err
    assert re.search(r"[Uu]pdate|upgrade|newer version|version of gpt4image that wrote it", told.err), told.err
    assert path.name in told.err or str(path.parent) in told.err
    assert path.read_bytes() == before


def test_what_is_kept_is_small_and_names_no_place(written: Path) -> None:
    files = [path for path in written.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert {path.name for path in files if path.suffix in (".html", ".lock")} == set()
