"""What each format says of a small dataset is read as it was meant: classes, boxes, masks, splits, keys, columns."""

import csv
import hashlib
import io
import json
import pickle
import shutil
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, DatasetDict, Features, Image, List, Sequence, Value
from datasets import Dataset as Table

from gpt4image.data import NO_LABEL, Dataset, load_dataset
from gpt4image.data.regions import VOID
from worlds import (
    SIZE,
    boxes,
    coco,
    label_names,
    mask_bytes,
    masks,
    picture,
    png,
    rows,
    write_coco,
    write_images,
    write_pairs,
)

CAT = ("cat", (4, 5, 14, 15), 1)


def by_key(images: Dataset) -> dict[str, str]:
    return dict(zip(images.keys, images.splits.tolist(), strict=True))


# Folders of classes


@pytest.mark.parametrize(
    ("split_of", "classes"),
    [
        (
            {
                **dict.fromkeys(("train/cat/1.png", "train/dog/deep/1.PNG", "train/unlabelled/1.png"), "train"),
                **{"val/cat/1.png": "val", "valid/cat/1.png": "val", "test/dog/1.png": "test"},
            },
            ("cat", "dog"),
        ),
        ({"Train/cat/1.png": "train", "TEST/cat/1.png": "test"}, ("cat",)),
        ({"Training/cat/1.png": "train", "dev/cat/2.png": "val"}, ("cat",)),
        ({"cat/1.png": "train", "Test/cat/2.png": "test", "Unlabeled/2.png": "train"}, ("cat",)),
        ({"train/unlabelled/1.png": "train", "test/cat/2.png": "test"}, ("cat",)),
        ({"1.png": "train", "2.png": "train"}, ()),
        ({"test/cat/1.png": "test", "Val/dog/2.png": "val"}, ("cat", "dog")),
        ({"train/1.png": "train", "train/old/2.png": "train", "truck/1.png": "train"}, ("train", "truck")),
        ({"train/Caf\u00e9/1.png": "train", "train/x/2.png": "train", "test/Cafe\u0301/3.png": "test"}, ("Café", "x")),
    ],
)
def test_class_folders(tmp_path: Path, split_of: dict[str, str], classes: tuple[str, ...]) -> None:
    write_images(tmp_path, *split_of)
    images = load_dataset(f"folder:{tmp_path}")
    assert (by_key(images), images.classes, images.skipped) == (split_of, classes, ())
    assert images.read(0) == (tmp_path / images.keys[0]).read_bytes()
    unlabelled = {key for key in split_of if "nlabel" in key or not classes}
    assert {key for key, name in label_names(images).items() if name is None} == unlabelled


# Tables


