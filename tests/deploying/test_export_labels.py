"""Labels that other programs read: each format goes around by its own reader."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import gpt4image
from gpt4image.artifacts.targets import BoxLabels
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from tables import made_of

CLASSES = ("cat", "dog")
SHARES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.6]], np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for number in range(4):
        place = tmp_path / "photos" / "unlabelled" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (60 * number, 0, 0)).save(place)
    return f"folder:{tmp_path / 'photos'}"


def targets(data: str, path: Path, task: str) -> Path:
    """Write targets of three of the four images."""
    images = load_dataset(data).select([0, 1, 2])
    shares = SHARES if task == "multilabel" else SHARES / SHARES.sum(axis=1, keepdims=True)
    made_of(images, CLASSES, shares, task).save(path)
    return path


def boxes(data: str, path: Path) -> Path:
    images = load_dataset(data).select([0, 1, 2])
    one = (np.array([[0.1, 0.2, 0.5, 0.8]], np.float32), np.array([1]), np.array([0.75], np.float32))
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    found = Boxes.of_images([one, none, one])
    BoxLabels(keys=images.keys, digests=tuple(images.digests), boxes=found, classes=CLASSES).save(path)
    return path


def test_a_class_per_image_goes_around_in_every_format(photos: str, tmp_path: Path) -> None:
    file = targets(photos, tmp_path / "t.parquet", "classification")
    common: dict[str, Any] = {"data": photos, "targets": file, "least_confidence": 0.7}
    found = gpt4image.export_labels(**common, format="csv", out=tmp_path / "labels.csv")
    assert (found.images, found.left_out) == (2, 2), "one is less sure, one has no target"
    table = load_dataset(f"manifest:{tmp_path / 'labels.csv'}")
    assert [table.label_names(row) for row in range(2)] == [("cat",), ("dog",)]
    assert set(table.digests) == set(load_dataset(photos).digests[:2])
    gpt4image.export_labels(**common, format="folder", out=tmp_path / "classes")
    assert {path.relative_to(tmp_path / "classes").as_posix() for path in (tmp_path / "classes").rglob("*.png")} == {
        "train/cat/unlabelled__0.png", "train/dog/unlabelled__1.png"
    }  # fmt: skip
    gpt4image.export_labels(**common, format="label-studio", out=tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks] == [["cat"], ["dog"]]
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/unlabelled/0.png"


def test_tables_hold_several_classes_and_those_of_datasets_the_pictures(photos: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf")
    found: list[Any] = []
    for task in ("classification", "multilabel"):
        file = targets(photos, tmp_path / f"{task}.parquet", task)
        gpt4image.export_labels(data=photos, targets=file, format="hf", out=tmp_path / task)
        table = str(tmp_path / task / "data" / "train.parquet")
        found.append(datasets.Dataset.from_parquet(table, cache_dir=str(tmp_path / "cache")))
    one, several = found
    assert one["label"][:] == [0, 1, 0] and one.features["label"].names == list(CLASSES)
    gpt4image.export_labels(data=photos, targets=file, format="csv", out=tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["labels"] for row in csv.DictReader(lines)] == ["cat", "dog", "cat|dog"]
    assert several["labels"][:] == [[0], [1], [0, 1]] and one[0]["image"].size == (20, 10)


def test_boxes_go_around_in_every_format(photos: str, tmp_path: Path) -> None:
    file = boxes(photos, tmp_path / "boxes.parquet")
    for name, out in (("coco", "coco.json"), ("yolo", "yolo"), ("voc", "voc")):
        found = gpt4image.export_labels(data=photos, targets=file, format=name, out=tmp_path / out)
        assert (found.images, found.boxes, found.left_out) == (3, 2, 1)
        again = load_dataset(f"{name}:{tmp_path / out}")
        assert isinstance(again.regions, Boxes) and again.regions.known.sum() == 3
        place = list(again.digests).index(load_dataset(photos).digests[0])
        corners, labels, _ = again.regions.image(place)
        assert corners[0] == pytest.approx([0.1, 0.2, 0.5, 0.8], abs=0.06) and again.classes[labels[0]] == "dog"
    gpt4image.export_labels(data=photos, targets=file, format="label-studio", out=tmp_path / "tasks.json")
    value = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))[0]["predictions"][0]["result"][0]["value"]
    assert value["rectanglelabels"] == ["dog"] and value["width"] == pytest.approx(40)
    gpt4image.export_labels(data=photos, targets=file, format="csv", out=tmp_path / "boxes.csv", least_confidence=0.8)
    assert len((tmp_path / "boxes.csv").read_text(encoding="utf-8").splitlines()) == 1, "only the heading"


@pytest.mark.parametrize("format_", ["yolo", "voc"])
def test_images_that_differ_only_in_their_ending_keep_their_own_boxes(
    tmp_path: Path, format_: Literal["yolo", "voc"]
) -> None:
    data = f"folder:{tmp_path / 'photos'}"
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a.png", "a.bmp", "a_.png")):
        Image.new("RGB", (20, 10), (60 * number, 0, 0)).save(tmp_path / "photos" / name)
    file = boxes(data, tmp_path / "b.parquet")
    gpt4image.export_labels(data=data, targets=file, format=format_, out=tmp_path / "out")
    own, again = BoxLabels.load(file), load_dataset(f"{format_}:{tmp_path / 'out'}")
    assert isinstance(again.regions, Boxes) and sorted(again.digests) == sorted(own.digests)
    assert np.diff(again.regions.starts).tolist() == np.diff(own.by_digest(again.digests).starts).tolist()


def test_what_cannot_be_written_is_named_before_anything_is(photos: str, tmp_path: Path) -> None:
    file = targets(photos, tmp_path / "t.parquet", "classification")
    with pytest.raises(ConfigError, match=r"cannot hold targets of classification; give one of csv"):
        gpt4image.export_labels(data=photos, targets=file, format="yolo", out=tmp_path / "new")
    with pytest.raises(ConfigError, match="exists already"):
        gpt4image.export_labels(data=photos, targets=file, format="csv", out=file)
    with pytest.raises(DataError, match=r"no image .* has a target of 1 or more"):
        gpt4image.export_labels(data=photos, targets=file, format="csv", out=tmp_path / "new", least_confidence=1)
    assert not (tmp_path / "new").exists()
