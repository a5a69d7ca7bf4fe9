"""Every parser of what comes from outside: what it reads, valid inputs to damage, and which exceptions are answers.

A parser that meets a damaged input reads it, or raises an error of this package. ``tests/test_fuzz.py`` tries some
dozens of inputs each, `make fuzz` 100,000. Inputs that once failed lie in ``tests/fuzz_corpus/TARGET``: they are first.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save_file

import drawn_masks
from gpt4image.artifacts.answers import answer_of_json
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.prompts import PROMPTS, load_prompt
from gpt4image.artifacts.run_records import load_comparisons, load_items, load_run
from gpt4image.artifacts.stage_records import RECORD, StageRecords
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.artifacts.weights import load_tensors, save_tensors
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.files import UNREADABLE, write_json
from gpt4image.config import TrainConfig
from gpt4image.data.bare_jpeg import bare_jpeg
from gpt4image.data.coco_segments import bounds, segment
from gpt4image.data.decode import decode_numbers, decode_square, sides
from gpt4image.data.regions import Boxes
from gpt4image.data.shards import index_shard
from gpt4image.deploying.metadata import Metadata
from gpt4image.describing.answer_json import parse_answer
from gpt4image.describing.class_lists import ClassNames, class_list
from gpt4image.describing.describers.batch.run import _line_number
from gpt4image.describing.describers.openai.completions import completion_of
from gpt4image.describing.describers.openai.faults import fault_of_response
from gpt4image.describing.describers.openai.untrusted import NotJsonError, mapping
from gpt4image.describing.describers.openai.untrusted import parse_json as parse_reply
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.prices import _read_table
from gpt4image.describing.questions import asking_for
from gpt4image.describing.rows import read_rows
from gpt4image.models.hugging_face import find_folder
from gpt4image.recipes import read_recipe
from gpt4image.reporting.extras import Descriptions, Example
from gpt4image.reviewing.label_studio import read_tasks
from gpt4image.reviewing.session import Card
from gpt4image.searching.index import open_index, up_to_date
from mutations import mutated
from region_cases import coco, mask_bytes, picture, survives, write_coco_set
from synthetic_records import comparison_record, descriptions, write_run
from tables import make_table
from tars import write_tar

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

ASKED = asking_for(PROMPTS["short"], ("description", "class", "tags"), [ClassOption("cat"), ClassOption("dog")])
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
        assert _line_number(row) >= 0
        completion_of(mapping(mapping(row).get("response")).get("body"))


def read_segment(content: bytes) -> None:
    with contextlib.suppress(*UNREADABLE):  # the JSON around it is another parser's
        value = json.loads(content)
        for found in (segment(value, (40.0, 20.0), 1), bounds(value, (40.0, 20.0))):
            assert found is not None


def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        found.append(file.getvalue())
    return found


def read_picture(content: bytes) -> None:
    with contextlib.suppress(Gpt4ImageError):
        sides(content)
    bare_jpeg(content)
    assert decode_square(content, 16).shape == (16, 16, 3)


def videos() -> list[bytes]:
    from tiny_videos import moving_dot, video

    return [video(moving_dot(0, 3, 10)), video(moving_dot(0, 3, 10), container="avi", codec="mjpeg")]


def read_video(content: bytes) -> None:
    from gpt4image.data.video import Frames, decode_frames

    assert len(decode_frames(content, Frames(4))) == 4


# Files -------------------------------------------------------------------------------------------------------------

ROWS = [
    {
        "digest": f"{number:064x}",
        "description": f"Ein Käuzchen, number {number}.",
        "prompt": "mine",
        "prompt_version": number,
        "prompt_text": "Tell of it.",
        "describer": '{"model": "m", "t": [1, {"a": 0.5}]}',
        "class": "owl",
        "confidence": 0.5,
        "cost_usd": 0.25,
        "created": 1.5,
    }
    for number in range(6)
]


def write_csv(path: Path) -> None:
    quoted = [[json.dumps(cell, ensure_ascii=False).replace('\\"', '""') for cell in row.values()] for row in ROWS]
    path.write_text("\n".join(",".join(line) for line in [list(ROWS[0]), *quoted]), "utf-8")


def write_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), "utf-8")


def write_plain(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)


def read_all_rows(path: Path) -> None:
    assert all(row is not None for row in read_rows(path))
    if path.suffix == ".jsonl":
        ReplayDescriber(str(path))


MANIFEST: dict[str, list[Any]] = {"path": ["1.png", "2.png"] * 3, "label": ["cat", None] * 3, "split": ["train"] * 6}
MANIFEST["key"] = [f"k{number}" for number in range(6)]


def write_manifest(path: Path) -> None:
    for number in (1, 2):
        picture(path.with_name(f"{number}.png"))
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(MANIFEST), path)
    else:
        cells = zip(*([str(cell or "") for cell in column] for column in MANIFEST.values()), strict=True)
        path.write_text("\n".join(map(",".join, [list(MANIFEST), *cells])), "utf-8")


def write_captions(path: Path) -> None:
    picture(path.with_name("1.png"))
    path.write_text('file_name,text\n1.png,"A cat, on a mat"\n2.png,A dog\n', "utf-8")


def write_arrow(path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    images = [{"bytes": file.getvalue(), "path": None}] * 3
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": [0, 1, 0], "key": ["a", "b", "c"]}), path)


def write_shard(path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    png = file.getvalue()
    write_tar(path, {"a.png": png, "a.cls": b"1", "b.png": png, "b.json": b'{"label": 0}', "c" * 150 + ".png": png})


def read_shard(path: Path) -> None:
    size = path.stat().st_size
    assert all(start + length <= size for _, start, length, _ in index_shard(str(path)).images)
    survives(f"webdataset:{path}")


POLYGON = [[4.0, 4.0, 30.0, 4.0, 30.0, 16.0, 4.0, 16.0]]
RUNS = {"counts": "P14X1o00000X1", "size": [20, 40]}


def write_coco(path: Path) -> None:
    things = [
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 8], "area": 80, "iscrowd": 0, "segmentation": POLYGON}
    ]
    things += [
        {"image_id": 2, "category_id": 3, "bbox": [5.5, 2, 10, 8], "score": 0.5, "segmentation": RUNS, "iscrowd": 1}
    ]
    write_coco_set(path.parent, coco(*things), path.name)


def write_yolo(path: Path) -> None:
    root = path.parent if path.name == "data.yaml" else path.parents[2]
    for number in (1, 2):
        picture(root / "images" / "train" / f"{number}.png")
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames:\n  0: cat\n  1: dog\n")


def write_voc(path: Path) -> None:
    root = path.parents[1]
    picture(root / "JPEGImages" / "a.png")
    thing = "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax>"
    thing += "<ymax>15</ymax></bndbox></object>"
    size = "<size><width>40</width><height>20</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>a.png</filename>{size}{thing}{thing}</annotation>")


def write_timm(path: Path) -> None:
    """Write a folder in timm's format with a tiny model, and no card, whose checksums would refuse any change."""
    import timm

    model = timm.create_model("test_resnet", num_classes=2)
    save_file(model.state_dict(), path.with_name("model.safetensors"))
    facts = {
        "input_size": [3, 32, 32],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    about = {"architecture": "test_resnet", "num_classes": 2, "label_names": ["cat", "dog"], "pretrained_cfg": facts}
    path.write_text(json.dumps(about | {"gpt4image_task": "classification"}))


def read_model(path: Path) -> None:
    from gpt4image.deploying.loading import load_classifier

    load_classifier(path, threads=1)


def write_onnx(path: Path) -> None:
    """Write an ONNX file of one multiplication, which says what gpt4image writes."""
    import onnx
    from onnx import TensorProto, helper

    size = (1, 3, 4, 4)
    shape = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *size[1:]])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 48])
    node = helper.make_node("Flatten", ["images"], ["probabilities"])
    model = helper.make_model(
        helper.make_graph([node], "g", [shape], [out]), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    names = [f"class {number}" for number in range(48)]
    pixels = {"size": 4, "resize": 4, "mean": [0.5] * 3, "std": [0.5] * 3}
    entry = {"format": 1, "classes": names, "preprocessing": pixels}
    model.metadata_props.add(key="gpt4image", value=json.dumps(entry))
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)