@pytest.fixture(params=["csv", "parquet"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Dataset]:
    """Writes a table of both kinds and loads it."""

    def write_and_load(columns: dict[str, list[Any]], options: str = "") -> Dataset:
        path = tmp_path / f"set.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        return load_dataset(f"manifest:{path}{options}")

    return write_and_load


FILES = ["a.png", "sub dir/b.png", "c\nd.png", "ü.png"]


@pytest.mark.parametrize(
    ("path", "label", "options"), [("path", "label", ""), ("file_name", "Category", ",path=file_name,label=Category")]
)
def test_a_table_and_one_whose_columns_the_spec_names(
    tmp_path: Path, load: Callable[..., Dataset], path: str, label: str, options: str
) -> None:
    write_images(tmp_path, *FILES)
    columns = {path: FILES, label: ["dog", "cat", "", "-1"], "caption": list("abcd")}
    images = load({**columns, "split": ["train", "valid", "test", ""], "key": ["k1", "k2", "k3", "k4"]}, options)
    assert (images.keys, images.classes) == (("k1", "k2", "k3", "k4"), ("cat", "dog"))
    assert images.labels.tolist() == [1, 0, NO_LABEL, NO_LABEL]
    assert images.splits.tolist() == ["train", "val", "test", "train"]
    assert [images.read(i) for i in range(4)] == [(tmp_path / name).read_bytes() for name in FILES]
    assert load({path: [name.replace("/", "\\") for name in FILES]}, options.partition(",label")[0]).keys == tuple(
        FILES
    )


@pytest.mark.parametrize(
    ("names", "options"), [(["label:round", "label:red"], ""), (["round", "red"], ",classes=round|red")]
)
def test_one_column_per_class(tmp_path: Path, load: Callable[..., Dataset], names: list[str], options: str) -> None:
    write_images(tmp_path, *FILES)
    images = load({"path": FILES, names[0]: ["1", "0", "", None], names[1]: ["true", "FALSE", "", "1"]}, options)
    assert images.classes == ("red", "round")
    assert images.labels.tolist() == [[1, 1], [0, 0], [-1, -1], [1, -1]]


@pytest.mark.parametrize(("column", "cell"), [("label", "a"), ("labels", "a|b"), ("boxes", '[["a", 0, 0, 1, 1]]')])
def test_images_that_the_table_of_a_folder_does_not_list_have_no_label(
    tmp_path: Path, column: str, cell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, "1.png", "new.png", "more/2.png", "labels.images/3.png", ".hidden.png")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", column, "split"), ("1.png", cell, "test")])
    whole = load_dataset(str(tmp_path))
    assert (whole.spec, whole.keys) == (f"manifest:{tmp_path}", ("1.png", "new.png", "more/2.png"))
    assert whole.splits.tolist() == ["test", "train", "train"] and whole.groups.tolist()[1:] == [NO_LABEL] * 2
    assert load_dataset(str(tmp_path / "labels.csv")).keys == ("1.png",)
    assert "2 images that labels.csv does not list" in " ".join(capsys.readouterr().err.split())


def test_cells_that_a_spreadsheet_would_run_are_read_without_their_apostrophe(tmp_path: Path) -> None:
    (tmp_path / "=1.png").write_bytes(b"a picture")
    (tmp_path / "'quoted'.png").write_bytes(b"another picture")
    text = "\ufeffpath, label,review\r\n'=1.png,'+x,checked\r\n'quoted'.png,'y',\r\n\r\n"  # with a byte order mark
    (tmp_path / "set.csv").write_text(text, encoding="utf-8", newline="")
    images = load_dataset(f"manifest:{tmp_path / 'set.csv'}")
    assert images.keys == ("=1.png", "'quoted'.png")
    assert [images.label_names(row) for row in range(2)] == [("+x",), ("'y'",)]


def test_images_may_lie_below_another_folder_that_the_spec_names(tmp_path: Path) -> None:
    root, table = tmp_path / "mounted", tmp_path / "lists" / "photos.csv"
    write_images(root, "a.png", "b/c.png")
    table.parent.mkdir()
    table.write_text(f"path\n{root / 'a.png'}\nb/c.png\n/etc/hostname\n")
    images = load_dataset(f"{table},images={root}")
    assert images.keys == ("a.png", "b/c.png") and images.read(1) == (root / "b/c.png").read_bytes()
    assert [item.name for item in images.skipped] == ["/etc/hostname"]


# COCO


def one(image: int = 1, category: int = 7, bbox: Any = (4, 5, 10, 10), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox)} | more


def test_coco_boxes_classes_by_id_crowds_and_images_without_objects(tmp_path: Path) -> None:
    crowd, unsure = one(category=3, bbox=(0, 0, 40, 20), iscrowd=1), one(bbox=(1, 1, 2, 2), score=0.25)
    images = load_dataset(f"coco:{write_coco(tmp_path, coco(one(), crowd, unsure, one(2, ignore=1), images=3))}")
    assert images.classes == ("dog", "cat")
    assert rows(images) == {
        "1.png": [CAT, ("dog", (0, 0, 40, 20), 0), ("cat", (1, 1, 3, 3), 0.25)],
        "2.png": [("cat", (4, 5, 14, 15), 0)],
        "3.png": [],
    }
    assert images.labels.tolist() == [[-1, 1], [0, -1], [0, 0]] and images.skipped == ()


