"""Every parser of what comes from outside: what it reads, valid inputs to damage, and which exceptions are answers.

A parser that meets a damaged input reads it, or raises an error of this package. ``tests/test_fuzz.py`` tries some
dozens of inputs each, `make fuzz` 100,000. Inputs that once failed lie in ``tests/fuzz_corpus/TARGET``: they are first.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from fuzz_files import (
    ASKED,
    DIGEST_OF,
    INDEXED,
    MANIFEST,
    METADATA,
    POLYGON,
    RECIPE,
    ROWS,
    RUNS,
    STAGES,
    TASKS,
    TRANSFORMERS,
    json_writer,
    pictures,
    text_writer,
    videos,
    write_arrow,
    write_box_labels,
    write_captions,
    write_coco,
    write_csv,
    write_index,
    write_lines,
    write_manifest,
    write_manifest_of_table,
    write_masks,
    write_onnx,
    write_plain,
    write_record_of_run,
    write_store,
    write_text_labels,
    write_timm,
    write_voc,
    write_weights,
    write_yolo,
)
from gpt4image.artifacts.answers import answer_of_json
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.prompts import PROMPTS, load_prompt
from gpt4image.artifacts.run_records import load_comparisons, load_items, load_run
from gpt4image.artifacts.stage_records import RECORD, StageRecords
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import TextLabels
from gpt4image.artifacts.weights import load_tensors
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.files import UNREADABLE
from gpt4image.config import TrainConfig
from gpt4image.data.coco import bounds, segment
from gpt4image.data.decode import bare_jpeg, decode_numbers, decode_square, sides
from gpt4image.deploying.loading import Metadata
from gpt4image.describing.answer_json import parse_answer
from gpt4image.describing.class_lists import ClassNames, class_list
from gpt4image.describing.describers.batch import line_number
from gpt4image.describing.describers.openai.chat import completion_of, fault_of_response
from gpt4image.describing.describers.openai.server import NotJsonError, mapping
from gpt4image.describing.describers.openai.server import parse_json as parse_reply
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.prices import _read_table
from gpt4image.describing.questions import asking_for
from gpt4image.describing.rows import read_rows
from gpt4image.models.hugging_face import find_folder
from gpt4image.options import read_recipe
from gpt4image.reporting.extras import Descriptions, Example
from gpt4image.reviewing.label_studio import read_tasks
from gpt4image.searching.index import open_index
from mutations import mutated
from region_cases import mask_bytes, survives
from synthetic_records import comparison_record, descriptions

CORPUS = Path(__file__).parent / "fuzz_corpus"
Read = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        prepare: writes into a folder what belongs to an input; returns valid inputs, and what reads one.
        allowed: exceptions that are an answer; those of this package where nothing is said.
        slow: it takes more than some ten milliseconds per input, so that fewer are tried at a time.
    """

    prepare: Callable[[Path], tuple[Sequence[bytes], Read]]
    allowed: tuple[type[Exception], ...] = (Gpt4ImageError,)
    slow: bool = False


def file_target(
    name: str, write: Callable[[Path], Any], read: Callable[[Path], Any]
) -> Callable[[Path], tuple[Sequence[bytes], Read]]:
    """Return the ``prepare`` of a parser of files: ``write`` makes one, with what lies beside it, and ``read`` it."""

    def prepare(folder: Path) -> tuple[Sequence[bytes], Read]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)

        def again(content: bytes) -> None:
            path.unlink(missing_ok=True)  # what is mapped into memory may not change
            path.write_bytes(content)
            read(path)

        return [path.read_bytes()], again

    return prepare


def bytes_target(seeds: Callable[[], Sequence[bytes]], read: Read) -> Callable[[Path], tuple[Sequence[bytes], Read]]:
    """Return the ``prepare`` of a parser of bytes."""
    return lambda _: (seeds(), read)


def set_target(
    name: str, write: Callable[[Path], Any], spec: Callable[[Path], str]
) -> Callable[[Path], tuple[Sequence[bytes], Read]]:
    """Return the ``prepare`` of a file of a dataset, all of which is loaded and its first image read."""

    def read(path: Path) -> None:
        images = survives(spec(path))
        if images is not None and len(images):
            with contextlib.suppress(OSError):  # told of this image alone
                images.read(0)

    return file_target(name, write, read)


# What is read, by itself -------------------------------------------------------------------------------------------

BOXED = asking_for(PROMPTS["short"], ("boxes",), [ClassOption("cat")])
SAID: dict[str, Any] = {"description": "A 'grey' cat,\nümlaut.", "class": "cat", "second": "dog", "confidence": 0.9}
SAID |= {"tags": ["fur", "sofa"]}
BOX = {"label": "cat", "box_2d": [10, 20, 300, 400], "confidence": "high"}
REPLY = {
    "choices": [
        {
            "message": {"role": "assistant", "content": json.dumps(SAID), "refusal": None},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": json.dumps(SAID), "logprob": -0.1}]},
        }
    ],
    "usage": {"prompt_tokens": 812, "completion_tokens": 31},
}
FAULT = {"error": {"message": "Rate limit reached; try again in 2s", "code": "rate_limit_exceeded", "param": "model"}}