METADATA = {
    "format": 1,
    "classes": ["cat", "dog"],
    "task": "multilabel",
    "thresholds": [0.5, 0.4],
    "source": {"run": "a"},
}
METADATA |= {"preprocessing": {"size": 32, "resize": 36, "fit": "crop", "mean": [0.5] * 3, "std": [0.2] * 3}}


def write_store(path: Path) -> None:
    from gpt4image.artifacts.answers import Answer
    from gpt4image.artifacts.store import Description

    known = {"describer": {"model": "m"}, "created": 1.0, "tokens_in": 3}
    with DescriptionStore(path, write=True) as store:
        store.add(
            Description(
                digest=f"{number:064x}",
                prompt=ASKED,
                text=f"Number {number}.",
                answer=Answer(class_name="cat", confidence=0.5),
                **known,
            )
            for number in range(12)
        )
        store.add([Description(digest="f" * 64, prompt=ASKED, error="x", **known)])
    with contextlib.closing(sqlite3.connect(path)) as unchecked, unchecked:  # what has checksums is refused at once
        unchecked.execute("UPDATE results SET checksum = NULL")
        unchecked.execute("PRAGMA journal_mode = DELETE")


def read_store(path: Path) -> None:
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    with DescriptionStore(path, write=bool(path.stat().st_size % 2)) as store:
        store._is_checked = True  # as of a store that is too large to be checked each time
        store.counts()
        assert all(isinstance(row.text, str) for row in store.texts())
        list(store.answers())
        store.settled(ASKED, {"model": "m"})


