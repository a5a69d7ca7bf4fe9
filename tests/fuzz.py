"""Damaged inputs for every parser of what comes from outside, within bounds of time and memory: what `make fuzz` runs.

    python tests/fuzz.py                                    100,000 inputs for each parser
    python tests/fuzz.py coco voc --count 5000 --seed 7     some parsers, with inputs of another seed

A parser that meets a damaged input reads it, or raises an error of this package. What stages write is that of
``written/format-1``, without checksums, which would refuse any change at once. A parser runs in a process of its own,
so that one that crashes it, hangs or takes too much memory ends no other. An input that fails is in --out; in
fuzz_corpus/PARSER, `pytest tests/test_fuzz.py -k PARSER` tries it first.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
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

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import drawn_masks
from gpt4image.artifacts.answers import answer_of_json
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.image_index import open_index
from gpt4image.artifacts.prompts import PROMPTS, load_prompt
from gpt4image.artifacts.run_records import load_comparisons, load_items, load_run
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.files import UNREADABLE
from gpt4image.config import TrainConfig
from gpt4image.data.coco import encoded as encoded_region
from gpt4image.data.decode import decode_numbers, decode_square, sides
from gpt4image.data.video import Frames, decode_frames
from gpt4image.deploying.loading import load_classifier
from gpt4image.describing.answer_json import parse_answer
from gpt4image.describing.class_lists import ClassNames, class_list
from gpt4image.describing.describers.batch import line_number
from gpt4image.describing.describers.openai.chat import completion_of, fault_of_response
from gpt4image.describing.describers.openai.server import NotJsonError, mapping
from gpt4image.describing.describers.openai.server import parse_json as parse_reply
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.questions import asking_for
from gpt4image.describing.rows import read_rows
from gpt4image.models.hugging_face import find_folder
from gpt4image.models.weights import load_tensors
from gpt4image.options import read_recipe
from gpt4image.reporting.extras import Example
from region_cases import coco, mask_bytes, picture, survives, write_coco_set
from tiny_videos import moving_dot, video

WRITTEN = Path(__file__).parent / "written" / "format-1"
ASKED = asking_for(PROMPTS["short"], ("description", "class", "tags"), [ClassOption("cat"), ClassOption("dog")])
BOXED = asking_for(PROMPTS["short"], ("boxes",), [ClassOption("cat")])
SAID = {"description": "A 'grey' cat,\nümlaut.", "class": "cat", "second": "dog", "confidence": 0.9, "tags": ["fur"]}
BOXES = {"boxes": [{"label": "cat", "box_2d": [10, 20, 300, 400], "confidence": "high"}] * 2}
CHOICE = {"message": {"role": "assistant", "content": json.dumps(SAID), "refusal": None}, "finish_reason": "stop",
          "logprobs": {"content": [{"token": json.dumps(SAID), "logprob": -0.1}]}}  # fmt: skip
REPLY = {"choices": [CHOICE], "usage": {"prompt_tokens": 812, "completion_tokens": 31}}
FAULT = {"error": {"message": "Rate limit reached; try again in 2s", "code": "rate_limit_exceeded", "param": "model"}}
LINE = {"custom_id": "3", "response": {"status_code": 200, "body": REPLY}}
POLYGON, RUNS = [[4.0, 4.0, 30.0, 4.0, 30.0, 16.0, 4.0, 16.0]], {"counts": "P14X1o00000X1", "size": [20, 40]}
ROWS = [{"digest": f"{n:064x}", "description": f"Ein Käuzchen, number {n}.", "prompt": "mine", "prompt_version": n,
         "prompt_text": "Tell of it.", "describer": '{"model": "m", "t": [1, {"a": 0.5}]}', "class": "owl",
         "confidence": 0.5, "cost_usd": 0.25, "created": 1.5} for n in range(6)]  # fmt: skip
MANIFEST = {"path": ["1.png", "2.png"] * 3, "label": ["cat", None] * 3, "split": ["train"] * 6,
            "key": [f"k{number}" for number in range(6)]}  # fmt: skip
BOXES_OF_TABLE = {"path": ["1.png", "2.png"] * 2,
         "boxes": ['[["cat", 0.1, 0.2, 0.5, 0.6], ["dog", 0, 0, 1, 1, 0.5]]', "[]", "", "[]"],
         "key": [f"k{number}" for number in range(4)]}  # fmt: skip
VOC = ("<annotation><filename>a.png</filename><size><width>40</width><height>20</height><depth>3</depth></size>"
       "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax>"
       "<ymax>15</ymax></bndbox></object></annotation>")  # fmt: skip
TRANSFORMERS = {"model_type": "vit", "architectures": ["X"], "auto_map": {}, "modules": [{"type": "torch.nn.Tanh"}]}
RECIPE = 'epochs = 3\nlr = 0.5\nmodel = """resnet10t"""\nmodel_args = {"channels" = [8, 8]}\n'
Prepare = Callable[[Path], tuple[list[bytes], Callable[[bytes], Any]]]


def of_bytes(read: Callable[[bytes], Any], *seeds: Any) -> Prepare:
    return lambda _: ([seed if isinstance(seed, bytes) else json.dumps(seed).encode() for seed in seeds], read)


def of_file(name: str, write: Callable[[Path], Any], read: Callable[[Path], Any]) -> Prepare:
    """Return what prepares a parser of files: ``write`` makes one, with what lies beside it, and ``read`` it."""

    def prepare(folder: Path) -> tuple[list[bytes], Callable[[bytes], Any]]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)

        def again(content: bytes) -> None:
            path.unlink(missing_ok=True)  # what is mapped into memory may not change
            path.write_bytes(content)
            read(path)

        return [path.read_bytes()], again

    return prepare


def of_set(name: str, write: Callable[[Path], Any], kind: str, *, above: int = 0) -> Prepare:
    """Return what prepares a file of a dataset, all of which is loaded and its first image read.

    The dataset is the file itself, or a folder ``above`` it.
    """

    def read(path: Path) -> None:
        images = survives(f"{kind}:{path.parents[above - 1] if above else path}")
        if images is not None and len(images):
            with contextlib.suppress(OSError):  # told of this image alone
                images.read(0)

    return of_file(name, write, read)


def of_stage(path: str, read: Callable[[Path], Any]) -> Prepare:
    """Return what prepares a file that a stage wrote once, in a copy of its folder without checksums."""

    def write(file: Path) -> None:
        shutil.copytree((WRITTEN / path).parent, file.parent, dirs_exist_ok=True)
        for card in file.parent.rglob("*.md"):
            card.unlink()
        for record in file.parent.glob("*.json"):
            content = json.loads(record.read_text("utf-8"))
            if isinstance(content, dict):
                content = {key: value for key, value in content.items() if key != "files" and "sha256" not in key}
            record.write_text(json.dumps(content), encoding="utf-8")
        for store in file.parent.glob("*.db"):
            with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as unchecked:
                unchecked.execute("UPDATE results SET checksum = NULL")
                unchecked.execute("PRAGMA journal_mode = DELETE")

    return of_file(f"kept/{Path(path).name}", write, read)


def text(content: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def table(columns: Any) -> Callable[[Path], Any]:
    """Return what writes a table, and the pictures that it may name."""

    def write(path: Path) -> None:
        for number in (1, 2):
            picture(path.with_name(f"{number}.png"))
        rows = columns if isinstance(columns, list) else pyarrow.table(columns).to_pylist()
        if path.suffix == ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        elif path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)

    return write


def write_coco(path: Path) -> None:
    first = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 8], "area": 80, "iscrowd": 0, "segmentation": POLYGON}
    second = {"image_id": 2, "category_id": 3, "bbox": [5.5, 2, 10, 8], "score": 0.5, "segmentation": RUNS}
    second |= {"iscrowd": 1}
    write_coco_set(path.parent, coco(first, second), path.name)


def write_yolo(path: Path) -> None:
    root = path.parent if path.name == "data.yaml" else path.parents[2]
    picture(root / "images" / "train" / "1.png")
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames:\n  0: cat\n  1: dog\n")


def write_voc(path: Path) -> None:
    picture(path.parents[1] / "JPEGImages" / "a.png")
    path.write_text(VOC)


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def read_answer(content: bytes) -> None:
    for prompt in (ASKED, BOXED):
        found = parse_answer(content.decode("utf-8", errors="replace"), prompt, ClassNames(["cat", "dog"]))
        json.dumps(found if isinstance(found, str) else found.answer.to_json()).encode()


def read_stored_answer(content: bytes) -> None:
    with contextlib.suppress(*UNREADABLE, AttributeError):  # as the store explains
        answer_of_json(content.decode())


def read_reply(content: bytes) -> None:
    fault_of_response(429, {"retry-after": content[:40].decode("latin-1")}, content)
    with contextlib.suppress(NotJsonError):
        assert isinstance(completion_of(parse_reply(content)).text, str | None)


def read_batch_line(content: bytes) -> None:
    with contextlib.suppress(NotJsonError):
        row = parse_reply(content)
        assert line_number(row) >= 0
        completion_of(mapping(mapping(row).get("response")).get("body"))


def read_segment(content: bytes) -> None:
    with contextlib.suppress(*UNREADABLE):  # the JSON around it is another parser's
        value = json.loads(content)
        assert isinstance(encoded_region(value, (40.0, 20.0)), str | bytes)


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


numbers = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
image = {"image": [{"bytes": encoded("PNG"), "path": None}] * 3, "label": [0, 1, 0], "key": ["a", "b", "c"]}
drawn = {
    name: (lambda path, above=above: drawn_masks.draw(path.parents[above], train=3, test=1, tagged=1))
    for name, above in (("png", 2), ("txt", 0))
}
index = "aligned/search/1c993cab03cbaa17/index.json"
identity = json.loads((WRITTEN / index).read_text("utf-8"))["identity"]
TARGETS: dict[str, Prepare] = {
    "answer-json": of_bytes(read_answer, SAID, f"Here:\n```json\n{json.dumps(SAID)},\n```".encode(), BOXES),
    "stored-answer": of_bytes(read_stored_answer, {"class": "cat", "confidence": 0.5, "tags": ["a"]}),
    "server-answer": of_bytes(read_reply, REPLY, FAULT),
    "batch-line": of_bytes(read_batch_line, LINE),
    "coco-segment": of_bytes(read_segment, POLYGON, RUNS),
    "picture": of_bytes(read_picture, *map(encoded, ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))),
    "mask-numbers": of_bytes(decode_numbers, mask_bytes(numbers), mask_bytes(numbers, "P")),
    "video": of_bytes(lambda content: decode_frames(content, Frames(4)), video(moving_dot(0, 3, 10)),
                      video(moving_dot(0, 3, 10), container="avi", codec="mjpeg")),
    **{f"rows-{kind}": of_file(f"rows.{kind}", table(ROWS), read_all_rows) for kind in ("jsonl", "csv", "parquet")},
    "manifest-boxes": of_set("set.csv", table(BOXES_OF_TABLE), "manifest"),
    **{f"manifest-{kind}": of_set(f"set.{kind}", table(MANIFEST), "manifest") for kind in ("csv", "parquet")},
    "arrow": of_set("images.parquet", table(image), "hf"),
    "coco": of_set("train.json", write_coco, "coco"),
    "coco-masks": of_set("train.json", write_coco, "coco-masks"),
    "yolo-boxes": of_set("labels/train/1.txt", write_yolo, "yolo", above=3),
    "yolo-yaml": of_set("data.yaml", write_yolo, "yolo", above=1),
    "voc": of_set("Annotations/a.xml", write_voc, "voc", above=2),
    "mask-png": of_set("set/masks/train/000.png", drawn["png"], "masks", above=3),
    "mask-tags": of_set("set/tags.csv", drawn["txt"], "masks", above=1),
    "mask-classes": of_set("set/classes.txt", drawn["txt"], "masks", above=1),
    "recipe": of_file("r.toml", text(RECIPE), lambda path: read_recipe(path, TrainConfig)),
    "prompt-file": of_file("p.txt", text("Describe the {class_name}.\n---\nShorter.\n"),
                           lambda path: load_prompt(str(path))),
    "class-list": of_file("c.txt", text("cat: any cat\ndog\n# note\nfire engine: red\n"),
                          lambda path: class_list(str(path))),
    "transformers-config": of_file("m/config.json", text(TRANSFORMERS), read_transformers),
    "weights": of_stage("begun/checkpoint.safetensors", load_tensors),
    "timm-config": of_stage("model/model/config.json", lambda path: load_classifier(path.parent, threads=1)),
    "onnx": of_stage("model.onnx", lambda path: load_classifier(path, threads=1)),
    "store": of_stage("model/answers.db", read_store),
    "table-manifest": of_stage("model/embeddings/manifest.json", lambda path: EmbeddingTable.open(path.parent)),
    "index": of_stage(index, lambda path: open_index(path.parent, identity)),
    "targets": of_stage("model/text-labels.parquet", Targets.load),
    "box-table": of_stage("boxes.parquet", BoxLabels.load),
    **{f"run-{name.partition('.')[0]}": of_stage(f"model/run/{name}", lambda path: load_run(path.parent))
       for name in ("run.json", "config.json", "environment.json", "metrics.jsonl", "evaluation-test.json")},
    "comparison": of_stage("comparison/comparison.json", lambda path: load_comparisons(path.parent)),
    "examples": of_stage("model/run/examples.json", lambda path: load_items(path, Example)),
    "stage-record": of_stage("model/distill.json", lambda path: StageRecords(path.parent).finished("describe", "b")),
}  # fmt: skip


CORPUS = Path(__file__).parent / "fuzz_corpus"
SECONDS = 60  # an input may take; a busy machine is slow
MEBIBYTES = 512  # an input may add to what the parser has, and a process to its address space four times as much
TOLERATED = 10  # failures of a parser after which the rest of its inputs is left out
# Deep nesting, numbers out of range, characters that end or turn texts; put in somewhere, or in place of something.
TOKENS = (b"[" * 100_000, b'{"a":' * 20_000, b"1e999", b"-1e999", b"9" * 400, b"9" * 5000, b"18446744073709551616",
          b"NaN", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b'"', b"\r", b"null", b"true",
          b"x" * 200_000)  # fmt: skip


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


def work(name: str, numbers: range, seed: int, out: Path, at: Any) -> None:
    """Try inputs in this process, until one fails; the alarm ends it at one that takes too long, also in code of C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak there
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(XDG_CACHE_HOME=f"{place}/cache", HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=f"{place}/hf")
        seeds, read = TARGETS[name](Path(place))
        for content in seeds:  # libraries load here
            read(content)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEBIBYTES * 2**20, resource.RLIM_INFINITY))
        for at.value, content in inputs(name, seeds, numbers, seed):
            (out / name).write_bytes(content)
            signal.alarm(SECONDS)
            if found := failure(read, content):
                print(f"{name}: {found.strip().splitlines()[-1][:200]}", flush=True)
                os._exit(2)


def fuzz(name: str, count: int, seed: int, out: Path) -> dict[str, Any]:
    """Try ``count`` inputs of a parser, and return what came of it; those that fail are kept in ``out``."""
    context, begun, failures = multiprocessing.get_context("fork"), time.monotonic(), 0
    at = context.Value("q", -1)
    out.mkdir(parents=True, exist_ok=True)
    while at.value + 1 < count and failures < TOLERATED:
        process = context.Process(target=work, args=(name, range(at.value + 1, count), seed, out, at))
        process.start()
        process.join()
        if process.exitcode:
            failures += 1
            (out / name).rename(out / f"{name}-{at.value}")
    (out / name).unlink(missing_ok=True)
    seconds = round(time.monotonic() - begun, 1)
    return {"parser": name, "seed": seed, "inputs": at.value + 1, "failures": failures, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", choices=[[], *TARGETS], help="default: all of them")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per parser (default 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of inputs that fail")
    given = parser.parse_args()
    failures = 0
    for name in given.parsers or TARGETS:
        print(json.dumps(row := fuzz(name, given.count, given.seed, given.out)), flush=True)
        failures += row["failures"]
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
