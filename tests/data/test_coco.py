"""COCO files: splits, classes, what is dropped and named, and masks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.base.errors import DataError
from gpt4image.data import load_dataset
from gpt4image.data.coco import encoded
from gpt4image.data.regions import VOID
from region_cases import aside_text, boxes, coco, masks, picture, rows, write_coco_set


def one(image: int = 1, category: int = 7, bbox: Any = (4, 5, 10, 10), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox)} | more


def test_boxes_classes_by_id_crowds_and_images_without_objects(tmp_path: Path) -> None:
    crowd, unsure = one(category=3, bbox=(0, 0, 40, 20), iscrowd=1), one(bbox=(1, 1, 2, 2), score=0.25)
    unsure |= {"image_id": "1", "category_id": "7"}  # as some tools mix them
    images = load_dataset(f"coco:{write_coco_set(tmp_path, coco(one(), crowd, unsure, one(2, ignore=1), images=3))}")
    assert images.classes == ("dog", "cat")
    assert rows(images) == {
        "1.png": [("cat", (4, 5, 14, 15), 1), ("dog", (0, 0, 40, 20), 0), ("cat", (1, 1, 3, 3), 0.25)],
        "2.png": [("cat", (4, 5, 14, 15), 0)],
        "3.png": [],
    }
    assert images.labels.tolist() == [[-1, 1], [0, -1], [0, 0]] and images.skipped == ()
    assert images.read(0) == (tmp_path / "1.png").read_bytes()


def test_images_lie_in_a_folder_with_the_word_of_the_name_of_their_file(tmp_path: Path) -> None:
    for word, folder in (("default", "images/default"), ("unlabeled2017", "unlabeled2017"), ("unlabelled", "train")):
        content = coco(one(), images=0) | {"images": [{"id": 1, "file_name": "1.png"}]}
        for place in (folder, "val"):
            picture(tmp_path / word / place / "1.png")
        (tmp_path / word / "annotations").mkdir()
        (tmp_path / word / f"annotations/instances_{word}.json").write_text(json.dumps(content))
        images = load_dataset(f"coco:{tmp_path / word}/annotations/instances_{word}.json")
        assert (images.keys, images.splits.tolist()) == ((f"{folder}/1.png",), ["train"])


@pytest.mark.parametrize(
    ("train", "others", "argument"),
    [
        ("train.json", ["val.json", "test.json"], "train.json"),
        ("annotations/instances_train2017.json", ["annotations/instances_val2017.json"], "."),
        ("train/_annotations.coco.json", ["valid/_annotations.coco.json", "test/_annotations.coco.json"], "."),
    ],
)
def test_the_file_of_train_brings_other_splits(tmp_path: Path, train: str, others: list[str], argument: str) -> None:
    splits = ["train", "val", "test"][: len(others) + 1]
    for place, (name, split) in enumerate(zip([train, *others], splits, strict=True)):
        content = coco(one(10 * place + 1), images=0)
        content["images"] = [{"id": 10 * place + 1, "file_name": f"{place}.png", "width": 40, "height": 20}]
        folder = (tmp_path / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "captions.json" if folder.name == "annotations" else tmp_path / "notes.json").write_text("{}")
        (tmp_path / name).write_text(json.dumps(content))
        picture((tmp_path / f"{split}2017" if folder.name == "annotations" else folder) / f"{place}.png")
    images = load_dataset(f"coco:{tmp_path / argument}")
    assert sorted(images.splits.tolist()) == sorted(splits)
    assert len(boxes(images).labels) == len(images) and images.skipped == ()
    assert load_dataset(f"coco:{tmp_path / others[0]}").splits.tolist() == ["val"]


def test_images_of_a_file_without_annotations_are_not_annotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco_set(tmp_path, coco(one(), images=1))
    more = coco(images=0)
    del more["annotations"]
    more["images"] = [{"id": 9, "file_name": "images/9.png"}]
    write_coco_set(tmp_path, more, "unlabelled.json")
    images = load_dataset(f"coco:{tmp_path / 'train.json'}")
    assert rows(images) == {"1.png": [("cat", (4, 5, 14, 15), 1)], "images/9.png": None}
    assert images.splits.tolist() == ["train", "train"]
    assert images.labelled.tolist() == [True, False]
    picture(tmp_path / "images" / "copied.png")
    load_dataset(f"coco:{tmp_path / 'train.json'}")
    assert "1 images beside those that it lists, such as 'images/copied.png', are left out" in capsys.readouterr().err


def test_what_cannot_be_used_is_named_and_costs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = ((50, 5, 5, 5), (5, 5, 0, 5), (5, 5, float("nan"), 5), (1, 2, 3), ("a", None, {}, True), (10**400, 5, 5, 5))
    broken = [*(one(bbox=box) for box in boxes), one(category=99), one(category=[7]), one(image=55), one(image={})]
    content = coco(one(), *broken, {"image_id": 1, "category_id": 7}, one(), one(2, bbox=(30, 10, 100, 100)))
    content["annotations"] += ["text", None, 5]
    names = {1: "other.png", 8: "../outside.png", 9: "/etc/passwd", 10: "missing.png"}
    content["images"] += [*({"id": number, "file_name": name} for number, name in names.items()), {"id": 11}, "text"]
    content["categories"] += [{"id": 5}, "text", {"id": [], "name": "x"}]
    root = tmp_path / "set"
    file = write_coco_set(root, content)
    (root / "missing.png").unlink()
    picture(tmp_path / "outside.png")
    images = load_dataset(f"coco:{file}")
    assert rows(images) == {"1.png": [("cat", (4, 5, 14, 15), 1)], "2.png": [("cat", (30, 10, 40, 20), 1)]}
    text = aside_text(images)
    for part in (
        "the box is outside of its picture: '1.png, annotation 2'",
        "the box has no area: xmax <= xmin or ymax <= ymin: '1.png, annotation 3'",
        "a coordinate is missing or no number: '1.png, annotation 4'",
        "its category is not listed: '1.png, annotation 8'",
        "of an image that is not listed, or that was skipped",
        "the box is listed twice: '1.png, annotation 13'",
        "it is no table",
        "other.png has the id 1, which is none, or that of another image",
        "../outside.png leads out of the folder",
        "missing.png cannot be found",
        "it has no id or no name",
    ):
        assert part in text, text
    assert "/etc/passwd" in {item.name for item in images.skipped}
    told = " ".join(capsys.readouterr().err.split())
    assert "1 boxes reach beyond their picture and were cut: '2.png, annotation 14'" in told


def polygon(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_of_a_damaged_segment_the_box_counts_for_nothing_and_its_class_is_not_absent(tmp_path: Path) -> None:
    damaged = [[0, 0, 20, 0, 20, 10, 0, None]]
    whole = one(1, 3, (30, 10, 10, 10), segmentation=polygon(30, 10, 40, 20))
    lost = one(2, 7, (90, 0, 5, 5), segmentation=damaged)
    content = coco(one(1, 7, (0, 0, 20, 10), segmentation=damaged), whole, lost, whole | {"image_id": 2})
    content["images"] += [{"id": 3, "file_name": "3.png"}, {"id": 4, "file_name": "4.png"}]
    content["annotations"].append(lost | {"image_id": 3})
    for name in ("3.png", "4.png"):
        picture(tmp_path / name)
    images = load_dataset(f"coco-masks:{write_coco_set(tmp_path, content)}")
    expected = np.zeros((20, 40), np.uint8)
    expected[10:, 30:] = 1
    assert np.array_equal(masks(images).source.read(1), expected)
    expected[:10, :20] = VOID
    assert np.array_equal(masks(images).source.read(0), expected)
    assert images.labels.tolist() == [[1, 1, 1], [1, 1, -1], [-1, -1, -1], [1, 0, 0]]
    assert masks(images).known.tolist() == [True, True, False, True], "an image that lost all it had is not annotated"
    assert "three corners, each two numbers: '1.png, annotation 1', '2.png, annotation 3'" in aside_text(images)


def test_polygons_and_run_lengths_as_masks(tmp_path: Path) -> None:
    inner = np.zeros((40, 20), int)
    inner[10:14, 2:6] = 1
    counts = np.diff(np.flatnonzero(np.diff([-1, *inner.ravel(), -1]))).tolist()
    bad = [
        *({"size": size, "counts": [10**12]} for size in ([20, 40], [20, 10**400])),
        *({"size": [20, 40], "counts": text} for text in ("\u00e9~~~~", "zzzzzzzzzzz")),
        *({"size": [30, 40], "counts": [1100, 100]}, [[1, 2, 3, 4]], [[1, 2, 3, 4, float("inf"), 5]]),
    ]
    base = {"image_id": 1, "category_id": 7}
    content = coco(
        base | {"segmentation": polygon(4, 4, 24, 14)},
        {"image_id": 1, "category_id": 3, "segmentation": {"size": [20, 40], "counts": counts}},
        base | {"segmentation": {"size": [20, 40], "counts": [700, 100]}, "iscrowd": 1},
        *(base | {"segmentation": each} for each in bad),
        {"image_id": 2, "category_id": 7, "bbox": [0, 0, 5, 5]},
    )
    file = write_coco_set(tmp_path, content)
    images = load_dataset(f"coco-masks:{file}")
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
    for part in ("of another size than its picture", "cannot be read", "three corners"):
        assert part in aside_text(images)


def test_no_file_or_another_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"no list 'images'"):
        load_dataset(f"coco:{tmp_path / 'a.json'}")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DataError, match=r"cannot be told, of 'a.json', 'b.json'"):
        load_dataset(f"coco:{tmp_path}")
    (tmp_path / "a.json").write_text(json.dumps(coco(one())))
    with pytest.raises(DataError, match=r"none of its images can be found"):
        load_dataset(f"coco:{tmp_path / 'a.json'}")
    names = [{"id": n, "name": f"c{n}"} for n in range(255)]
    with pytest.raises(DataError, match=r"up to 255"):
        load_dataset(f"coco-masks:{write_coco_set(tmp_path, coco(categories=names), 'many.json')}")
    with pytest.raises(DataError, match=r"the name '\\ud800' holds half a character"):
        load_dataset(f"coco:{write_coco_set(tmp_path, coco(categories=[{'id': 1, 'name': chr(0xD800)}]), 'half.json')}")


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
def test_bombs_are_refused_at_once(value: object, size: tuple[float, float], reason: str) -> None:
    start = time.process_time()
    found = encoded(value, size)
    assert isinstance(found, str) and reason in found
    assert time.process_time() - start < 1