def write_unsealed(path: Path, record: Any) -> None:
    write_json(path, record, checksum=False)


def unsealed(path: Path) -> None:
    """Take the checksum of a record away, and of the files that it lists: what has one is refused at once."""
    record = json.loads(path.read_text(encoding="utf-8"))
    write_unsealed(path, {name: value for name, value in record.items() if name not in ("record_sha256", "files")})


def write_record_of_run(path: Path) -> None:
    write_run(path.parent.with_name("made"))
    for file in path.parent.with_name("made").iterdir():
        if file.suffix == ".json":
            unsealed(file)
        file.replace(path.parent / file.name)
    path.parent.with_name("made").rmdir()


def write_manifest_of_table(path: Path) -> None:
    make_table(path.parent, {f"{number:064x}": np.eye(4)[number : number + 1] for number in range(4)})
    unsealed(path.parent / "manifest.json")


def read_table(path: Path) -> None:
    table = EmbeddingTable.open(path.parent)
    table.vectors([f"{number:064x}" for number in range(4)])


INDEXED = {"data": "folder:photos"}


def write_index(path: Path) -> None:
    digests = np.sort(np.frombuffer(np.random.default_rng(0).bytes(32 * 5), "S32")).view(np.uint8).reshape(-1, 32)
    rows = np.eye(5, 4, dtype=np.float32)
    up_to_date(path.parent, INDEXED, digests, np.arange(5), 4, lambda i: (rows[i], np.ones(len(i), bool)))
    unsealed(path)


def write_text_labels(path: Path) -> None:
    facts = Facts(classes=("cat", "dög"), noise=0.25, agreement=0.5, c=1.0, folds=2, seed=0, encoders=("minilm",))
    TextLabels(
        keys=("a", "b"),
        digests=("0" * 64, "1" * 64),
        splits=np.array(["train", "test"]),
        labels=np.array([0, -1]),
        probabilities=np.array([[0.9, 0.1], [0.3, 0.7]], np.float32),
        out_of_fold=np.array([True, False]),
        facts=facts,
    ).save(path)


def write_box_labels(path: Path) -> None:
    one = (np.array([[0.1, 0.1, 0.5, 0.5]], np.float32), np.zeros(1, np.int64), np.ones(1, np.float32))
    boxes = Boxes.of_images([one, None])
    BoxLabels(keys=("a", "b"), digests=("0" * 64, "1" * 64), boxes=boxes, classes=("cat",)).save(path)


