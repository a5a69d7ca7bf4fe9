"""Every parser of what comes from outside reads damaged inputs, or refuses them, within bounds of time and memory.

    python tests/test_fuzz.py coco voc --count 5000 --seed 7     some parsers, other inputs than 100,000 of seed 0

A parser that meets a damaged input reads it, or raises an error of this package. Valid inputs are in
``fuzz_corpus/valid`` and, as stages write them, made by ``all_artifacts``, without checksums, which would refuse any
change at once. An input that fails stays in fuzz-out; put it into fuzz_corpus/PARSER, where tests try it first.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":  # where all of these tests are skipped
    import resource

import all_artifacts
from gpt4image.artifacts import runs, table, targets
from gpt4image.artifacts.answers import PROMPTS
from gpt4image.artifacts.class_lists import ClassNames
from gpt4image.artifacts.comparisons import load_comparisons
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.data.decode import decode_square
from gpt4image.data.video import Frames, decode_frames
from gpt4image.deploying.loading import load_classifier
from gpt4image.describing.answer_json import parse_answer
from gpt4image.describing.describers.base import Request
from gpt4image.describing.describers.openai import chat
from gpt4image.describing.describers.openai.server import find_server
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.questions import asking_for
from gpt4image.describing.rows import read_rows
from gpt4image.models.weights import load_tensors
from worlds import survives

CORPUS = Path(__file__).parent / "fuzz_corpus"
VALID = CORPUS / "valid"
ASKED = asking_for(PROMPTS["short"], ("description", "class", "tags"), [ClassOption("cat"), ClassOption("dog")])
BOXED = asking_for(PROMPTS["short"], ("boxes",), [ClassOption("cat")])
SECONDS = 60  # an input may take; a busy machine is slow
MEBIBYTES = 512  # an input may add to what the parser has, and a process to its address space four times as much
# Deep nesting, numbers out of range, characters that end or turn texts; put in somewhere, or in place of something.
TOKENS = (b"[" * 100_000, b'{"a":' * 20_000, b"1e999", b"-1e999", b"9" * 5000, b"18446744073709551616", b"NaN", b"\0",
          b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b'"', b"\r", b"null", b"true", b"x" * 200_000)  # fmt: skip


def read_answer(content: bytes) -> None:
    for prompt in (ASKED, BOXED):
        found = parse_answer(content.decode("utf-8", errors="replace"), prompt, ClassNames(["cat", "dog"]))
        json.dumps(found if isinstance(found, str) else found.answer.to_json()).encode()


def read_reply(content: bytes) -> None:
    server, prompt = find_server("http://localhost:1/v1"), ASKED
    chat.fault_of(429, {"retry-after": content[:40].decode("latin-1")}, content, server)
    asked = Request(digest="a" * 64, keys=("a",), prompt=prompt, question="?", read=bytes)
    chat.to_answer(asked, chat.read_json(content), content, server, None)


def read_all_rows(path: Path) -> None:
    assert all(row is not None for row in read_rows(path))
    if path.suffix == ".jsonl":
        ReplayDescriber(str(path))


def read_store(path: Path) -> None:
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    with DescriptionStore(path, write=bool(path.stat().st_size % 2)) as store:
        store.counts()
        assert all(isinstance(row.text, str) for row in store.texts())
        list(store.answers())
        store.settled(ASKED, {"model": "m"})


def read_set(kind: str, above: int, path: Path) -> None:
    """Load a dataset, which is a file or a folder ``above`` it, and read its first image."""
    images = survives(f"{kind}:{[path, *path.parents][above]}")
    with contextlib.suppress(OSError):  # told of this image alone
        _ = images is not None and len(images) and images.read(0)


def of_bytes(read: Callable[[bytes], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_bytes())


TARGETS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "answer-json": ("answer-json/*", of_bytes(read_answer)),
    "server-answer": ("server-answer/*", of_bytes(read_reply)),
    "picture": ("picture/*", of_bytes(lambda content: decode_square(content, 16))),
    "video": ("video/*", of_bytes(lambda content: decode_frames(content, Frames(4)))),
    **{f"rows-{kind}": (f"rows/rows.{kind}", read_all_rows) for kind in ("jsonl", "csv", "parquet")},
    **{f"manifest-{name}": (f"manifest/{name}", partial(read_set, "manifest", 0)) for name in
       ("boxes.csv", "set.csv", "set.parquet")},
    "arrow": ("arrow/images.parquet", partial(read_set, "hf", 0)),
    **{name: ("coco/train.json", partial(read_set, name, 0)) for name in ("coco", "coco-masks")},
    "label-studio": ("label-studio/tasks.json", partial(read_set, "label-studio", 0)),
    "yolo-boxes": ("yolo/labels/train/1.txt", partial(read_set, "yolo", 3)),
    "yolo-yaml": ("yolo/data.yaml", partial(read_set, "yolo", 1)),
    "voc": ("voc/Annotations/a.xml", partial(read_set, "voc", 2)),
    "mask-png": ("masks/masks/train/000.png", partial(read_set, "masks", 3)),
    **{f"mask-{name}": (f"masks/{name}", partial(read_set, "masks", 1)) for name in ("tags.csv", "classes.txt")},
    "weights": ("begun/checkpoint.safetensors", load_tensors),
    "timm-config": ("model/model/config.json", lambda path: load_classifier(path.parent, threads=1)),
    "onnx": ("exported/model.onnx", lambda path: load_classifier(path, threads=1)),
    "store": ("model/answers.db", read_store),
    "table-manifest": ("model/embeddings/manifest.json", lambda path: table.EmbeddingTable.open(path.parent)),
    "targets": ("model/targets.parquet", targets.load_targets),
    "box-table": ("boxes.parquet", targets.load_targets),
    **{f"run-{name.partition('.')[0]}": (f"model/run/{name}", lambda path: runs.load_run(path.parent))
       for name in ("run.json", "config.json", "environment.json", "metrics.jsonl", "evaluation-test.json")},
    "comparison": ("comparison/comparison.json", lambda path: load_comparisons(path.parent)),
    "stage-record": ("model/distill.json", lambda path: StageRecords(path.parent).finished("describe", {})),
}  # fmt: skip
"""Where the valid inputs of a parser are, and what reads the first of them."""


def prepare(name: str, folder: Path, written: Path) -> list[Path]:
    """Lay out valid files in a folder; return the inputs of a parser, which reads them in place of the first."""
    pattern = TARGETS[name][0]
    root = VALID if any(VALID.glob(pattern)) else written
    kept = shutil.copytree(root, folder / "kept")
    for record in kept.rglob("*.json") if root is written else ():
        if isinstance(content := json.loads(record.read_text("utf-8")), dict):
            content = {key: value for key, value in content.items() if key != "files" and "sha256" not in key}
            record.write_text(json.dumps(content), encoding="utf-8")
    for store in kept.rglob("*.db"):
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as unchecked:
            unchecked.execute("PRAGMA journal_mode = DELETE")
    return sorted(kept.glob(pattern))


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: bits turned over, or a part cut, zeroed, or replaced by another or by too much."""
    content = bytearray(whole or b"\0")
    start, other = (rng.randrange(len(content)) for _ in range(2))
    end = min(len(content), start + rng.choice((0, 1, 4, 64, 4096, len(content))))
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        swapped = content[other : other + end - start]
        content[start:end] = rng.choice((b"", bytes(end - start), swapped, *rng.sample(TOKENS, 2)))
    return bytes(content)