@pytest.mark.parametrize(
    ("files", "images", "argument"),
    [
        ({"train": "train.json", "val": "val.json", "test": "test.json"}, "", "train.json"),
        (
            {"train": "annotations/instances_train2017.json", "val": "annotations/instances_val2017.json"},
            "{split}2017/",
            ".",
        ),
        ({"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"}, "{folder}/", "."),
        ({"train": "lists/train.json", "test": "lists/test.json"}, "lists/photos/", "lists/train.json,images=photos"),
    ],
)
def test_the_file_of_train_brings_other_splits(
    tmp_path: Path, files: dict[str, str], images: str, argument: str
) -> None:
    for place, (split, name) in enumerate(files.items()):
        content = coco(one(10 * place + 1), images=0)
        content["images"] = [{"id": 10 * place + 1, "file_name": f"{place}.png"}]  # its size is that of the picture
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
        picture(tmp_path / images.format(split=split, folder=Path(name).parent) / f"{place}.png")
    found = load_dataset(f"coco:{tmp_path}/{argument}")
    assert sorted(found.splits.tolist()) == sorted(files)
    assert list(rows(found).values()) == [[CAT]] * len(files) and found.skipped == ()


def test_images_of_a_coco_file_without_annotations_are_not_annotated(tmp_path: Path) -> None:
    write_coco(tmp_path, coco(one(), images=1))
    write_coco(tmp_path, {"images": [{"id": 9, "file_name": "images/9.png"}]}, "unlabelled.json")
    images = load_dataset(f"coco:{tmp_path / 'train.json'}")
    assert rows(images) == {"1.png": [CAT], "images/9.png": None}
    assert images.splits.tolist() == ["train", "train"] and images.labelled.tolist() == [True, False]