EMPTY: dict[str, Any] = {"label": "", "note": "", "proposal": "", "share": 0.0, "reason": "", "likely": ()}
CARDS = [Card(id=f"{number:064x}", key=f"photos/{number}.png", **EMPTY) for number in range(3)]
TASKS = [
    {
        "data": {"image": "/data/local-files/?d=photos/1.png", "key": "photos/1.png", "digest": f"{1:064x}"},
        "annotations": [{"result": [{"type": "choices", "value": {"choices": ["cat"]}}], "was_cancelled": False}],
    },
    {"image": "/data/upload/2.png", "choice": "dog"},
]
RECIPE = 'epochs = 3\nlr = 0.5\nmodel = "resnet10t"\nmodel_args = {"channels" = [8, 8]}\ncentre = """all"""\n'
TRANSFORMERS = {
    "model_type": "segformer",
    "architectures": ["X"],
    "auto_map": {},
    "modules": [{"type": "torch.nn.Tanh"}],
}
STAGES = {
    "options": {"data": "a"},
    "stages": {
        "describe": {"of": "a", "key": "b", "path": None, "summary": {}, "notes": [], "text": "", "set_aside": []}
    },
}


def text_writer(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text, encoding="utf-8")


def json_writer(value: Any) -> Callable[[Path], Any]:
    return lambda path: write_unsealed(path, value)


def write_masks(path: Path) -> None:
    root = path if path.name == "set" else next(p for p in path.parents if p.name == "set")
    drawn_masks.draw(root, train=3, test=1, tagged=1)


def read_stages(path: Path) -> None:
    StageRecords(path.parent).finished("describe", "b")


def of_set(path: Path) -> str:
    return f"masks:{next(p for p in path.parents if p.name == 'set')}"


def read_weights(path: Path) -> None:
    load_tensors(path)


def write_weights(path: Path) -> None:
    save_tensors(path, {"a.weight": torch.eye(4), "b": torch.arange(3)}, {"step": 3})


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
    "rows-json": Target(file_target("rows.json", json_writer(ROWS), read_all_rows)),
    "rows-parquet": Target(
        file_target(
            "rows.parquet",
            lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
            read_all_rows,
        )
    ),
    "rows-plain-parquet": Target(file_target("rows.parquet", write_plain, read_all_rows)),
    "rows-txt": Target(file_target("rows.txt", text_writer("A cat.\nA dög.\n"), read_all_rows)),
    "rows-pth": Target(file_target("rows.pth", lambda path: torch.save(["A cat.", "A dog."], path), read_all_rows)),
    "weights": Target(file_target("w.safetensors", write_weights, read_weights)),
    "manifest-csv": Target(set_target("set.csv", write_manifest, lambda path: f"manifest:{path}")),
    "manifest-parquet": Target(set_target("set.parquet", write_manifest, lambda path: f"manifest:{path}")),
    "captions-csv": Target(set_target("captions.csv", write_captions, lambda path: f"manifest:{path}")),
    "arrow": Target(set_target("images.parquet", write_arrow, lambda path: f"hf:{path}"), slow=True),
    "shard": Target(file_target("0.tar", write_shard, read_shard)),
    "coco": Target(set_target("train.json", write_coco, lambda path: f"coco:{path}")),
    "coco-masks": Target(set_target("train.json", write_coco, lambda path: f"coco-masks:{path}")),
    "yolo-boxes": Target(set_target("labels/train/1.txt", write_yolo, lambda path: f"yolo:{path.parents[2]}")),
    "yolo-yaml": Target(set_target("data.yaml", write_yolo, lambda path: f"yolo:{path.parent}")),
    "voc": Target(set_target("Annotations/a.xml", write_voc, lambda path: f"voc:{path.parents[1]}")),
    "mask-png": Target(set_target("set/masks/train/000.png", write_masks, of_set)),
    "mask-tags": Target(set_target("set/tags.csv", write_masks, of_set)),
    "mask-classes": Target(set_target("set/classes.txt", write_masks, of_set)),
    "label-studio": Target(file_target("tasks.json", json_writer(TASKS), lambda path: read_tasks(path, CARDS))),
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
