"""Damage to every kind of file that a stage writes: doctor finds it, and no command makes another number of it.

Each file is cut, emptied, zeroed in part and has a bit turned over; weights and records are also swapped with those of
another run. Some bits of Parquet and SQLite files are read by nobody, and the 17th digit of a number may say nothing:
where only such a one turned over, all that is read has to be as before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import run_here
from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.targets import Targets
from gpt4image.config import TrainConfig
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.reporting import doctor
from gpt4image.training.train import train
from pictogram_boxes import write_boxes
from small_training import StoppedError, stop_after
from trained_runs import CLASSES, SHORT, TINY_RESNET, described, trained, write_pictures

Once = Callable[[str, Callable[[Path], Any]], Path]
pytestmark = pytest.mark.slow
RUN = {**SHORT, **TINY_RESNET, "epochs": 1, "memory_format": "contiguous"}
LONG = {**RUN, "epochs": 4, "select": "best", "checkpoint_seconds": 0.0}
FEW = ("texts.db", "answers.db", "texts.emb", "index", "labels.parquet", "boxes.parquet", "run", "exported")
REST = ("begun", "model.onnx", "cmp", "distilled")
BESIDE = {"model.onnx": ("model.onnx.md",), "texts.db": ("texts.db.lock",), "answers.db": ("answers.db.lock",)}
PASSED_BY = ("begun/metrics.jsonl", "README.md")  # the first is written anew from the checkpoint
OTHER = {"run": "other", "texts.emb": "other.emb"}
BOUND = ("model.safetensors", "head.safetensors", "config.json", "run.json", "metrics.jsonl", "evaluation-test.json")
"""What belongs to its run by checksum; pictures for the report do not."""
QUERY = "a brown animal"


class Told(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def give(command: str) -> Told:
    """Give a command in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main(shlex.split(command))
    return Told(code, out.getvalue(), err.getvalue())


def make(command: str) -> None:
    assert (told := give(command)).code == cli.OK, told.err


def words_of(options: dict[str, Any]) -> str:
    """Return options as the words of a command."""
    words = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    texts = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in words.items()}
    return shlex.join(word for pair in texts.items() for word in pair)