def polygon(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_coco_polygons_and_run_lengths_as_masks(tmp_path: Path) -> None:
    inner = np.zeros((40, 20), int)
    inner[10:14, 2:6] = 1
    counts = np.diff(np.flatnonzero(np.diff([-1, *inner.ravel(), -1]))).tolist()
    base = {"image_id": 1, "category_id": 7}
    content = coco(
        base | {"segmentation": polygon(4, 4, 24, 14)},
        {"image_id": 1, "category_id": 3, "segmentation": {"size": [20, 40], "counts": counts}},
        base | {"segmentation": {"size": [20, 40], "counts": [700, 100]}, "iscrowd": 1},
        {"image_id": 2, "category_id": 7, "bbox": [0, 0, 5, 5]},
    )
    images = load_dataset(f"coco-masks:{write_coco(tmp_path, content)}")
    assert images.classes == ("background", "dog", "cat")
    expected = np.zeros((20, 40), np.uint8)
    expected[:, 35:] = VOID
    expected[4:14, 4:24] = 2
    expected[2:6, 10:14] = 1  # the smaller one lies in front
    found = masks(images)
    assert np.array_equal(found.source.read(0), expected)
    assert images.labels.tolist() == [[1, 1, 1], [1, 0, 1]]
    assert (found.source.read(1)[:5, :5] == VOID).all()  # of a box alone the region is not known
    assert len(found.content()) == 64


# YOLO

YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: big dog\n"


def test_yolo_boxes_polygons_keypoints_empty_and_missing_label_files(tmp_path: Path) -> None:
    labels = {
        "train_1": "0 0.5 0.5 0.5 0.5\n\n1 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n",
        "train_2": "",
        "train_3": None,
        "val_4": "1 .5 .5 1 1 0.25",
    }
    root = write_pairs(tmp_path, "images/{}.png", "labels/{}.txt", labels)
    (root / "data.yaml").write_text(YAML)
    images = load_dataset(str(root))
    assert (images.spec, images.classes, images.skipped) == (f"yolo:{root}", ("cat", "big dog"), ())
    assert rows(images) == {
        "images/train/1.png": [("cat", (10, 5, 30, 15), 1), ("big dog", (10, 10, 20, 20), 1)],
        "images/train/2.png": [],
        "images/train/3.png": None,
        "images/val/4.png": [("big dog", (0, 0, 40, 20), 0.25)],
    }
    assert images.splits.tolist() == ["train", "train", "train", "val"]
    (root / "data.yaml").write_text(YAML + "kpt_shape: [4, 3]\n")
    (root / "labels/train/1.txt").write_text("0 .5 .5 .5 .5 .45 .45 2 .55 .45 2 .45 .55 2 .9 .9 2\n")
    assert rows(load_dataset(f"yolo:{root / 'data.yaml'}"))["images/train/1.png"] == [("cat", (10, 5, 30, 15), 1)]


@pytest.mark.parametrize(
    ("yaml", "options"),
    [
        ("train: train/images\nval: valid/images\nnc: 1\nnames: ['cat']", ""),
        ("train: ../train/images\nval: ../valid/images\nnames: ['cat']", ",train=train/images,val=valid/images"),
        ("path: /nowhere/content\ntrain: [train/images]\nval: valid/images\nnames: [cat]", ",path=."),
        ("train: train.txt\nval: valid/images\nnames: {0: cat}", ""),
    ],
)
def test_entries_of_yolo_and_options_that_replace_them(tmp_path: Path, yaml: str, options: str) -> None:
    for split in ("train", "valid"):
        write_pairs(tmp_path / split, "images/{}.png", "labels/{}.txt", {"1": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "train.txt").write_text("./train/images/1.png\n\n")
    (tmp_path / "data.yaml").write_text(yaml)
    images = load_dataset(f"yolo:{tmp_path}{options}")
    assert images.splits.tolist() == ["train", "val"] and len(boxes(images).labels) == 2


def test_yolo_folders_of_splits_and_classes_of_a_list(tmp_path: Path) -> None:
    labels = {"train_1": "0 .5 .5 .5 .5", "valid_2": "1 .5 .5 .5 .5", "train_3": "1 .5 .5 .5 .5"}
    write_pairs(tmp_path, "images/{}.png", "labels/{}.txt", labels)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    images = load_dataset(f"yolo:{tmp_path}")
    assert (images.classes, images.splits.tolist()) == (("cat", "dog"), ["train", "train", "val"])


# Pascal VOC


def thing(name: str = "cat", box: tuple[object, ...] = (11, 6, 30, 15), more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True) if box else ()
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def document(*objects: str, size: tuple[object, object] = SIZE) -> str:
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{stated}{''.join(objects)}</annotation>"


def test_voc_boxes_difficult_objects_and_images_without_a_file(tmp_path: Path) -> None:
    hard = thing("dog", (1, 1, 40, 20), "<difficult>1</difficult>")
    documents = {"a": document(thing(), hard), "b": document(), "c": None}
    write_pairs(tmp_path, "JPEGImages/{}.png", "Annotations/{}.xml", documents)
    images = load_dataset(str(tmp_path))
    assert (images.spec, images.classes, images.skipped) == (f"voc:{tmp_path}", ("cat", "dog"), ())
    assert rows(images) == {
        "JPEGImages/a.png": [("cat", (10, 5, 30, 15), 1), ("dog", (0, 0, 40, 20), 0)],
        "JPEGImages/b.png": [],
        "JPEGImages/c.png": None,
    }


def test_voc_files_beside_their_images_in_folders_of_splits(tmp_path: Path) -> None:
    documents = {f"{split}_1": document(thing(name)) for split, name in {"train": "a", "valid": "a"}.items()}
    write_pairs(tmp_path, "{}.png", "{}.xml", documents)
    images = load_dataset(f"voc:{tmp_path},images=.,annotations=.")
    assert by_key(images) == {"train/1.png": "train", "valid/1.png": "val"} and len(boxes(images).labels) == 2


@pytest.mark.parametrize(("kind", "task"), [("voc", "Main"), ("masks", "Segmentation")])
def test_lists_say_the_splits(tmp_path: Path, kind: str, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, suffix = ("Annotations", "xml") if kind == "voc" else ("SegmentationClass", "png")
    content: Any = document(thing()) if kind == "voc" else mask_bytes(np.ones(SIZE[::-1], np.uint8))
    write_pairs(tmp_path, "JPEGImages/{}.jpg", f"{folder}/{{}}.{suffix}", {**dict.fromkeys("abcd", content), "e": None})
    lists = {"trainval": "a\nb\n", "train": "a\n", "val": "b\n", "test": "c\nmissing\n"}
    (tmp_path / "ImageSets" / task).mkdir(parents=True)
    for name, text in lists.items():
        (tmp_path / f"ImageSets/{task}/{name}.txt").write_text(text)
    options = "" if kind == "voc" else ",images=JPEGImages,masks=SegmentationClass"
    images = load_dataset(f"{kind}:{tmp_path}{options}")
    expected = {"a": "train", "b": "val", "c": "test", "e": "train"}  # e is unlabelled
    assert by_key(images) == {f"JPEGImages/{name}.jpg": split for name, split in expected.items()}
    assert [(item.name, item.reason) for item in images.skipped] == [("missing", "is in a list, but has no image")]
    assert "1 annotated images are in no list of ImageSets" in " ".join(capsys.readouterr().err.split())


# Masks

NUMBERS = np.zeros((SIZE[1], SIZE[0]), np.uint8)
NUMBERS[5:15, 5:20] = 2
NUMBERS[0, 0] = VOID


def test_masks_tags_and_images_of_which_nothing_is_known(tmp_path: Path) -> None:
    mask = mask_bytes(NUMBERS)
    tagged: dict[str, bytes | None] = {f"tagged_{number}": None for number in range(3, 8)}
    write_pairs(tmp_path, "images/{}.jpg", "masks/{}.png", {"train_1": mask, "test_2": mask, **tagged})
    (tmp_path / "classes.txt").write_text("background\nskin\nhat\n")
    tags = "3,hat|skin\ntagged/4.jpg,|\n5,\n1,skin\n6,coat\n7,hat|skn\n"
    (tmp_path / "tags.csv").write_text(f"key,tags\n{tags}")
    images = load_dataset(str(tmp_path))
    assert images.spec == f"masks:{tmp_path}" and images.classes == ("background", "skin", "hat")
    assert dict(zip(images.keys, images.labels.tolist(), strict=True)) == {
        "images/train/1.jpg": [1, 0, 1],
        "images/test/2.jpg": [1, 0, 1],
        "images/tagged/3.jpg": [-1, 1, 1],
        "images/tagged/4.jpg": [-1, 0, 0],
        "images/tagged/5.jpg": [-1, -1, -1],
        "images/tagged/6.jpg": [-1, -1, -1],
        "images/tagged/7.jpg": [-1, -1, 1],  # a misspelt tag makes no class absent
    }
    assert by_key(images)["images/test/2.jpg"] == "test"
    found, row = masks(images), images.keys.index("images/train/1.jpg")
    assert found.known.sum() == 2 and np.array_equal(found.source.read(int(found.rows[row])), NUMBERS)


@pytest.mark.parametrize(
    ("numbers", "names", "classes"),
    [
        ([0, 3], None, ("0", "1", "2", "3")),
        ([0, 255], None, ("background", "foreground")),
        ([0, 255], "back\nfront\n", ("back", "front")),
    ],
)
def test_masks_without_names_and_in_black_and_white(
    tmp_path: Path, numbers: list[int], names: str | None, classes: tuple[str, ...]
) -> None:
    values = np.where(NUMBERS == 2, *numbers[::-1]).astype(np.uint8)
    write_pairs(tmp_path, "images/{}.jpg", "seg/{}.png", {"1": mask_bytes(values), "2": None})
    if names is not None:
        (tmp_path / "classes.txt").write_text(names)
    images = load_dataset(f"masks:{tmp_path},masks=seg")
    assert images.classes == classes and masks(images).known.tolist() == [True, False]
    assert set(np.unique(masks(images).pixels(20)[0]).tolist()) == {0, len(classes) - 1}


# Hugging Face


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Local sets are read without a single connection, and `datasets` writes its cache into the test's folder."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")


def hf_table(seeds: Any, columns: dict[str, list[Any]], image: str = "image", **kinds: Any) -> Table:
    pictures = [{"bytes": png(seed), "path": None} for seed in seeds]
    return Table.from_dict({image: pictures, **columns}, features=Features({image: Image(), **kinds}))


@pytest.mark.usefixtures("no_network")
def test_hf_splits_labels_by_name_and_keys(tmp_path: Path) -> None:
    kinds = {"label": ClassLabel(names=["cat", "dog"]), "key": Value("string")}
    for name, seeds, labels in (("train", [0, 1, 2], [1, 0, -1]), ("validation", [3], [0]), ("test", [4], [1])):
        columns = {"label": labels, "key": list("abc"[: len(seeds)])}
        hf_table(seeds, columns, **kinds).to_parquet(tmp_path / f"set/{name}-00000-of-00001.parquet")
    images = load_dataset(f"hf:{tmp_path / 'set'}")
    assert (images.classes, images.labels.tolist()) == (("cat", "dog"), [1, 0, NO_LABEL, 0, 1])
    assert images.splits.tolist() == ["train"] * 3 + ["val", "test"]
    assert images.keys == ("a", "b", "c", "val/a", "test/a")
    assert [images.read(i) for i in range(5)] == [png(seed) for seed in range(5)]  # bytes as they were, not re-encoded
    swapped = hf_table([9], {"label": [0]}, label=ClassLabel(names=["dog", "cat"]))
    parts = {"train": hf_table([0, 1], {"label": [1, 0]}, label=kinds["label"]), "test": swapped}
    DatasetDict(parts).save_to_disk(tmp_path / "swapped")
    images = load_dataset(f"hf:{tmp_path / 'swapped'}")
    assert (images.labels.tolist(), images.keys[2]) == ([1, 0, 1], "test/0000000")


@pytest.mark.usefixtures("no_network")
def test_hf_columns_that_the_spec_names(tmp_path: Path) -> None:
    columns = {"fine": ["dog", None, "cat"], "id": [7, 8, 9], "tags": [["x", "y"], [], None]}
    kinds = {"fine": Value("string"), "id": Value("int64"), "tags": Sequence(Value("string"))}
    data = hf_table([0, 1, 2], columns, image="img", **kinds)
    data.save_to_disk(tmp_path / "set")
    images = load_dataset(f"hf:{tmp_path / 'set'},image=img,label=fine,key=id")
    assert (images.keys, images.classes, images.labels.tolist()) == (("7", "8", "9"), ("cat", "dog"), [1, NO_LABEL, 0])
    several = load_dataset(f"hf:{tmp_path / 'set'},image=img,label=tags")
    assert (several.classes, several.labels.tolist()) == (("x", "y"), [[1, 1], [0, 0], [-1, -1]])
    assert load_dataset(f"hf:{tmp_path / 'set'},image=img,label=").classes == ()


@pytest.mark.usefixtures("no_network")
def test_tar_shards_are_read_by_their_library_and_pickled_members_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    pickled = b"cos\nmkdir\n(V" + str(tmp_path / "unpickled").encode() + b"\ntR."
    for shard, label in (("train-00", b"1"), ("train-01", b"0"), ("validation-00", b"1")):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for kind, data in {"png": png(int(label)), "cls": label, "pyd": pickled}.items():
                member = tarfile.TarInfo(f"{shard}_7.{kind}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    images = load_dataset(f"{folder},image=png,label=cls,key=__key__")
    assert (images.classes, images.labels.tolist()) == (("0", "1"), [1, 0, 1])
    assert (images.splits.tolist(), images.read(1)) == (["train", "train", "val"], png(0))
    assert len(set(images.keys)) == 3 and not (tmp_path / "unpickled").exists()


@pytest.mark.usefixtures("no_network")
def test_a_worker_process_maps_the_files_of_hf_itself(tmp_path: Path) -> None:
    hf_table(range(500), {}).save_to_disk(tmp_path / "set")
    images = load_dataset(f"hf:{tmp_path / 'set'},label=")
    assert images.read(7) == png(7)
    pickled = pickle.dumps(images.source)
    assert len(pickled) < 40_000
    shutil.rmtree(tmp_path / "hf-cache", ignore_errors=True)
    assert pickle.loads(pickled).read(7) == png(7)  # noqa: S301


@pytest.mark.usefixtures("no_network")
def test_hf_objects_of_both_forms(tmp_path: Path) -> None:
    box = List(Value("float32"), length=4)
    boxes_of = [[4, 5, 10, 10], [0, 0, 40, 20]]
    lists = Sequence({"bbox": box, "category": ClassLabel(names=["cat", "dog"]), "iscrowd": Value("bool")})
    structs = List({"where": box, "what": Value("string")})
    pictures = [{"bytes": mask_bytes(np.full(SIZE[::-1], number, np.uint8)), "path": None} for number in range(3)]
    for name, kind, cells, sizes, options in (
        ("lists", lists, [{"bbox": boxes_of, "category": [0, 1], "iscrowd": [False, True]}, None, None], {}, ""),
        (
            "structs",
            structs,
            [[{"where": [8, 10, 20, 20], "what": "cat"}, {"where": [0, 0, 80, 40], "what": "dog"}], [], None],
            {"width": [80, None, None], "height": [40, None, None]},
            ",objects=things,bbox=where,category=what",
        ),
    ):
        column = "things" if options else "objects"
        kinds = {"image": Image(), column: kind, **dict.fromkeys(sizes, Value("int64"))}
        data = Table.from_dict({"image": pictures, column: cells, **sizes}, features=Features(kinds))
        data.save_to_disk(tmp_path / name)
        found = rows(load_dataset(f"hf:{tmp_path / name}{options}"))
        weight = 1 if options else 0
        assert found["train/0000000"] == [CAT, ("dog", (0, 0, 40, 20), weight)], "of a picture that was larger"
        assert found["train/0000002"] is None


@pytest.mark.usefixtures("no_network")
def test_hf_masks(tmp_path: Path) -> None:
    numbers = np.where(NUMBERS == VOID, 0, NUMBERS)
    cells = [{"bytes": mask_bytes(numbers), "path": None}, None]
    hf_pictures = [{"bytes": mask_bytes(numbers), "path": None}] * 2
    kinds = Features({"image": Image(), "seg": Image()})
    Table.from_dict({"image": hf_pictures, "seg": cells}, features=kinds).save_to_disk(tmp_path / "set")
    images = load_dataset(f"hf:{tmp_path / 'set'},mask=seg")
    assert (images.classes, masks(images).known.tolist()) == (("0", "1", "2"), [True, False])
    assert len(masks(images).content()) == 64, "the row without a mask has no digest"


def test_a_relative_path_in_hf_starts_at_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, folder in enumerate(("set", "elsewhere")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(seed))
    cells = [{"bytes": None, "path": name} for name in ("a.png", "../elsewhere/a.png")]
    pq.write_table(pa.table({"image": cells}), tmp_path / "set" / "set.parquet")
    monkeypatch.chdir(tmp_path / "elsewhere")
    images = load_dataset("hf:../set/set.parquet,label=")
    assert images.digests == (hashlib.sha256(png(0)).hexdigest(),)
    assert "leads out" in images.skipped[0].reason