def answers() -> list[bytes]:
    fenced = f"Here it is:\n```json\n{json.dumps(SAID)},\n```"
    return [json.dumps(SAID).encode(), fenced.encode(), json.dumps({"boxes": [BOX, BOX]}).encode()]


def read_answer(content: bytes) -> None:
    text = content.decode("utf-8", errors="replace")
    for prompt in (ASKED, BOXED):
        found = parse_answer(text, prompt, ClassNames(["cat", "dog"]))
        json.dumps(found if isinstance(found, str) else found.answer.to_json()).encode()


def read_stored_answer(content: bytes) -> None:
    with contextlib.suppress(*UNREADABLE, AttributeError):  # as the store explains
        answer_of_json(content.decode())


def read_reply(content: bytes) -> None:
    fault_of_response(429, {"retry-after": content[:40].decode("latin-1")}, content)
    with contextlib.suppress(NotJsonError):
        found = completion_of(parse_reply(content), secrets=("sk-secret",))
        assert all(isinstance(choice.text, str) for choice in found.choices)


def read_batch_line(content: bytes) -> None:
    with contextlib.suppress(NotJsonError):
        row = parse_reply(content)
        assert line_number(row) >= 0
        completion_of(mapping(mapping(row).get("response")).get("body"))


def read_segment(content: bytes) -> None:
    with contextlib.suppress(*UNREADABLE):  # the JSON around it is another parser's
        value = json.loads(content)
        for found in (segment(value, (40.0, 20.0), 1), bounds(value, (40.0, 20.0))):
            assert found is not None


def read_picture(content: bytes) -> None:
    with contextlib.suppress(Gpt4ImageError):
        sides(content)
        bare_jpeg(content, 4096)
    assert decode_square(content, 16).shape == (16, 16, 3)


def read_video(content: bytes) -> None:
    from gpt4image.data.video import Frames, decode_frames

    assert len(decode_frames(content, Frames(4))) == 4


# Files -------------------------------------------------------------------------------------------------------------


def read_all_rows(path: Path) -> None:
    assert all(row is not None for row in read_rows(path))
    if path.suffix == ".jsonl":
        ReplayDescriber(str(path))


MANIFEST["key"] = [f"k{number}" for number in range(6)]


def read_model(path: Path) -> None:
    from gpt4image.deploying.loading import load_classifier

    load_classifier(path, threads=1)


METADATA |= {"preprocessing": {"size": 32, "resize": 36, "fit": "crop", "mean": [0.5] * 3, "std": [0.2] * 3}}


def read_store(path: Path) -> None:
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    with DescriptionStore(path, write=bool(path.stat().st_size % 2)) as store:
        store._is_checked = True  # as of a store that is too large to be checked each time
        store.counts()
        assert all(isinstance(row.text, str) for row in store.texts())
        list(store.answers())
        store.settled(ASKED, {"model": "m"})


def read_table(path: Path) -> None:
    table = EmbeddingTable.open(path.parent)
    table.vectors([f"{number:064x}" for number in range(4)])


def read_stages(path: Path) -> None:
    StageRecords(path.parent).finished("describe", "b")


def of_set(path: Path) -> str:
    return f"masks:{next(p for p in path.parents if p.name == 'set')}"


def read_weights(path: Path) -> None:
    load_tensors(path)


