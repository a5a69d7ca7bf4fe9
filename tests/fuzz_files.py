"""Files that fuzzing starts from: one writer of a small valid file for each kind that is read."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save_file

import drawn_masks
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption, DescriptionStore
from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.artifacts.weights import save_tensors
from gpt4image.base.files import write_json
from gpt4image.data.regions import Boxes
from gpt4image.describing.questions import asking_for
from gpt4image.searching.index import up_to_date
from region_cases import coco, picture, write_coco_set
from synthetic_records import write_run
from tables import make_table

ASKED = asking_for(PROMPTS["short"], ("description", "class", "tags"), [ClassOption("cat"), ClassOption("dog")])


def unsealed(path: Path) -> None:
    """Take the checksum of a record away, and of the files that it lists: what has one is refused at once."""
    record = json.loads(path.read_text(encoding="utf-8"))
    write_unsealed(path, {name: value for name, value in record.items() if name not in ("record_sha256", "files")})


def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        found.append(file.getvalue())
    return found


def videos() -> list[bytes]:
    from tiny_videos import moving_dot, video

    return [video(moving_dot(0, 3, 10)), video(moving_dot(0, 3, 10), container="avi", codec="mjpeg")]


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


MANIFEST: dict[str, list[Any]] = {"path": ["1.png", "2.png"] * 3, "label": ["cat", None] * 3, "split": ["train"] * 6}


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


def write_unsealed(path: Path, record: Any) -> None:
    write_json(path, record, checksum=False)


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


DIGEST_OF = {f"photos/{number}.png": f"{number:064x}" for number in range(3)}


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


DESCRIBED = dict.fromkeys(
    ("images", "distinct_images", "already_described", "described", "failed", "rejected", "without_description"), 1
)
STAGES = {
    "options": {"data": "a"},
    "stages": {
        "describe": {
            "of": "a",
            "key": "b",
            "path": None,
            "summary": DESCRIBED,
            "notes": [],
            "text": "",
            "set_aside": [],
        }
    },
}


def text_writer(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text, encoding="utf-8")


def json_writer(value: Any) -> Callable[[Path], Any]:
    return lambda path: write_unsealed(path, value)


def write_masks(path: Path) -> None:
    root = path if path.name == "set" else next(p for p in path.parents if p.name == "set")
    drawn_masks.draw(root, train=3, test=1, tagged=1)


def write_weights(path: Path) -> None:
    save_tensors(path, {"a.weight": torch.eye(4), "b": torch.arange(3)}, {"step": 3})
