"""Commands read what stages write, name what is damaged, and refuse another format.

Each file is cut, emptied, zeroed in part and has a bit turned over; weights and records are also swapped with those of
another run. Some bits of Parquet and SQLite files are read by nobody, and the 17th digit of a number may say nothing:
where only such a one turned over, all that is read has to be as before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import all_artifacts
from gpt4image import cli
from gpt4image.artifacts.runs import CHECKPOINT
from gpt4image.artifacts.targets import BoxLabels, Targets
from gpt4image.base import checksums
from gpt4image.base.files import read_json, write_json
from gpt4image.config import TrainConfig
from gpt4image.training.loop import load_checkpoint
from gpt4image.training.train import train
from small_training import SMALL, StoppedError, stop_after

DATA = ("--data", "folder:photos")
BEGUN = {**SMALL, "epochs": 2, "checkpoint_seconds": 0.0}
RESUME = ["train", *DATA, "--out", "stopped", "--resume"]
RESUME += [word for name, value in BEGUN.items() for word in (f"--{name}", json.dumps(value).strip('"'))]
READING: dict[str, Sequence[str]] = {
    "all": ("doctor", "."),
    "store": ("descriptions", "export", "rows.jsonl", "--store", "model/answers.db"),
    "answers": ("label", *DATA, "--answers", "model/answers.db", "--out", "new.parquet"),
    "table": ("encode", "--store", "model/answers.db", "--encoder", "bag-of-words:16", "--out", "model/embeddings"),
    "texts": ("label", *DATA, "--embeddings", "model/embeddings", "--out", "new.parquet"),
    "labels": (*all_artifacts.TRAIN[:-1], "new"),
    "run": ("evaluate", "model/run"),
    "run's report": ("report", "model/run"),
    "comparison": ("report", "comparison"),
    "index": all_artifacts.SEARCH,
    "stages": all_artifacts.DISTILL,
    "run's model": ("predict", "model/run", "photos/food"),
    "timm": ("predict", "model/model", "photos/food"),
    "onnx": ("predict", "model.onnx", "photos/food", "--out", "new.csv"),
    "stopped": RESUME,
}


def give(*words: str) -> tuple[int, str, str]:
    """Give a command in this process; return its exit code, and what it said on both outputs."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def written(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything that stages write, as the current folder; a writer had left the lock of its store."""
    shutil.copytree(everything, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    Path("model/answers.db.lock").touch()
    return tmp_path / "written"


@pytest.fixture
def stopped(written: Path) -> Path:
    """With a run that was stopped after a step."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        stop_after(patch, steps=1)
        train(TrainConfig(**BEGUN, data="folder:photos", out=Path("stopped")))
    return written


@pytest.mark.slow
def test_all_of_it_is_read_by_every_command_and_no_answer_or_run_is_made_anew(stopped: Path, runs_here: None) -> None:
    # distill trains anew where an option of training is gone or new; what was paid for stays.
    paths = [*Path("comparison").rglob("*.safetensors"), *Path("aligned").glob("*.safetensors")]
    weights = {path: path.stat().st_mtime_ns for path in paths}
    answers = content_of(Path("model/answers.db"))
    for name, command in READING.items():
        code, _, said = give(*command)
        assert code == 0, f"{name}: {said}"
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert content_of(Path("model/answers.db")) == answers
    assert len(Path("rows.jsonl").read_text(encoding="utf-8").splitlines()) == 15  # those of train
    model, optimizer = all_artifacts.model()
    state = load_checkpoint(Path("begun") / CHECKPOINT, {"model": model}, {"optimizer": optimizer})
    assert state == {"step": 1}


def other_record(path: Path) -> None:
    record = read_json(path)
    with pytest.MonkeyPatch.context() as other:
        other.setattr(checksums, "RECORDS", 9)
        write_json(path, record)


def other_manifest(path: Path) -> None:
    write_json(path, read_json(path) | {"format_version": 9})


def other_parquet(path: Path) -> None:
    table = pq.read_table(path)
    metadata = {name: text.replace(b'"format": 1', b'"format": 9') for name, text in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def other_store(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")


def other_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"9"'))


def other_onnx(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'{"format":1,', b'{"format":9,'))
    path.with_name(f"{path.name}.md").unlink()


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "model/embeddings/manifest.json": (other_manifest, "texts"),
    "model/distill.json": (other_record, "stages"),
    "model/run/run.json": (other_record, "run"),
    "model/run/evaluation-test.json": (other_record, "run's report"),
    "comparison/comparison.json": (other_record, "comparison"),
    "aligned/search/*/index.json": (other_manifest, "index"),
    "model/targets.parquet": (other_parquet, "labels"),
    "boxes.parquet": (other_parquet, "all"),
    "model/answers.db": (other_store, "store"),
    "begun/checkpoint.safetensors": (other_weights, "all"),
    "model.onnx": (other_onnx, "onnx"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_refused_by_name_with_what_to_do(name: str, written: Path) -> None:
    [path] = Path().glob(name)
    change, reader = OTHERS[name]
    change(path)
    before = path.read_bytes()
    code, out, said = give(*READING[reader])
    assert code == (1 if reader == "all" else 2)
    assert f"{path} is of format 9; this gpt4image reads format" in said + out and "with the version" in said + out
    assert path.read_bytes() == before


BOUND = re.compile(r"\.safetensors$|\.npy$|(config|run|evaluation-test)\.json$|metrics\.jsonl$")
"""What belongs to its run or table by checksum; pictures for the report do not."""


def files_of(part: str) -> list[Path]:
    found = [Path(part)] if Path(part).is_file() else sorted(Path(part).rglob("*.*"))
    return [file for file in found if file.is_file() and file.suffix not in (".lock", ".html", ".count", ".py")]


def damaged(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what may have happened to a file, with its content then; the same for the same file."""
    whole, rng = file.read_bytes(), random.Random(f"{file}, damaged")
    size, at = min(512, max(1, len(whole) // 3)), rng.randrange(len(whole))
    start = rng.choice([at for at in range(0, len(whole) - size + 1, size) if any(whole[at : at + size])])
    yield "cut at half", whole[: len(whole) // 2]
    yield "empty", b""
    yield "zeroed block", whole[:start] + bytes(size) + whole[start + size :]
    yield "flipped bit", whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    others = [other for other in sorted(Path().rglob(file.name)) if other.read_bytes() != whole]
    if BOUND.search(file.name) and others:
        yield "swapped", others[0].read_bytes()


def content_of(file: Path) -> Any:
    """Return all that is read of a file in whose format some bits mean nothing; None of other files."""
    if file.name == "boxes.parquet":
        return BoxLabels.load(file)._checksum()
    if file.name == "targets.parquet":
        targets = Targets.load(file)
        return targets._checksum(asdict(targets.facts))
    if file.suffix == ".json":  # the last of many digits may change no number
        return json.loads(file.read_bytes())
    if file.suffix == ".db":
        with contextlib.closing(sqlite3.connect(file)) as store:
            return [store.execute(f"SELECT * FROM {name}").fetchall() for name in ("prompts", "describers", "results")]
    return None


@pytest.mark.parametrize("part", ["aligned", "begun", "boxes.parquet", "comparison", "model", "model.onnx"])
def test_doctor_finds_any_damage(written: Path, part: str) -> None:
    missed: list[str] = []
    for file in files_of(part):
        whole, before = file.read_bytes(), content_of(file)
        for kind, content in random.Random(f"{file}").sample(list(damaged(file)), 2):
            file.write_bytes(content)
            code, _, said = give("doctor", part)
            if code == cli.OK and before is not None and content_of(file) == before:
                continue
            helps = code != cli.ITEMS_SKIPPED or "move it away" in said or "gpt4image" in said
            named = file.name if kind != "swapped" else str(file.parent)
            if code not in (cli.ITEMS_SKIPPED, cli.USER_MISTAKE) or named not in said or not helps:
                missed.append(f"{file}, {kind}: {code} {said[-300:]}")
        file.write_bytes(whole)
    assert not missed, "\n".join(missed)


NOT_READ = ("seconds", "per_second", "next", "path", "report", "comparison", "environment", "indexed_now")
"""Facts of an outcome that two runs of a command may have different."""


def result_of(out: str) -> Any:
    """Return what came of a command: what it says, and the numbers in the files that it wrote."""
    facts = {name: value for name, value in json.loads(out).items() if not name.endswith(NOT_READ)}
    labels = [Targets.load(file).probabilities.tolist() for file in Path().glob("new.parquet")]
    return facts, labels, [file.read_bytes() for file in Path().glob("new.csv")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "part"),
    [("run", "model/run"), ("answers", "model/answers.db"), ("table", "model/embeddings"), ("onnx", "model.onnx")],
)
def test_no_command_makes_another_number_of_a_damaged_file(written: Path, command: str, part: str) -> None:
    """It names the file, or does as with whole ones."""
    whole, wrong = written.parent / "whole", list[str]()
    shutil.copytree(written, whole)
    expected = result_of(give(*READING[command], "--json")[1])
    for file, kind, content in [(path, *one) for path in files_of(part) for one in list(damaged(path))[2:]]:
        shutil.rmtree(written)
        shutil.copytree(whole, written)
        os.chdir(written)
        file.write_bytes(content)
        code, out, err = give(*READING[command], "--json")
        is_named = any(text in err + out for text in (file.name, str(file), str(file.parent)))
        if code == cli.USER_MISTAKE:
            right = is_named
        elif code == cli.ITEMS_SKIPPED:
            right = is_named or result_of(out) == expected
        else:
            right = code == cli.OK and (f"{file} is damaged" in err + out or result_of(out) == expected)
        if not right or "Traceback" in err:
            wrong.append(f"{file}, {kind}: {code} {out[-300:]} {err[-500:]}")
    assert not wrong, "\n".join(wrong)


def test_doctor_finds_what_is_whole_or_missing_and_passes_others_by(written: Path, tmp_path: Path) -> None:
    facts = json.loads(give("doctor", ".", "--json")[1])
    states = {one["file"]: one["state"] for one in facts["checked"]}
    assert facts["damaged"] == 0 and {states[str(file)] for file in files_of("model/embeddings")} == {"whole"}
    (tmp_path / "notes.json").write_text("{not json")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for path in (tmp_path / "notes.json", tmp_path / "other.db", tmp_path / "gone"):
        code, _, said = give("doctor", str(path))
        assert code == cli.USER_MISTAKE and str(path) in said
    code, out, _ = give("doctor", str(tmp_path))
    assert code == cli.OK and "other.db" not in out
    (written / "aligned" / "head.safetensors").unlink()
    code, _, said = give("doctor", "aligned")
    assert code == cli.ITEMS_SKIPPED and "aligned/head.safetensors is missing" in said