numbers = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
TARGETS: dict[str, Target] = {
    "answer-json": Target(bytes_target(answers, read_answer)),
    "stored-answer": Target(
        bytes_target(
            lambda: [json.dumps({"class": "cat", "confidence": 0.5, "tags": ["a"]}).encode()], read_stored_answer
        )
    ),
    "server-answer": Target(bytes_target(lambda: [json.dumps(REPLY).encode(), json.dumps(FAULT).encode()], read_reply)),
    "batch-line": Target(
        bytes_target(
            lambda: [json.dumps({"custom_id": "3", "response": {"status_code": 200, "body": REPLY}}).encode()],
            read_batch_line,
        )
    ),
    "coco-segment": Target(
        bytes_target(lambda: [json.dumps(value).encode() for value in (POLYGON, RUNS)], read_segment)
    ),
    "picture": Target(bytes_target(pictures, read_picture)),
    "mask-numbers": Target(bytes_target(lambda: [mask_bytes(numbers), mask_bytes(numbers, "P")], decode_numbers)),
    "video": Target(bytes_target(videos, read_video), slow=True),
    "onnx-metadata": Target(
        bytes_target(
            lambda: [json.dumps(METADATA).encode()],
            lambda content: void(Metadata.from_json(content.decode("utf-8", errors="surrogateescape"), "m.onnx")),
        )
    ),
    "rows-jsonl": Target(file_target("rows.jsonl", write_lines, read_all_rows)),
    "rows-csv": Target(file_target("rows.csv", write_csv, read_all_rows)),
    "rows-parquet": Target(
        file_target(
            "rows.parquet",
            lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
            read_all_rows,
        )
    ),
    "rows-plain-parquet": Target(file_target("rows.parquet", write_plain, read_all_rows)),
    "weights": Target(file_target("w.safetensors", write_weights, read_weights)),
    "manifest-csv": Target(set_target("set.csv", write_manifest, lambda path: f"manifest:{path}")),
    "manifest-parquet": Target(set_target("set.parquet", write_manifest, lambda path: f"manifest:{path}")),
    "captions-csv": Target(set_target("captions.csv", write_captions, lambda path: f"manifest:{path}")),
    "arrow": Target(set_target("images.parquet", write_arrow, lambda path: f"hf:{path}"), slow=True),
    "coco": Target(set_target("train.json", write_coco, lambda path: f"coco:{path}")),
    "coco-masks": Target(set_target("train.json", write_coco, lambda path: f"coco-masks:{path}")),
    "yolo-boxes": Target(set_target("labels/train/1.txt", write_yolo, lambda path: f"yolo:{path.parents[2]}")),
    "yolo-yaml": Target(set_target("data.yaml", write_yolo, lambda path: f"yolo:{path.parent}")),
    "voc": Target(set_target("Annotations/a.xml", write_voc, lambda path: f"voc:{path.parents[1]}")),
    "mask-png": Target(set_target("set/masks/train/000.png", write_masks, of_set)),
    "mask-tags": Target(set_target("set/tags.csv", write_masks, of_set)),
    "mask-classes": Target(set_target("set/classes.txt", write_masks, of_set)),
    "label-studio": Target(file_target("tasks.json", json_writer(TASKS), lambda path: read_tasks(path, DIGEST_OF))),
    "recipe": Target(file_target("r.toml", text_writer(RECIPE), lambda path: read_recipe(path, TrainConfig))),
    "prompt-file": Target(
        file_target(
            "p.txt", text_writer("Describe the {class_name}.\n---\nShorter.\n"), lambda path: load_prompt(str(path))
        )
    ),
    "class-list": Target(
        file_target(
            "c.txt", text_writer("cat: any cat\ndog\n# note\nfire engine: red\n"), lambda path: class_list(str(path))
        )
    ),
    "prices": Target(file_target("p.json", json_writer({"tiny": {"input": 1.0, "output": 10}}), _read_table)),
    "transformers-config": Target(
        file_target("m/config.json", json_writer(TRANSFORMERS), lambda path: find_folder(str(path.parent), ["*.json"])),
        allowed=(Gpt4ImageError, LookupError),
    ),
    "timm-config": Target(file_target("m/config.json", write_timm, lambda path: read_model(path.parent)), slow=True),
    "onnx": Target(file_target("m.onnx", write_onnx, read_model), slow=True),
    "store": Target(file_target("a.db", write_store, read_store)),
    "table-manifest": Target(file_target("t/manifest.json", write_manifest_of_table, read_table)),
    "table-offsets": Target(file_target("t/offsets.npy", write_manifest_of_table, read_table)),
    "table-embeddings": Target(file_target("t/embeddings.npy", write_manifest_of_table, read_table)),
    "index": Target(file_target("i/index.json", write_index, lambda path: open_index(path.parent, INDEXED))),
    "text-labels": Target(file_target("l.parquet", write_text_labels, TextLabels.load)),
    "box-table": Target(file_target("b.parquet", write_box_labels, BoxLabels.load)),
    **{
        f"run-{name.split('.')[0]}": Target(
            file_target(f"r/{name}", write_record_of_run, lambda path: load_run(path.parent))
        )
        for name in ("run.json", "config.json", "environment.json", "metrics.jsonl", "evaluation-test.json")
    },
    "comparison": Target(
        file_target("comparison.json", json_writer(comparison_record()), lambda path: load_comparisons(path.parent))
    ),
    "report-extras": Target(
        file_target(
            "descriptions.json",
            json_writer(descriptions()),
            lambda path: (load_items(path, Descriptions), load_items(path, Example)),
        )
    ),
    "stage-record": Target(file_target(RECORD, json_writer(STAGES), read_stages)),
}


def void(_: Any) -> None:
    """Take what a parser returned."""


def input_of(name: str, seeds: Sequence[bytes], number: int, seed: int) -> bytes:
    """Return input ``number`` of a target: first the valid ones and those that once failed, then damaged ones."""
    known = [*seeds, *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]
    if number < len(known):
        return known[number]
    rng = random.Random(f"{name} {seed} {number}")
    content = rng.choice(known)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = mutated(content or b"\0", rng)
    return content[: 2**20]
