"""Damage to every file that a stage writes: doctor finds it, and no command makes another number of it.

Each file is cut, emptied, zeroed in part and has single bits turned over; weights and records are also swapped with
those of another run. Some bits of Parquet and SQLite files are read by nobody, and the 17th digit of a number may say
nothing: where only such a one turned over, all that is read has to be as before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from damage_cases import QUERY, RUN, TINY, build_few, build_rest, compare_words, damaged, words_of
from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.targets import Targets
from gpt4image.models.weights import CHECKSUM, header_of
from gpt4image.reporting import doctor

Once = Callable[[str, Callable[[Path], Any]], Path]
FEW = ("texts.db", "answers.db", "texts.emb", "index", "labels.parquet", "boxes.parquet", "run", "exported")
REST = ("begun", "pretrained", "detector", "segmenter", "model.onnx", "model.pt2", "cmp", "distilled")
BESIDE = {"model.onnx": ("model.onnx.md",), "model.pt2": ("model.pt2.md",), "texts.db": ("texts.db.lock",)}
BESIDE |= {"answers.db": ("answers.db.lock",)}
PASSED_BY = {"begun/metrics.jsonl": "written anew from the checkpoint", "README.md": ""}
OTHER = {"run": "other", "texts.emb": "other.emb"}
BOUND = ("model.safetensors", "head.safetensors", "config.json", "run.json", "metrics.jsonl", "evaluation-test.json")
"""What belongs to its run by checksum; pictures for the report do not."""


def files_of(part: Path) -> list[Path]:
    """Return the files of a part that hold data; of a comparison those of one seed, and no pages or locks."""
    found = [part] if part.is_file() else sorted(file for file in part.rglob("*") if file.is_file())
    found += [part.with_name(name) for name in BESIDE.get(part.name, ())]
    return [
        file for file in found if not file.name.endswith((".html", ".lock", ".count")) and "seed-1" not in file.parts
    ]


def cases(root: Path, file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what may have happened to a file, with its content then."""
    name = file.relative_to(root).as_posix()
    yield from damaged(file, name)
    part, _, rest = name.partition("/")
    swapped = root / OTHER.get(part, part) / rest
    if part == "cmp" and "seed-0" in file.parts:
        swapped = file.parent.with_name("seed-1") / file.name
    is_bound = file.name in BOUND or file.suffix == ".npy"
    if swapped != file and is_bound and swapped.is_file() and swapped.read_bytes() != file.read_bytes():
        yield "swapped", swapped.read_bytes()


def content_of(file: Path) -> Any:
    """Return all that is read of a file in whose format some bits mean nothing; None of other files."""
    if file.suffix == ".parquet" and file.name != "predictions-test.parquet":
        if file.name == "boxes.parquet":
            return BoxLabels.load(file)._checksum()
        return Targets.load(file)._checksum()
    if file.suffix == ".json":  # the last of many digits may change no number
        return json.loads(file.read_bytes())
    if file.suffix == ".db":
        with contextlib.closing(sqlite3.connect(file)) as store:
            return [store.execute(f"SELECT * FROM {name}").fetchall() for name in ("prompts", "describers", "results")]
    return None


@pytest.fixture(scope="session")
def few(once: Once) -> Path:
    return once("written-few", build_few)


@pytest.fixture(scope="session")
def everything(once: Once, few: Path) -> Path:
    def fill(root: Path) -> None:
        build_few(root)
        build_rest(root)

    return once("written-everything", fill)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path_factory.mktemp("few") / "copy"))


@pytest.fixture(scope="module")
def all_mine(tmp_path_factory: pytest.TempPathFactory, everything: Path) -> Path:
    return Path(shutil.copytree(everything, tmp_path_factory.mktemp("all") / "copy"))