def inputs(name: str, paths: Sequence[Path], count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield inputs: first those that once failed, then valid ones, then damaged ones."""
    known = [path.read_bytes() for path in [*sorted((CORPUS / name).glob("*")), *paths]]
    yield from known
    for number in range(len(known), count):
        rng = random.Random(f"{name} {seed} {number}")
        content = rng.choice(known)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            content = mutated(content, rng)
        yield content[: 2**20]


def failure(name: str, path: Path, content: bytes) -> str:
    """Return the traceback of what a parser must not do with an input, or nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path.unlink(missing_ok=True)  # what is mapped into memory may not change
    path.write_bytes(content)
    try:
        TARGETS[name][1](path)
    except Gpt4ImageError:
        pass
    except Exception:  # noqa: BLE001  (whatever else comes is what is looked for)
        return traceback.format_exc()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"MemoryError: it took {grown:.0f} MiB" if grown > MEBIBYTES else ""


def work(name: str, count: int, seed: int, written: Path) -> None:
    """Try inputs until one fails; the alarm ends this process at one that takes too long, also in code of C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak there
    warnings.simplefilter("ignore")
    place = Path("fuzz-out", name).absolute()
    shutil.rmtree(place, ignore_errors=True)
    os.environ.update(XDG_CACHE_HOME=f"{place}/cache", HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=f"{place}/hf")
    paths = prepare(name, place, written)
    failure(name, paths[0], paths[0].read_bytes())  # libraries load here
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEBIBYTES * 2**20, resource.RLIM_INFINITY))
    for number, content in enumerate(inputs(name, paths, count, seed)):
        signal.alarm(SECONDS)
        if found := failure(name, paths[0], content):
            print(f"{name}, input {number}, {paths[0]}: {found.strip().splitlines()[-1][:200]}", flush=True)
            os._exit(2)
    shutil.rmtree(place)


@pytest.mark.filterwarnings("ignore")  # of libraries about what they read
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(
    name: str, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= TARGETS.keys() | {"valid"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", tmp_path / "hf")
    paths = prepare(name, tmp_path, everything)
    for number, content in enumerate(inputs(name, paths, 20)):
        found = failure(name, paths[0], content)
        assert not found, f"input {number} of seed 0: {found}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[[], *TARGETS], help="default: all of them")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per parser (default 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    given, failed = parser.parse_args(), list[str]()
    written = Path("fuzz-out", "written").absolute()
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    all_artifacts.make(written)
    for name in given.parsers or TARGETS:
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(name, given.count, given.seed, written)
        )
        process.start()
        process.join()
        failed += [name] if process.exitcode else []
        print(f"{name}: {'FAILED' if process.exitcode else 'ok'}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
