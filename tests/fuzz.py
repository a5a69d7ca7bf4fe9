"""Damaged inputs for every parser of what comes from outside, within bounds of time and memory: what `make fuzz` runs.

    python tests/fuzz.py                                    100,000 inputs for each parser
    python tests/fuzz.py coco voc --count 5000 --seed 7     some parsers, with inputs of another seed

A parser that meets a damaged input reads it, or raises an error of this package. Valid inputs are in
``fuzz_corpus/valid`` and, as stages write them, in ``written/format-1``, without checksums, which would refuse any
change at once. A parser runs in a process of its own. An input that fails is in --out; in fuzz_corpus/PARSER,
`pytest tests/test_fuzz.py -k PARSER` tries it first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.image_index import open_index
from gpt4image.artifacts.prompts import PROMPTS, load_prompt
from gpt4image.artifacts.run_records import load_comparisons, load_items, load_run
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.config import TrainConfig
from gpt4image.data.decode import decode_square, sides
from gpt4image.data.video import Frames, decode_frames
from gpt4image.deploying.loading import load_classifier
from gpt4image.describing.answer_json import parse_answer
from gpt4image.describing.class_lists import ClassNames, class_list
from gpt4image.describing.describers.openai.chat import completion_of, fault_of_response
from gpt4image.describing.describers.openai.server import NotJsonError
from gpt4image.describing.describers.openai.server import parse_json as parse_reply
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.questions import asking_for
from gpt4image.describing.rows import read_rows
from gpt4image.models.hugging_face import find_folder
from gpt4image.models.weights import load_tensors
from gpt4image.options import read_recipe
from gpt4image.reporting.extras import Example
from region_cases import survives

CORPUS = Path(__file__).parent / "fuzz_corpus"
VALID, WRITTEN = CORPUS / "valid", Path(__file__).parent / "written" / "format-1"
ASKED = asking_for(PROMPTS["short"], ("description", "class", "tags"), [ClassOption("cat"), ClassOption("dog")])
BOXED = asking_for(PROMPTS["short"], ("boxes",), [ClassOption("cat")])
INDEX = "aligned/search/1c993cab03cbaa17/index.json"
SECONDS = 60  # an input may take; a busy machine is slow
MEBIBYTES = 512  # an input may add to what the parser has, and a process to its address space four times as much
# Deep nesting, numbers out of range, characters that end or turn texts; put in somewhere, or in place of something.
TOKENS = (b"[" * 100_000, b'{"a":' * 20_000, b"1e999", b"-1e999", b"9" * 400, b"9" * 5000, b"18446744073709551616",
          b"NaN", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b'"', b"\r", b"null", b"true",
          b"x" * 200_000)  # fmt: skip


def read_answer(content: bytes) -> None:
    for prompt in (ASKED, BOXED):
        found = parse_answer(content.decode("utf-8", errors="replace"), prompt, ClassNames(["cat", "dog"]))
        json.dumps(found if isinstance(found, str) else found.answer.to_json()).encode()


def read_reply(content: bytes) -> None:
    fault_of_response(429, {"retry-after": content[:40].decode("latin-1")}, content)
    with contextlib.suppress(NotJsonError):
        assert isinstance(completion_of(parse_reply(content)).text, str | None)


def read_picture(content: bytes) -> None:
    with contextlib.suppress(Gpt4ImageError):
        sides(content)
    assert decode_square(content, 16).shape == (16, 16, 3)


def read_transformers(path: Path) -> None:
    with contextlib.suppress(LookupError):
        find_folder(str(path.parent), ["*.json"])


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


def read_set(kind: str, above: int = 0) -> Callable[[Path], None]:
    """Return what loads a dataset, which is the file itself or a folder ``above`` it, and reads its first image."""

    def read(path: Path) -> None:
        images = survives(f"{kind}:{path.parents[above - 1] if above else path}")
        if images is not None and len(images):
            with contextlib.suppress(OSError):  # told of this image alone
                images.read(0)

    return read


def of_bytes(read: Callable[[bytes], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_bytes())


TARGETS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "answer-json": ("answer-json/*", of_bytes(read_answer)),
    "server-answer": ("server-answer/*", of_bytes(read_reply)),
    "picture": ("picture/*", of_bytes(read_picture)),
    "video": ("video/*", of_bytes(lambda content: decode_frames(content, Frames(4)))),
    **{f"rows-{kind}": (f"rows/rows.{kind}", read_all_rows) for kind in ("jsonl", "csv", "parquet")},
    "manifest-boxes": ("manifest/boxes.csv", read_set("manifest")),
    **{f"manifest-{kind}": (f"manifest/set.{kind}", read_set("manifest")) for kind in ("csv", "parquet")},
    "arrow": ("arrow/images.parquet", read_set("hf")),
    **{name: ("coco/train.json", read_set(name)) for name in ("coco", "coco-masks")},
    "yolo-boxes": ("yolo/labels/train/1.txt", read_set("yolo", above=3)),
    "yolo-yaml": ("yolo/data.yaml", read_set("yolo", above=1)),
    "voc": ("voc/Annotations/a.xml", read_set("voc", above=2)),
    "mask-png": ("masks/masks/train/000.png", read_set("masks", above=3)),
    "mask-tags": ("masks/tags.csv", read_set("masks", above=1)),
    "mask-classes": ("masks/classes.txt", read_set("masks", above=1)),
    "recipe": ("texts/r.toml", lambda path: read_recipe(path, TrainConfig)),
    "prompt-file": ("texts/p.txt", lambda path: load_prompt(str(path))),
    "class-list": ("texts/c.txt", lambda path: class_list(str(path))),
    "transformers-config": ("texts/m/config.json", read_transformers),
    "weights": ("begun/checkpoint.safetensors", load_tensors),
    "timm-config": ("model/model/config.json", lambda path: load_classifier(path.parent, threads=1)),
    "onnx": ("model.onnx", lambda path: load_classifier(path, threads=1)),
    "store": ("model/answers.db", read_store),
    "table-manifest": ("model/embeddings/manifest.json", lambda path: EmbeddingTable.open(path.parent)),
    "index": (INDEX, lambda path: open_index(path.parent, json.loads((WRITTEN / INDEX).read_bytes())["identity"])),
    "targets": ("model/text-labels.parquet", Targets.load),
    "box-table": ("boxes.parquet", BoxLabels.load),
    **{f"run-{name.partition('.')[0]}": (f"model/run/{name}", lambda path: load_run(path.parent))
       for name in ("run.json", "config.json", "environment.json", "metrics.jsonl", "evaluation-test.json")},
    "comparison": ("comparison/comparison.json", lambda path: load_comparisons(path.parent)),
    "examples": ("model/run/examples.json", lambda path: load_items(path, Example)),
    "stage-record": ("model/distill.json", lambda path: StageRecords(path.parent).finished("describe", {})),
}  # fmt: skip
"""Where the valid inputs of a parser are, and what reads the first of them."""


def prepare(name: str, folder: Path) -> tuple[list[bytes], Callable[[bytes], Any]]:
    """Lay out valid files in a folder; return the inputs of a parser, and what reads one in place of the first."""
    pattern, read = TARGETS[name]
    root = VALID if any(VALID.glob(pattern)) else WRITTEN
    place = root / pattern if root is WRITTEN else VALID / pattern.split("/")[0] / "x"
    folder = folder / "kept" / place.parent.relative_to(root)
    shutil.copytree(place.parent, folder, ignore=shutil.ignore_patterns("*.md"))
    for record in folder.glob("*.json") if root is WRITTEN else ():
        content = json.loads(record.read_text("utf-8"))
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key != "files" and "sha256" not in key}
        record.write_text(json.dumps(content), encoding="utf-8")
    for store in folder.glob("*.db"):
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as unchecked:
            unchecked.execute("UPDATE results SET checksum = NULL")
            unchecked.execute("PRAGMA journal_mode = DELETE")
    paths = sorted(folder.glob(str(Path(pattern).relative_to(place.parent.relative_to(root)))))

    def again(content: bytes) -> None:
        paths[0].unlink(missing_ok=True)  # what is mapped into memory may not change
        paths[0].write_bytes(content)
        read(paths[0])

    return [path.read_bytes() for path in paths], again


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: cut, zeroed, bits turned over, parts swapped or too much for a parser."""
    content = bytearray(whole or b"\0")
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 4, 64, 512, 4096)))
    kind = rng.choice(("cut", "zero", "bits", "bits", "token", "token", "swap"))
    if kind == "cut":
        del content[start:]
    elif kind == "zero":
        content[start:end] = bytes(end - start)
    elif kind == "token":
        content[start : rng.choice((start, min(end, start + 4)))] = rng.choice(TOKENS)
    elif kind == "swap":
        other = rng.randrange(len(content))
        content[start:end] = content[other : other + end - start]
    else:
        for _ in range(rng.choice((1, 3, 30))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def inputs(name: str, seeds: Sequence[bytes], numbers: range, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield inputs by number: first those that once failed, then valid ones, then damaged ones."""
    known = [*(path.read_bytes() for path in sorted((CORPUS / name).glob("*"))), *seeds]
    for number in numbers:
        rng = random.Random(f"{name} {seed} {number}")
        content = known[number] if number < len(known) else rng.choice(known)
        for _ in range(rng.choice((1, 1, 1, 2, 3)) if number >= len(known) else 0):
            content = mutated(content, rng)
        yield number, content[: 2**20]


def failure(read: Callable[[bytes], Any], content: bytes) -> str:
    """Return the traceback of what a parser must not do with an input, or nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(content)
    except Gpt4ImageError:
        pass
    except Exception:  # noqa: BLE001  (whatever else comes is what is looked for)
        return traceback.format_exc()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"MemoryError: it took {grown:.0f} MiB" if grown > MEBIBYTES else ""


def work(name: str, count: int, seed: int, out: Path) -> None:
    """Try inputs in this process, until one fails; the alarm ends it at one that takes too long, also in code of C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak there
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(XDG_CACHE_HOME=f"{place}/cache", HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=f"{place}/hf")
        seeds, read = prepare(name, Path(place))
        for content in seeds:  # libraries load here
            read(content)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEBIBYTES * 2**20, resource.RLIM_INFINITY))
        for number, content in inputs(name, seeds, range(count), seed):
            (out / name).write_bytes(content)
            signal.alarm(SECONDS)
            if found := failure(read, content):
                print(f"{name}, input {number}: {found.strip().splitlines()[-1][:200]}", flush=True)
                os._exit(2)
    (out / name).unlink()
    print(f"{name}: {count} inputs in {time.monotonic() - begun:.1f} seconds", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[[], *TARGETS], help="default: all of them")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per parser (default 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of the inputs that fail, by parser")
    given, failed = parser.parse_args(), list[str]()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.parsers or TARGETS:
        arguments = name, given.count, given.seed, given.out
        process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        process.start()
        process.join()
        failed += [name] if process.exitcode else []
    print(f"failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