def require_found(root: Path, part: str) -> None:
    """Damage every file of a part in every way, and have doctor look at the part."""
    missed: list[str] = []
    for file in files_of(root / part):
        whole, before = file.read_bytes(), content_of(file)
        for kind, content in list(cases(root, file)):
            file.write_bytes(content)
            told = cli_of("doctor", root / part)
            name = file.relative_to(root).as_posix()
            found = file.name if kind != "swapped" else str(file.parent)
            if told.code == cli.OK and before is not None and content_of(file) == before:
                continue
            if told.code == cli.OK and name in PASSED_BY:
                continue
            if told.code not in (cli.ITEMS_SKIPPED, cli.USER_MISTAKE) or found not in told.err:
                missed.append(f"{name}, {kind}: {told.code} {told.err[-300:]}")
            elif told.code == cli.ITEMS_SKIPPED and not {"delete", "gpt4image"} & {*re.findall(r"\w+", told.err)}:
                missed.append(f"{name}, {kind}: no advice in {told.err[-300:]}")
        file.write_bytes(whole)
    assert not missed, "\n".join(missed)


class Told:
    """What a command said, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def cli_of(*words: object) -> Told:
    """Give a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return Told(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("part", FEW)
def test_doctor_finds_any_damage(mine: Path, part: str) -> None:
    require_found(mine, part)


@pytest.mark.slow
@pytest.mark.parametrize("part", REST)
def test_doctor_finds_any_damage_to_the_rest(all_mine: Path, part: str) -> None:
    require_found(all_mine, part)


def new(root: Path, *words: object) -> list[object]:
    """Return a command with the place of what it writes."""
    return [*words, "--out", root / NEW.get(str(words[0]), "new")]


def data_of(root: Path) -> list[object]:
    return ["--data", f"folder:{root / 'photos'}"]


def predict(root: Path, of: Path, model: str) -> list[object]:
    return new(root, "predict", root / model, of / "photos" / "food")


NEW = {"predict": "new.csv", "label": "new.parquet"}
RESUMED = ("--checkpoint-seconds", 0.0, "--resume", *words_of({**RUN, "epochs": 4, "select": "best"}))
ENCODED = ("--encoder", "bag-of-words:64", "--out")
# What reads a part, by name: (the part, the words of the command). What it writes is called "new"; ``of`` is whole.
COMMANDS: dict[str, tuple[str, Callable[[Path, Path], list[object]]]] = {
    "evaluate": ("run", lambda at, of: ["evaluate", at / "run"]),
    "predict": ("run", lambda at, of: predict(at, of, "run")),
    "search again": ("index", lambda at, of: ["search", at / "run", QUERY, *data_of(of), "--index", at / "index"]),
    "predict by timm": ("exported", lambda at, of: predict(at, of, "exported")),
    "train": (
        "texts.emb",
        lambda at, of: new(at, "train", *data_of(of), *words_of(TINY), "--embeddings", at / "texts.emb"),
    ),
    "label answers": ("answers.db", lambda at, of: new(at, "label", *data_of(of), "--answers", at / "answers.db")),
    "encode again": ("texts.emb", lambda at, of: ["encode", "--store", at / "texts.db", *ENCODED, at / "texts.emb"]),
    "stats": ("texts.db", lambda at, of: ["descriptions", "stats", "--store", at / "texts.db"]),
    "resume": ("begun", lambda at, of: ["train", *data_of(of), "--out", at / "begun", *RESUMED]),
    "predict by onnx": ("model.onnx", lambda at, of: predict(at, of, "model.onnx")),
    "evaluate boxes": ("detector", lambda at, of: ["evaluate", at / "detector", "--split", "train"]),
    "compare again": ("cmp", lambda at, of: compare_words(of, at / "cmp")),
}
QUICK = ("evaluate", "label answers", "stats", "encode again")
NOT_READ = ("seconds", "per_second", "next", "path", "report", "comparison", "environment", "indexed_now")
"""Facts of an outcome that two runs of a command may have different."""


def result_of(told: Told, root: Path) -> Any:
    """Return what came of a command: what it says, and the numbers in the files that it wrote."""
    if told.code not in (cli.OK, cli.ITEMS_SKIPPED):
        return told.code
    facts = {name: value for name, value in json.loads(told.out).items() if not name.endswith(NOT_READ)}
    files = {}
    for path in sorted(root.glob("new*")):
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix == ".safetensors":  # its header has no order
                files[file.name] = header_of(file)[CHECKSUM]
            elif file.suffix in (".csv", ".npy"):
                files[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            elif file.suffix == ".parquet":
                files[file.name] = Targets.load(file).probabilities.tolist()
    return facts, files


def require_honest(written: Path, root: Path, command: str) -> None:
    """Give a command with every file of its part damaged: it names the file, or does as with whole ones."""
    part, words = COMMANDS[command]

    def again(file: str | None = None, content: bytes = b"") -> Told:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(written, root, ignore=lambda at, names: [n for n in names if Path(at) == written and n in left])
        if file is not None:
            (root / file).write_bytes(content)
        return cli_of(*words(root, written), "--json")

    used = {part, "run", "texts.db", "texts.db.lock", "texts.emb", *BESIDE.get(part, ())}
    left = {path.name for path in written.iterdir()} - used
    whole, wrong = again(), list[str]()
    assert whole.code == cli.OK, whole.err
    expected = result_of(whole, root)
    for file in files_of(written / part):
        name = file.relative_to(written).as_posix()
        kinds = ("cut at half", "zeroed block", "swapped", f"flipped bit {len(name) % 4}")
        kinds = kinds[len(name) % 4 :][:1] if command == "compare again" else kinds
        for kind, content in cases(written, file):
            if kind in kinds:
                told = again(name, content)
                said = told.err + told.out
                is_named = any(text in said for text in (file.name, str(root / name), str((root / name).parent)))
                if told.code == cli.CRASH or "Traceback" in told.err:
                    wrong.append(f"{name}, {kind}: {told.err[-800:]}")
                elif told.code == cli.USER_MISTAKE:
                    helps = any(word in said for word in ("gpt4image ", "emove", "estore", "elete", "export"))
                    if not (is_named and helps):
                        wrong.append(f"{name}, {kind}: refused with {told.err[-400:]}")
                elif result_of(told, root) != expected and not (
                    is_named and (told.code == cli.ITEMS_SKIPPED or f"{root / name} is damaged" in said)
                ):
                    wrong.append(f"{name}, {kind}: {told.code}, another result: {told.out[-300:]} {told.err[-300:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("command", QUICK)
def test_no_command_makes_another_number_of_a_damaged_file(few: Path, tmp_path: Path, command: str) -> None:
    require_honest(few, tmp_path / "work", command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in QUICK])
def test_no_slower_command_makes_another_number_of_a_damaged_file(
    everything: Path, tmp_path: Path, command: str
) -> None:
    require_honest(everything, tmp_path / "work", command)


@pytest.fixture
def copy(few: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "copy"))


def test_doctor_finds_what_stages_wrote_whole(few: Path) -> None:
    told = cli_of("doctor", few, "--json")
    facts = json.loads(told.out)
    states = {one["file"]: one["state"] for one in facts["checked"]}
    assert told.code == cli.OK and facts["damaged"] == 0
    assert set(states.values()) == {"whole"}, "all of it has a checksum"
    written = {str(file) for part in FEW for file in files_of(few / part)}
    assert states.keys() >= written


def test_doctor_names_a_file_that_is_missing(copy: Path) -> None:
    (copy / "run" / runs.HEAD).unlink()
    told = cli_of("doctor", copy / "run")
    assert told.code == cli.ITEMS_SKIPPED and f"{copy / 'run' / runs.HEAD} is missing" in told.err


def test_doctor_refuses_what_no_stage_wrote(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{not json")
    (tmp_path / "examples.json").write_text("[1")
    (tmp_path / "README.md").write_text("# Photographs")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for path in (tmp_path, tmp_path / "notes.json", tmp_path / "other.db", tmp_path / "gone"):
        told = cli_of("doctor", path)
        assert told.code == cli.USER_MISTAKE and str(path) in told.err


def test_files_of_others_that_vanish_or_cannot_be_read_end_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "other.db-shm").write_bytes(b"x")
    known = doctor._store

    def vanished(path: Path) -> bool:
        if path.name == "other.db-shm":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return known(path)

    monkeypatch.setattr(doctor, "_store", vanished)
    told = cli_of("doctor", copy)
    assert told.code == cli.OK and "other.db-shm" not in told.out