def build(root: Path) -> None:
    """Fill a folder with pictures and what stages write of them."""
    spec = write_pictures(root / "photos", per_class=10)
    table, images = described(spec, root), load_dataset(spec)
    said = [{"key": key, "description": f"Number {n}.", "class": key.split("/")[0], "confidence": 0.8 + 0.1 * (n % 2)}
            for n, key in enumerate(images.keys)]  # fmt: skip
    (root / "answers.jsonl").write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    replay, classes = f"--describer replay:{root}/answers.jsonl", shlex.quote(", ".join(CLASSES))
    make(f"describe --data {spec} --store {root}/answers.db {replay} --ask description,class --classes {classes}")
    for name, seed in (("run", 0), ("other", 1)):
        trained(spec, root / name, embeddings=table, **{**TINY_RESNET, "epochs": 1, "seed": seed})
    make(f"encode --store {root}/answers.db --encoder bag-of-words:32 --out {root}/other.emb")
    make(f"label --data {spec} --embeddings {table} --out {root}/labels.parquet")
    make(f"search {root}/run '{QUERY}' --data {spec} --index {root}/index")
    for form, name in (("timm", "exported"), ("onnx", "model.onnx")):
        make(f"export {root}/run --format {form} --out {root}/{name}")
    write_boxes(root / "scenes", train=8, test=4)
    boxed = load_dataset(f"coco:{root / 'scenes' / 'train.json'}")
    assert isinstance(boxed.regions, Boxes)
    labels = BoxLabels(keys=boxed.keys, digests=boxed.digests, boxes=boxed.regions, classes=boxed.classes)
    labels.save(root / "boxes.parquet")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        stop_after(patch, steps=2)
        train(TrainConfig(**LONG, data=spec, out=root / "begun"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt4image.comparing.compare.run_jobs", run_here)
        arms = "--seeds 2 --jobs 1 --arms baseline,text-labels"
        make(f"compare --data {spec} --embeddings {table} {arms} --out {root}/cmp {words_of(RUN)}")
    make(f"distill {root}/photos {replay} --encoder bag-of-words:32 --out {root}/distilled {words_of(RUN)}")


@pytest.fixture(scope="session")
def everything(once: Once) -> Path:
    return once("written", build)


def files_of(part: Path) -> list[Path]:
    """Return the files of a part that hold data; of a comparison those of one seed, and no pages or locks."""
    found = [part] if part.is_file() else sorted(file for file in part.rglob("*") if file.is_file())
    found += [part.with_name(name) for name in BESIDE.get(part.name, ())]
    passed = (".html", ".lock", ".count")
    return [file for file in found if not file.name.endswith(passed) and "seed-1" not in file.parts]


def damaged(root: Path, file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what may have happened to a file, with its content then; the same for the same file."""
    name, whole = file.relative_to(root).as_posix(), file.read_bytes()
    rng, size = random.Random(f"{name}, damaged"), min(512, max(1, len(whole) // 3))
    start = rng.choice([at for at in range(0, len(whole) - size + 1, size) if any(whole[at : at + size])])
    at = rng.randrange(len(whole))
    yield "cut at half", whole[: len(whole) // 2]
    yield "empty", b""
    yield "zeroed block", whole[:start] + bytes(size) + whole[start + size :]
    yield "flipped bit", whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    part, _, rest = name.partition("/")
    other = root / OTHER.get(part, part) / rest
    if part == "cmp" and "seed-0" in file.parts:
        other = file.parent.with_name("seed-1") / file.name
    is_bound = file.name in BOUND or file.suffix == ".npy"
    if other != file and is_bound and other.is_file() and other.read_bytes() != whole:
        yield "swapped", other.read_bytes()


def content_of(file: Path) -> Any:
    """Return all that is read of a file in whose format some bits mean nothing; None of other files."""
    if file.suffix == ".parquet" and file.name != "predictions-test.parquet":
        if file.name == "boxes.parquet":
            return BoxLabels.load(file)._checksum()
        targets = Targets.load(file)
        return targets._checksum(asdict(targets.facts))
    if file.suffix == ".json":  # the last of many digits may change no number
        return json.loads(file.read_bytes())
    if file.suffix == ".db":
        with contextlib.closing(sqlite3.connect(file)) as store:
            return [store.execute(f"SELECT * FROM {name}").fetchall() for name in ("prompts", "describers", "results")]
    return None


def require_found(written: Path, root: Path, part: str) -> None:
    """Damage every file of a part in every way, and have doctor look at the part."""
    shutil.copytree(written, root)
    missed: list[str] = []
    for file in files_of(root / part):
        whole, before, name = file.read_bytes(), content_of(file), file.relative_to(root).as_posix()
        for kind, content in list(damaged(root, file)):
            file.write_bytes(content)
            told = give(f"doctor {root / part}")
            named = file.name if kind != "swapped" else str(file.parent)
            if told.code == cli.OK and (name in PASSED_BY or (before is not None and content_of(file) == before)):
                continue
            helps = told.code != cli.ITEMS_SKIPPED or "delete" in told.err or "gpt4image" in told.err
            if told.code not in (cli.ITEMS_SKIPPED, cli.USER_MISTAKE) or named not in told.err or not helps:
                missed.append(f"{name}, {kind}: {told.code} {told.err[-300:]}")
        file.write_bytes(whole)
    assert not missed, "\n".join(missed)


@pytest.mark.parametrize("part", FEW + REST)
def test_doctor_finds_any_damage(everything: Path, tmp_path: Path, part: str) -> None:
    require_found(everything, tmp_path / "copy", part)


COMMANDS = {
    "evaluate": ("run", "evaluate AT/run"),
    "label": ("answers.db", "label --data folder:OF/photos --answers AT/answers.db --out AT/new.parquet"),
    "encode again": ("texts.emb", "encode --store AT/texts.db --encoder bag-of-words:64 --out AT/texts.emb"),
    "search again": ("index", f"search AT/run '{QUERY}' --data folder:OF/photos --index AT/index"),
    "resume": ("begun", f"train --data folder:OF/photos --out AT/begun --resume {words_of(LONG)}"),
    "predict": ("model.onnx", "predict AT/model.onnx OF/photos/food --out AT/new.csv"),
}
"""What reads a part: the part and the command; what it writes is called "new", what lies below OF is whole."""
NOT_READ = ("seconds", "per_second", "next", "path", "report", "comparison", "environment", "indexed_now")
"""Facts of an outcome that two runs of a command may have different."""


def result_of(told: Told, root: Path) -> Any:
    """Return what came of a command: what it says, and the numbers in the files that it wrote."""
    if told.code not in (cli.OK, cli.ITEMS_SKIPPED):
        return told.code
    facts = {name: value for name, value in json.loads(told.out).items() if not name.endswith(NOT_READ)}
    written = {file.name: Targets.load(file).probabilities.tolist() for file in root.glob("new.parquet")}
    return facts, written, [hashlib.sha256(file.read_bytes()).hexdigest() for file in root.glob("new.csv")]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_makes_another_number_of_a_damaged_file(everything: Path, tmp_path: Path, command: str) -> None:
    """It names the file, or does as with whole ones."""
    part, words = COMMANDS[command]
    written = everything
    root, used = tmp_path / "work", {part, "run", "texts.db", "texts.db.lock", "texts.emb", *BESIDE.get(part, ())}

    def again(file: str | None = None, content: bytes = b"") -> Told:
        shutil.rmtree(root, ignore_errors=True)
        left = {path.name for path in written.iterdir()} - used
        shutil.copytree(written, root, ignore=lambda at, names: [n for n in names if Path(at) == written and n in left])
        if file is not None:
            (root / file).write_bytes(content)
        return give(f"{words.replace('AT', str(root)).replace('OF', str(written))} --json")

    whole, wrong = again(), list[str]()
    assert whole.code == cli.OK, whole.err
    expected = result_of(whole, root)
    for file in files_of(written / part):
        name = file.relative_to(written).as_posix()
        for kind, content in damaged(written, file):
            if kind == "empty":  # refused as another file
                continue
            told = again(name, content)
            said = told.err + told.out
            is_named = any(text in said for text in (file.name, str(root / name), str((root / name).parent)))
            helps = any(word in said for word in ("gpt4image ", "emove", "estore", "elete", "export"))
            is_told = is_named and (told.code == cli.ITEMS_SKIPPED or f"{root / name} is damaged" in said)
            right = result_of(told, root) == expected or is_told
            if told.code == cli.USER_MISTAKE:
                right = is_named and helps
            if not right or "Traceback" in told.err:
                wrong.append(f"{name}, {kind}: {told.code} {told.out[-300:]} {told.err[-500:]}")
    assert not wrong, "\n".join(wrong)


def test_doctor_finds_what_stages_wrote_whole_and_names_what_is_missing(everything: Path, tmp_path: Path) -> None:
    told = give(f"doctor {everything} --json")
    facts = json.loads(told.out)
    assert (told.code, facts["damaged"]) == (cli.OK, 0)
    states = {one["file"]: one["state"] for one in facts["checked"]}
    written = [str(file) for part in FEW for file in files_of(everything / part)]
    assert {states[file] for file in written} == {"whole"}, "all of it has a checksum"
    shutil.copytree(everything / "run", tmp_path / "run")
    (tmp_path / "run" / runs.HEAD).unlink()
    told = give(f"doctor {tmp_path}/run")
    assert told.code == cli.ITEMS_SKIPPED and f"{tmp_path / 'run' / runs.HEAD} is missing" in told.err


def test_files_of_others_are_refused_or_passed_by(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.json").write_text("{not json")
    (tmp_path / "examples.json").write_text("[1")
    (tmp_path / "README.md").write_text("# Photographs")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for path in (tmp_path, tmp_path / "notes.json", tmp_path / "other.db", tmp_path / "gone"):
        told = give(f"doctor {path}")
        assert told.code == cli.USER_MISTAKE and str(path) in told.err
    (tmp_path / "other.db-shm").write_bytes(b"x")
    shutil.copytree(everything / "run", tmp_path / "run")
    known = doctor._store

    def vanished(path: Path) -> bool | None:
        if path.name == "other.db-shm":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return known(path)

    monkeypatch.setattr(doctor, "_store", vanished)
    told = give(f"doctor {tmp_path}")
    assert told.code == cli.OK and "other.db-shm" not in told.out
