"""Folders in the layout of Ultralytics: entries of data.yaml, lines of labels, what is dropped and named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import load_dataset
from region_cases import aside_text, boxes, picture, rows, write_pairs

YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: big dog\n"


def write(root: Path, yaml: str | None = YAML, **labels: str | None) -> Path:
    write_pairs(root, "images/{}.png", "labels/{}.txt", labels)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def test_boxes_polygons_empty_and_missing_label_files(tmp_path: Path) -> None:
    polygon = "1 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n"
    root = write(
        tmp_path, train_1="0 0.5 0.5 0.5 0.5\n\n" + polygon, train_2="", train_3=None, val_4="1 .5 .5 1 1 0.25"
    )
    images = load_dataset(f"yolo:{root}")
    assert images.classes == ("cat", "big dog")
    assert rows(images) == {
        "images/train/1.png": [("cat", (10, 5, 30, 15), 1), ("big dog", (10, 10, 20, 20), 1)],
        "images/train/2.png": [],
        "images/train/3.png": None,
        "images/val/4.png": [("big dog", (0, 0, 40, 20), 0.25)],
    }
    assert images.splits.tolist() == ["train", "train", "train", "val"]
    assert images.skipped == ()
    assert load_dataset(str(root)).spec == f"yolo:{root}"
    assert load_dataset(f"yolo:{root / 'data.yaml'}").keys == images.keys


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']",
        "path: /nowhere/content\ntrain: [train/images]\nval: valid/images\nnames: [cat]",
        "train: train.txt\nval: valid/images\nnames: {0: cat}",
    ],
)
def test_entries_as_other_tools_write_them(tmp_path: Path, yaml: str) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "images/1.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels/1.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "train.txt").write_text("./train/images/1.png\n\n../outside.png\n")
    (tmp_path / "data.yaml").write_text(yaml)
    images = load_dataset(f"yolo:{tmp_path}")
    assert images.splits.tolist() == ["train", "val"] and len(boxes(images).labels) == 2
    assert ("outside.png cannot be found" in aside_text(images)) == ("train.txt" in yaml)


def test_keypoints_and_folders_that_are_the_splits(tmp_path: Path) -> None:
    lines = ("0 .5 .5 .5 .5 .45 .45 2 .55 .45 2 .45 .55 2 .9 .9 2\n", "1 .5 .5 1 1 .1 .1 .9 .9\n", "0 .5 .5 .5 .5\n")
    labels = dict(zip(("train_1", "train_2", "train_3"), lines, strict=True))
    root = write(tmp_path / "points", YAML + "kpt_shape: [4, 3]\n", **labels)
    cat, dog = [("cat", (10, 5, 30, 15), 1)], [("big dog", (0, 0, 40, 20), 1)]
    assert list(rows(load_dataset(f"yolo:{root}")).values()) == [cat, dog, cat]
    root = write(tmp_path / "bare", None, train_1="0 .5 .5 .5 .5", valid_2="1 .5 .5 .5 .5", train_3="1 .5 .5 .5 .5")
    images = load_dataset(f"yolo:{root}")
    assert (images.classes, images.splits.tolist()) == (("0", "1"), ["train", "train", "val"])
    for file, names in (("labels/classes.txt", ("cat", "dog")), ("classes.txt", ("hat", "cap"))):
        (root / file).write_text("\n".join(names))
        assert load_dataset(f"yolo:{root}").classes == names


def test_bad_lines_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    values = ["0.5 0.5 0.5", "0.5 0.5 0.5 0.5 0.5 0.5 0.5", "nan 0.5 0.5 0.5", "0.1 0.2 nan 0.2 0.3 0.4"]
    lines = ["0 0.5 0.5 0.5 0.5", *(f"0 {each}" for each in values)]
    lines += [f"{label} 0.5 0.5 0.5 0.5" for label in ("x", "7", "-1", "0.5", "1e9", "0")]
    root = write(tmp_path, train_1="\n".join(lines), train_2="0 .5 .5 .5 .5")
    (root / "labels/train/2.txt").write_bytes(b"\xff\xfe0 0 0")
    images = load_dataset(f"yolo:{root}")
    assert rows(images) == {"images/train/1.png": [("cat", (10, 5, 30, 15), 1)], "images/train/2.png": None}
    text = aside_text(images)
    for reason, places in {
        "it has not 5 values: class, x, y, width, height": (2, 3),
        "a coordinate is missing or no number": (4, 5),
        "a value is no number": (6,),
        "its class number has no name": (7,),
        "its class is no number from 0 on": (8, 9, 10),
        "the box is listed twice": (11,),
    }.items():
        assert f"{reason}: {', '.join(repr(f'images/train/1.png, line {place}') for place in places)}" in text, text
    assert "the label file cannot be read (UnicodeDecodeError): '2.txt'" in text


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("names: [a\n", r"no YAML that can be read"),
        ("[1, 2]", r"has no entries"),
        ("names: [a]\n#" + "x" * 1_000_000, r"more than the allowed 1,?000,?000"),
        ("!!python/object/apply:os.system ['touch', 'ran']", r"has no entries"),
        ("train: ../../etc\nnames: [a]", r"is no folder or list below"),
        ("train: images/train\nnames: [a, a]", r"a class name comes twice: 'a'"),
        ("train: images/train\nnames: {0: a, 2: b}", r"not numbered 0 to 1"),
        ("train: images/train\nnames: {a: b}", r"not numbered"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\ntrain: images/train", r"no list of class names"),
        ('names: ["a\\ud800"]', "half a character"),
    ],
)
def test_a_data_yaml_that_is_wrong_or_costs_minutes_is_refused(tmp_path: Path, yaml: str, reason: str) -> None:
    write(tmp_path / "set/inner", yaml, train_1="")
    start = time.process_time()
    with pytest.raises(DataError, match=reason):
        load_dataset(f"yolo:{tmp_path / 'set/inner'}")
    assert time.process_time() - start < 5 and not Path("ran").exists()


def test_class_numbers_that_begin_at_1_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, train_1="1 0.5 0.5 0.5 0.5", train_2="2 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError, match=r"the numbers go from 1 to 2, which has no name"):
        load_dataset(f"yolo:{root}")
