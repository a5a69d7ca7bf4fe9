"""One table of faults for all formats: a bad item is skipped, named and costs no good one; or an option is named."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, List, Value

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import load_dataset
from gpt4image.data.coco import encoded
from gpt4image.data.voc import parse_xml
from worlds import (
    SIZE,
    coco,
    mask_bytes,
    masks,
    picture,
    png,
    rows,
    skipped_text,
    write_coco,
    write_images,
    write_pairs,
)

Write = Callable[[Path], str]
MASK = np.zeros((SIZE[1], SIZE[0]), np.uint8)
MASK[5:15, 5:20] = 1


def folder(root: Path) -> str:
    write_images(root, "train/cat/1.png", "train/cat/.2.png", "train/.git/4.png", "train/notes.txt", "train/cat/a.svg")
    write_images(root, "train/loose.png", "loose.png", "extra/cat/1.png", "train/dog/1.png", "test/dog/1.png")
    write_images(root.parent, "outside/secret.png")
    os.mkfifo(root / "train/cat/pipe.png")  # reading it would never end
    Path(os.fsdecode(os.fsencode(root / "train/cat") + b"/\xff.png")).write_bytes(png(1))
    (root / "train/cat/out.png").symlink_to(root.parent / "outside/secret.png")
    (root / "train/cat/up").symlink_to(root)
    return f"folder:{root}"


def manifest(root: Path) -> str:
    write_images(root, "train/cat/1.png", "train/dog/1.png")
    (root / "folder.png").mkdir()
    (root / "link.png").symlink_to(root.parent)
    paths = ["train/cat/1.png", "train/dog/1.png", "/etc/passwd", "gone.png", "folder.png", "link.png", "n" * 5000, ""]
    pq.write_table(pa.table({"path": paths, "label": ["cat", "dog", *"abcdef"]}), root / "set.parquet")
    return f"manifest:{root / 'set.parquet'}"


def boxes_manifest(root: Path) -> str:
    write_images(root, "1.png", "2.png")
    cells = ['[["cat", 0.1, 0.25, 0.35, 0.75], ["cat", 0.5, 0.5, 0.5, 0.9]]', "[[1]", '[["cat", 0, 0, "x", 1]]']
    pq.write_table(
        pa.table({"path": ["1.png", "2.png", "1.png"], "key": list("abc"), "boxes": cells}), root / "b.parquet"
    )
    return f"manifest:{root / 'b.parquet'}"


def one(image: Any = 1, category: Any = 7, bbox: Any = (4, 5, 10, 10), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox)} | more


def coco_boxes(root: Path) -> str:
    bad = ((50, 5, 5, 5), (5, 5, 0, 5), (5, 5, float("nan"), 5), (1, 2, 3), ("a", None, {}, True), (10**400, 5, 5, 5))
    broken = [*(one(bbox=box) for box in bad), one(category=99), one(category=[7]), one(image=55), one(image={})]
    content = coco(one(), *broken, one(), one(2, bbox=(30, 10, 100, 100)))
    content["annotations"] += ["text", None, 5]
    names = {1: "other.png", 8: "../outside.png", 10: "missing.png"}
    content["images"] += [*({"id": number, "file_name": name} for number, name in names.items()), {"id": 11}, "text"]
    content["categories"] += [{"id": 5}, "text", {"id": [], "name": "x"}]
    file = write_coco(root, content)
    (root / "missing.png").unlink()
    picture(root.parent / "outside.png")
    return f"coco:{file}"


def coco_masks(root: Path) -> str:
    bad = [
        *({"size": size, "counts": [10**12]} for size in ([20, 40], [20, 10**400])),
        *({"size": [20, 40], "counts": text} for text in ("\u00e9~~~~", "zzzzzzzzzzz")),
        *({"size": [30, 40], "counts": [1100, 100]}, [[1, 2, 3, 4]], [[1, 2, 3, 4, float("inf"), 5]]),
    ]
    whole = one(segmentation=[[4, 5, 14, 5, 14, 15, 4, 15]])
    return f"coco-masks:{write_coco(root, coco(whole, *(one(segmentation=each) for each in bad)))}"


def yolo(root: Path) -> str:
    values = ["0.5 0.5 0.5", "0.5 0.5 0.5 0.5 0.5 0.5 0.5", "nan 0.5 0.5 0.5", "0.1 0.2 nan 0.2 0.3 0.4"]
    lines = ["0 0.225 0.5 0.25 0.5", *(f"0 {each}" for each in values)]
    lines += [f"{label} 0.5 0.5 0.5 0.5" for label in ("x", "7", "-1", "0.5", "1e9")] + ["0 0.225 0.5 0.25 0.5"]
    write_pairs(root, "images/{}.png", "labels/{}.txt", {"1": "\n".join(lines), "2": b"\xff\xfe0 0 0", "3": ""})
    (root / "labels/3.txt").unlink()
    (root / "labels/3.txt").symlink_to("/etc/passwd")
    (root / "data.yaml").write_text("train: images\nnames: [cat]\n")
    return f"yolo:{root}"


def thing(name: str = "cat", box: tuple[object, ...] = (5, 6, 14, 15)) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True) if box else ()
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


def document(*objects: str) -> str:
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def voc(root: Path) -> str:
    bad = [thing(box=()), "<object><name>cat</name></object>", "<object><bndbox/></object>", thing(box=(12, 9, 11, 9))]
    documents = {
        "a": document(thing(), *bad, thing(box=("x", 5, 10, 15)), thing()),
        "e": document(thing())[:-5],
        "f": "<!DOCTYPE a [<!ENTITY x 'y'>]>" + document(thing("&x;")),
        "h": "<svg/>",
    }
    write_pairs(root, "JPEGImages/{}.png", "Annotations/{}.xml", documents)
    (root / "Annotations/g.xml").write_text(document(thing()))
    return f"voc:{root}"


def mask_files(root: Path) -> str:
    good = mask_bytes(MASK)
    found: dict[str, bytes | None] = {
        "1": good,
        "2": mask_bytes(MASK[:10]),
        "3": good[:50],
        "4": mask_bytes(np.full(MASK.shape, 7, np.uint8)),
        "5": mask_bytes(MASK, "RGB", "JPEG"),
        "6": mask_bytes(np.random.default_rng(0).integers(0, 255, (*MASK.shape, 3), dtype=np.uint8), "RGB"),
        "7": mask_bytes(np.full(MASK.shape, 1000, np.uint16), "I;16"),
        "8": b"",
    }
    write_pairs(root, "images/{}.png", "masks/{}.png", found)
    (root / "masks/99.png").write_bytes(good)
    (root / "masks/98.png").symlink_to("/etc/passwd")
    (root / "classes.txt").write_text("background\ncat\n")
    (root / "tags.csv").write_text("key,tags\nnone,cat\n2,coat\n3,cat\n3,cat\n")
    return f"masks:{root}"


def hf_boxes(root: Path) -> str:
    root.mkdir()
    outside = root.parent / "outside.png"
    outside.write_bytes(mask_bytes(MASK))
    kind = List({"bbox": List(Value("float64")), "category": ClassLabel(names=["cat"])})
    own = {"bytes": mask_bytes(MASK), "path": None}
    found = [
        {"bbox": [4, 5, 10, 10], "category": 0},
        {"bbox": [50, 5, 5, 5], "category": 0},
        {"bbox": [1], "category": 0},
    ]
    pictures = [own, None, {"bytes": None, "path": str(outside)}]
    columns = {"image": pictures, "objects": [[*found, {"bbox": [1, 1, 2, 2], "category": None}], [], []]}
    table = pa.table(columns, schema=Features({"image": Image(), "objects": kind}).arrow_schema)
    pq.write_table(table, root / "train.parquet")
    return f"hf:{root / 'train.parquet'}"


def label_studio(root: Path) -> str:
    write_images(root, "1.png")
    value = {"x": 10, "y": 25, "width": 25, "height": 50, "rectanglelabels": ["cat"]}
    regions = [{"value": value}, {"value": value | {"rotation": 30}}, {"value": {"choices": ["cat"]}}, {"value": 5}]
    tasks = [{"data": {"image": name}, "annotations": [{"result": regions}]} for name in ("1.png", "gone.png")]
    (root / "tasks.json").write_text(json.dumps(tasks))
    return f"label-studio:{root / 'tasks.json'}"


BOX = ("the box has no area: xmax <= xmin", "a coordinate is missing or no number")
SKIPPED: dict[str, tuple[Write, tuple[str, ...]]] = {
    "folder": (
        folder,
        (
            "train/cat/\\xff.png its name is not valid UTF-8",
            "train/cat/pipe.png is not a file",
            "train/cat/out.png leads out of the folder",
            "train/cat/up a link to a folder, which is not followed",
            "1 *.svg left out: pictures of this kind cannot be read",
            "train/loose.png lies outside the class folders",
            "extra/cat/1.png lies in no folder of a split",
        ),
    ),
    "manifest": (
        manifest,
        (
            "/etc/passwd leads out of the folder of the dataset; give images=FOLDER",
            "gone.png cannot be found",
            "folder.png is not a file",
            "link.png leads out",
            "nnn cannot be found",
            "set.parquet, row 8 its path is empty",
        ),
    ),
    "boxes of a manifest": (boxes_manifest, (*BOX, "the cell is no JSON list of [class, numbers ...]: 'b, boxes'")),
    "coco": (
        coco_boxes,
        (
            *BOX,
            "the box is outside of its picture: '1.png, annotation 2'",
            "its category is not listed: '1.png, annotation 8'",
            "of an image that is not listed, or that was skipped",
            "the box is listed twice: '1.png, annotation 12'",
            "it is no table",
            "other.png has the id 1, which is none, or that of another image",
            "../outside.png leads out of the folder",
            "missing.png cannot be found",
            "it has no id or no name",
        ),
    ),
    "coco-masks": (coco_masks, ("of another size than its picture", "cannot be read", "three corners")),
    "yolo": (
        yolo,
        (
            "it has not 5 values",
            "a value is no number: 'images/1.png, line 6'",
            "its class number has no name: 'images/1.png, line 7'",
            "its class is no number from 0 on",
            "a coordinate is missing or no number: 'images/1.png, line 4', 'images/1.png, line 5'",
            "listed twice",
            "the label file cannot be read (UnicodeDecodeError): '2.txt'",
            "its label file leads out of the folder",
        ),
    ),
    "voc": (
        voc,
        (
            *BOX,
            "it has no name: 'JPEGImages/a.png, object 4'",
            "listed twice",
            "it is no XML",
            "it has a document type",
            "there is no image of its name: 'Annotations/g.xml'",
            "its root is <svg>, and an XML file of VOC has <annotation>: 'Annotations/h.xml'",
        ),
    ),
    "masks": (
        mask_files,
        (
            "another size than its picture: 'images/2.png'",
            "leads out of the folder of the dataset",
            "numbers above 1, such as 7, that have no class: 'images/4.png'",
            "a mask in JPEG",
            "a mask of colours",
            "a mask with the number 1000",
            "the file is empty",
            "there is no image of its name: 'masks/99.png'",
            "its key is of no image, of several, or comes again: 'tags.csv, row 1', 'tags.csv, row 4'",
            "a tag is no class: \"2: 'coat'\"",
        ),
    ),
    "hf": (
        hf_boxes,
        (
            "the box is outside of its picture: 'train/0000000, object 2'",
            "a coordinate is missing",
            "its category is missing or unknown: 'train/0000000, object 4'",
            "train/0000001 has no image",
            "train/0000002 has no bytes, and its path leads out of the dataset",
        ),
    ),
    "label-studio": (
        label_studio,
        (
            "it is rotated",
            "a result is none of rectanglelabels",
            "cannot be found: No such file or directory: 'gone.png'",
        ),
    ),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_bad_items_are_named_and_cost_nothing_else(tmp_path: Path, name: str) -> None:
    write, reasons = SKIPPED[name]
    images = load_dataset(write(tmp_path / "set"))
    text = skipped_text(images)
    for reason in reasons:
        assert reason in text, text
    good = [("cat", (4, 5, 14, 15), 1)]
    if name in ("folder", "manifest"):
        assert images.keys[-2:] == ("train/cat/1.png", "train/dog/1.png") and images.labels[-2:].tolist() == [0, 1]
    elif "masks" in name:
        assert masks(images).known[0] and masks(images).source.read(int(masks(images).rows[0]))[10, 10] > 0
    else:
        assert next(filter(None, rows(images).values())) == good


@pytest.mark.parametrize(
    ("write", "spec", "message"),
    [
        (manifest, "{}/set.parquet,label=kind", "label=kind: there is no such column; .*'path', 'label'"),
        (manifest, "{}/set.parquet,images=/no/where", "images=/no/where is no folder"),
        (coco_boxes, "coco:{}/train.json,images=photos", r"none of its images is .*photos; give .*images=FOLDER"),
        (coco_boxes, "coco:{}/train", "there is none of train.json, .* give coco:FILE.json"),
        (yolo, "yolo:{},train=pictures", r"'train' of the SPEC, 'pictures', .*give yolo:[^,]*,train=FOLDER"),
        (yolo, "yolo:{}/images", "there are no images in .*,train=FOLDER"),
        (voc, "voc:{}/JPEGImages", "there is no folder .*JPEGImages; give .*,images=FOLDER"),
        (voc, "voc:{},annotations=JPEGImages", "0 XML files in .* annotations=FOLDER"),
        (mask_files, "masks:{},masks=labels", "there is no folder .*labels; give .*,masks=FOLDER"),
        (
            hf_boxes,
            "hf:{}/train.parquet,image=img",
            "'img' is missing; the columns are 'image', 'objects'. .*image=COLUMN",
        ),
        (hf_boxes, "hf:{}/train.parquet,image=objects", "'objects' holds no images"),
        (hf_boxes, "hf:{}/train.parquet,bbox=box", "no field 'box' .* 'bbox', 'category'. Give .*,bbox=FIELD"),
        (hf_boxes, "hf:{}/train.parquet,label=label", "'label' is missing; .*label=COLUMN"),
        (label_studio, "label-studio:{}/tasks.json,images=/nowhere", "no task names .*images=FOLDER"),
    ],
)
def test_what_is_not_where_the_format_puts_it_names_the_option(
    tmp_path: Path, write: Write, spec: str, message: str
) -> None:
    write(tmp_path / "set")
    (tmp_path / "set/train").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        load_dataset(spec.format(tmp_path / "set"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": ["a"] * 4, "label:red": [1, 0, 1, 0]}, "columns 'labels', 'label:red' all give labels"),
        ({"label:red": [1, 0, -1, 0]}, "column label:NAME has '-1' in row 3; give 1 for a class that is present, 0"),
        ({"lable": [1, 0, 1, 0]}, r"column 'lable' is not one of: .*Did you mean 'label'.* label=COLUMN"),
        ({"split": ["train", "trian", "test", "test"]}, r"split of row 2, 'trian'.*Did you mean 'train'"),
        ({"sampled": ["", "rnd", "", ""]}, "sampled of row 2, 'rnd'"),
        ({"key": ["same", "same", "x", "y"]}, "come twice: 'same'"),
        ({"key": ["a", "b", "", "d"]}, "row 3 has no key"),
        ({"path": ["gone.png"] * 4}, r"none of its 4 rows.* gone.png: cannot be found"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    write_images(tmp_path, "1.png", "2.png", "3.png", "4.png")
    pq.write_table(pa.table({"path": [f"{n}.png" for n in range(1, 5)], **columns}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=message):
        load_dataset(f"manifest:{tmp_path / 'set.parquet'}")


ENDLESS = b"x0: &x0 [a, a, a, a, a, a, a, a, a]\n" + b"".join(
    b"x%d: &x%d [%s]\n" % (n, n, b", ".join([b"*x%d" % (n - 1)] * 9)) for n in range(1, 10)
)
"""Entries of YAML that are billions, written out."""


@pytest.mark.parametrize(
    ("file", "content", "spec", "message"),
    [
        ("set.csv", b"path,label\na.png\n", "{}/set.csv", "row 1 has 1 cells"),
        ("set.csv", b"path\n\xff\xfe.png\n", "{}/set.csv", "not a CSV file in UTF-8: it is in another encoding"),
        ("set.csv", "path\nH\u00fcte.png\n".encode("utf-16"), "{}/set.csv", "it is in UTF-16: save it as UTF-8"),
        ("set.csv", b"label\nx\n", "{}/set.csv", "column 'path' is missing"),
        ("set.csv", b"path,label,label\na,x,y\n", "{}/set.csv", "column 'label' is there more than once"),
        ("a.json", b"{}", "coco:{}/a.json", "no list 'images'"),
        ("data.yaml", b"[1]", "yolo:{}", "data.yaml has no entries"),
        (
            "data.yaml",
            b"train: .\nnames: {0: cat, 2: dog}",
            "yolo:{}",
            "the classes from 0 on, each once; got 'cat', 'N",
        ),
        ("data.yaml", b"train: .\n", "yolo:{}", "'names' of data.yaml or the lines of classes.txt"),
        ("data.yaml", b"train: .\nnames: [a, a]", "yolo:{}", "each once; got 'a', 'a'"),
        ("data.yaml", ENDLESS + b"names: *x9", "yolo:{}", "'names' of data.yaml"),
        ("data.yaml", ENDLESS + b"train: *x9", "yolo:{}", "'train' of data.yaml, 'list'"),
        *(("classes.txt", text, "masks:{}", "give 2 to 255 class names") for text in (b"a\n", b"a\na\n", b"a\n\nb\n")),
        ("tags.csv", b"name;tags\n", "masks:{}", r"first line of tags.csv is 'name;tags'; it must be 'key,tags'"),
        ("masks/1.png", b"no picture", "masks:{}", r"no image has a mask that can be used.*not an image"),
        ("a.parquet", b"PAR1", "hf:{}/a.parquet", "could not be read"),
        ("a.txt", b"", "hf:{}/a.txt", "got '.txt'"),
    ],
)
def test_files_that_are_no_dataset_are_refused(
    tmp_path: Path, file: str, content: bytes, spec: str, message: str
) -> None:
    write_pairs(tmp_path, "images/{}.png", "masks/{}.png", {"1": mask_bytes(MASK)})
    (tmp_path / file).write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=message):
        load_dataset(spec.format(tmp_path))


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
) + "]><annotation><object><name>&j;</name></object></annotation>"  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
        '<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd"><annotation/>',
        "<a>" * 100_000,
        "<a/><b/>",
        '<?xml version="1.0" encoding="nonsense"?><a/>',
    ],
)
def test_xml_that_attacks_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"document type|no XML"):
        parse_xml(text.encode())
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("value", "size", "reason"),
    [
        ([[0, 0, 1e30, 0, 1e30, 1e30, 0, 1e30] * 1000], (7000, 7000), "outline is too long"),
        ({"size": [10**5, 10**5], "counts": [10**10]}, (10**5, 10**5), "above 50,000,000 pixels"),
        ([[1, 1, 2, 2, 3, 3]], (float("nan"), 20), "size of its picture"),
        ("text", (40, 20), "cannot be read"),
        ([], (40, 20), "no polygon"),
    ],
)
def test_outlines_that_attack_are_refused_at_once(value: object, size: tuple[float, float], reason: str) -> None:
    start = time.process_time()
    found = encoded(value, size)
    assert isinstance(found, str) and reason in found
    assert time.process_time() - start < 1
