"""What stages write is whole by ``doctor``, a damaged byte is named, and another format is refused by every command."""

import contextlib
import io
import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import all_artifacts
from gpt4image import cli
from gpt4image.base.files import read_json, write_json

DATA = ("--data", "folder:photos")
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
    "onnx": ("predict", "exported", "photos/food", "--out", "new.csv"),
}


def give(*words: str) -> tuple[int, str]:
    """Give a command in this process; return its exit code, and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = cli.main(words)
    return code, out.getvalue()


@pytest.fixture
def written(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything that stages write, as the current folder."""
    shutil.copytree(everything, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    return tmp_path / "written"


@pytest.mark.slow
def test_all_of_it_is_read_by_every_command_and_no_answer_or_run_is_made_anew(written: Path, runs_here: None) -> None:
    weights = {path: path.stat().st_mtime_ns for path in Path().rglob("*.safetensors")}
    for name, command in READING.items():
        code, said = give(*command)
        assert code == 0, f"{name}: {said}"
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert give("doctor", ".")[0] == 0, "what was written since is whole too"


def other_entry(name: str) -> Callable[[Path], None]:
    return lambda path: write_json(path, read_json(path) | {name: 9})


def other_parquet(path: Path) -> None:
    table = pq.read_table(path)
    metadata = {name: re.sub(rb'"format": \d', b'"format": 9', text) for name, text in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def other_store(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")


def other_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(rb"\"format\": 2", rb"\"format\": 9"))


def other_onnx(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'{"format":1,', b'{"format":9,'))
    path.with_name("manifest.json").unlink()


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "model/embeddings/manifest.json": (other_entry("format"), "texts"),
    "aligned/search/*/index.json": (other_entry("format"), "index"),
    "model/targets.parquet": (other_parquet, "labels"),
    "model/answers.db": (other_store, "store"),
    "model/run/model.safetensors": (other_weights, "run's model"),
    "exported/model.onnx": (other_onnx, "onnx"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_refused_by_name_with_what_to_do(name: str, written: Path) -> None:
    [path] = Path().glob(name)
    change, reader = OTHERS[name]
    change(path)
    before = path.read_bytes()
    code, said = give(*READING[reader])
    assert code == 2 and f"{path} is of format 9; this gpt4image reads format" in said and "with the version" in said
    assert path.read_bytes() == before


def listed() -> list[Path]:
    """Return the files that manifests list, a Parquet file and a store, which have structures of their own."""
    manifests = [*Path().rglob("manifest.json")]
    files = [manifest.parent / name for manifest in manifests for name in json.loads(manifest.read_text())["files"]]
    return [*manifests, *files, Path("model/targets.parquet"), Path("boxes.parquet"), Path("model/answers.db")]


def test_doctor_finds_a_damaged_byte_a_file_that_is_cut_and_one_that_is_missing(written: Path) -> None:
    rng, missed, files = random.Random(0), list[str](), listed()
    assert len(files) > 40
    for file in files:
        whole = file.read_bytes()
        at, size = rng.randrange(len(whole)), len(whole) // 3
        kinds = {"cut": whole[: len(whole) // 2], "zeroed": whole[:size] + bytes(size) + whole[2 * size :]}
        if file not in files[-3:] and "manifest" not in file.name:
            kinds |= {"a bit": whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :], "gone": None}
        kind = rng.choice(list(kinds))
        file.unlink() if kinds[kind] is None else file.write_bytes(kinds[kind])
        code, said = give("doctor", str(file.parent))
        file.write_bytes(whole)
        if code != cli.ITEMS_SKIPPED or file.name not in said:
            missed.append(f"{file}, {kind}: {code} {said[-300:]}")
    assert not missed, "\n".join(missed)
    code, said = give("doctor", ".")
    assert code == 0 and "wrote:" not in said


@pytest.mark.parametrize("name", ["model/model/model.safetensors", "model/model/config.json", "exported/model.onnx"])
def test_an_exported_model_with_a_damaged_byte_is_not_used(name: str, written: Path) -> None:
    content = bytearray(Path(name).read_bytes())
    content[len(content) // 2] ^= 1
    Path(name).write_bytes(content)
    code, said = give(*READING["onnx" if name.endswith("onnx") else "timm"])
    assert code == 2 and f"{name} is damaged" in said and "Traceback" not in said


def test_doctor_passes_by_what_no_stage_wrote(written: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{not json")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for path in (tmp_path / "notes.json", tmp_path / "other.db", tmp_path / "gone"):
        code, said = give("doctor", str(path))
        assert code == cli.USER_MISTAKE and str(path) in said
    code, said = give("doctor", str(tmp_path))
    assert code == cli.OK and "other.db" not in said
