"""What is written as COCO, YOLO, VOC and masks is read again as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data import load_dataset
from gpt4image.data.box_files import write_coco, write_hf, write_voc, write_yolo
from gpt4image.data.regions import Boxes
from worlds import SIZE, picture

NAMES = ("train/1.png", "train/a b.png", "train/ä/1.png")
CLASSES = ("cat", "big <dog> & 'co'")
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0])


def pixel_box(draw: Any) -> list[float]:
    left, right = sorted(draw(st.lists(st.integers(0, SIZE[0]), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(st.integers(0, SIZE[1]), min_size=2, max_size=2, unique=True)))
    return [left, top, right, bottom]


@st.composite
def some_boxes(draw: Any) -> Boxes:
    """Boxes of whole pixels, no two alike, of three pictures of which some are not annotated."""
    images = []
    for _ in NAMES:
        count = draw(st.integers(0, 4))
        found = {(*pixel_box(draw), draw(st.integers(0, 1))): draw(WEIGHTS) for _ in range(count)}
        corners = np.array([key[:4] for key in found], np.float64).reshape(-1, 4) / np.tile(SIZE, 2)
        labels = np.array([key[4] for key in found], np.int64)
        weights = np.array(list(found.values()), np.float32)
        images.append((corners.astype(np.float32), labels, weights) if draw(st.integers(0, 3)) else None)
    return Boxes.of_images(images)


def require_same(found: Boxes, given: Boxes, tolerance: float) -> None:
    assert found.known.tolist() == given.known.tolist() and found.starts.tolist() == given.starts.tolist()
    assert np.abs(found.corners - given.corners).max(initial=0) < tolerance
    assert found.labels.tolist() == given.labels.tolist()
    assert np.abs(found.weights - given.weights).max(initial=0) < 1e-5


def read_again(spec: str, keys: list[str]) -> Boxes:
    """Read a dataset again, in the order of keys and with the classes numbered as given."""
    images = load_dataset(spec).with_classes(CLASSES)
    assert isinstance(images.regions, Boxes)
    return images.regions[[images.keys.index(key) for key in keys]]


def pictures(root: Path, folder: str) -> None:
    for name in NAMES:
        if not (root / folder / name).exists():
            picture(root / folder / name)


@settings(max_examples=10, deadline=None)
@given(some_boxes())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, given: Boxes) -> None:
    root = tmp_path_factory.mktemp("set")
    for folder in ("images", "voc/JPEGImages"):
        pictures(root, folder)
    keys = [f"images/{name}" for name in NAMES]
    known = np.flatnonzero(given.known)
    write_coco(root / "boxes.json", NAMES, [SIZE] * 3, given, CLASSES)
    listed = json.loads((root / "boxes.json").read_text("utf-8"))
    assert [one["file_name"] for one in listed["images"]] == [NAMES[row] for row in known]
    if len(known):
        require_same(
            read_again(f"coco:{root / 'boxes.json'},images=images", [keys[row] for row in known]), given[known], 1e-4
        )
    write_yolo(root, NAMES, given, CLASSES)
    for file in (root / "labels").rglob("*.txt"):
        require_accepted(file, len(CLASSES))
    images = load_dataset(f"yolo:{root}").with_classes(CLASSES)
    expected = given.only(given.weights > 0)
    require_same(read_again(f"yolo:{root}", keys), replace(expected, weights=np.ones_like(expected.weights)), 1e-4)
    assert write_hf(root / "table", images) == ()
    again = load_dataset(f"hf:{root / 'table'}")
    assert again.keys == images.keys and again.classes == CLASSES and again.splits.tolist() == ["train"] * 3
    assert again.digests == images.digests
    assert isinstance(again.regions, Boxes) and isinstance(images.regions, Boxes)
    require_same(again.regions, images.regions, 1e-6)
    sides = (given.corners[:, 2:] - given.corners[:, :2]) * SIZE
    given = given.only(sides.sum(axis=1) > 2.5)  # a single pixel grows in VOC: see below
    write_voc(root / "voc", NAMES, [SIZE] * 3, given, CLASSES)
    if len(known):
        require_same(read_again(f"voc:{root / 'voc'}", [f"JPEGImages/{name}" for name in NAMES]), given, 1e-4)


def require_accepted(file: Path, classes: int) -> None:
    """Hold the rules of ``verify_image_label`` in ultralytics/data/utils.py, version 8.3, for files of boxes."""
    rows = [line.split() for line in file.read_text().strip().splitlines()]
    if rows:
        assert not any(len(row) > 6 for row in rows), "it would be read as a polygon"
        values = np.array(rows, np.float32)
        assert values.shape[1] == 5
        assert values[:, 1:].max() <= 1 and values.min() >= 0
        assert values[:, 0].max() < classes
        assert len(np.unique(values, axis=0)) == len(values), "a box comes twice"


def test_a_table_of_datasets_has_its_splits_and_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    names = ["train/1.png", "train/2.png", "valid/1.png"]
    for name in names:
        picture(tmp_path / "images" / name)
    boxes = Boxes.of_images([(np.array([[0, 0, 0.5, 0.5]], np.float32), np.array([1]), np.ones(1, np.float32))] * 3)
    write_yolo(tmp_path, names, boxes, CLASSES)
    images = load_dataset(f"yolo:{tmp_path}")
    (tmp_path / "images" / names[1]).write_bytes(b"broken")
    (skipped,) = write_hf(tmp_path / "table", images)
    assert skipped.name == "images/train/2.png"
    published: Any = datasets.load_dataset(str(tmp_path / "table"))
    assert {name: part["key"] for name, part in published.items()} == {
        "train": ["images/train/1.png"],
        "validation": ["images/valid/1.png"],
    }
    (row,) = published["train"]
    assert row["image"].size == SIZE == (row["width"], row["height"])
    assert row["objects"] == [{"bbox": [0, 0, 20, 10], "category": 1, "iscrowd": False, "score": None}]
    with pytest.raises(OSError, match=r"data"):
        write_hf(tmp_path / "table", images)
    with pytest.raises(DataError, match=r"has no boxes"):
        write_hf(tmp_path / "other", replace(images, regions=None))


def test_lines_stay_boxes_in_voc_and_a_single_pixel_gets_a_second_one(tmp_path: Path) -> None:
    pixels = [[2, 3, 3, 9], [2, 3, 8, 4], [5, 6, 6, 7], [SIZE[0] - 1, SIZE[1] - 1, *SIZE]]
    corners = (np.array(pixels) / np.tile(SIZE, 2)).astype(np.float32)
    picture(tmp_path / "JPEGImages/1.png")
    boxes = Boxes.of_images([(corners, np.zeros(4, np.int64), np.ones(4, np.float32))])
    write_voc(tmp_path, ["1.png"], [SIZE], boxes, ["cat"])
    found = load_dataset(f"voc:{tmp_path}")
    assert isinstance(found.regions, Boxes) and found.skipped == ()
    again = (found.regions.corners * np.tile(SIZE, 2)).round(2).tolist()
    assert again == [*pixels[:2], [5, 6, 7, 7], [SIZE[0] - 2, SIZE[1] - 1, *SIZE]]


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "", "a\\1.png", "a\0.png"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    nothing = Boxes.of_images([(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))])
    for write in (
        lambda: write_yolo(tmp_path / "out", [name], nothing, CLASSES),
        lambda: write_voc(tmp_path / "out", [name], [SIZE], nothing, CLASSES),
    ):
        with pytest.raises(DataError, match=r"is no path below a folder|control characters"):
            write()
    with pytest.raises(DataError, match=r"'1.jpg' and another key differ only in their ending"):
        write_yolo(tmp_path / "out", ["1.png", "1.jpg"], Boxes.of_images([nothing.image(0)] * 2), CLASSES)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    (tmp_path / "mine/labels").mkdir(parents=True)
    (tmp_path / "mine/labels/mine.txt").write_text("mine")
    with pytest.raises(OSError, match=r"labels"):
        write_yolo(tmp_path / "mine", ["1.jpg"], nothing, CLASSES)
