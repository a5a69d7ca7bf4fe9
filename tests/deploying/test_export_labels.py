"""Labels that other programs read: each format goes around by its own reader."""

import csv
import errno
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

import gpt4image
from deploying.small_models import small_model
from gpt4image.artifacts.targets import BoxLabels, Facts, load_targets
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.regions import Boxes
from tables import made_of

resource = pytest.importorskip("resource", reason="POSIX alone bounds the size of files")
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
    facts, human = Facts(task="detection", classes=CLASSES), np.zeros(len(images), np.bool_)
    BoxLabels(keys=images.keys, digests=tuple(images.digests), boxes=found, human=human, facts=facts).save(path)
    return path


def with_held_out(folder: Path, kind: str) -> str:
    """Write six images: three of train with a target, one without, and one of val and test each, which have labels."""
    column = {"classification": "label", "multilabel": "labels", "boxes": "boxes"}[kind]
    given = {"classification": "cat", "multilabel": "cat|dog", "boxes": '[["cat", 0.25, 0.2, 0.75, 0.6]]'}[kind]
    rows = [("path", column, "split")]
    for number, split in enumerate(("train", "train", "train", "train", "val", "test")):
        (folder / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), (40 * number, 0, 0)).save(folder / "photos" / f"{number}.png")
        rows.append((f"photos/{number}.png", given if number > 2 else "", split))
    with (folder / "given.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return f"manifest:{folder / 'given.csv'}"


def content(data: Dataset) -> dict[str, Any]:
    """Return the split and the label of each image by its digest; sides of boxes in tenths."""
    if isinstance(data.regions, Boxes):
        names = [[(data.classes[k], *(c * 10).round().astype(int).tolist()) for c, k, _ in
                  zip(*data.regions.image(row), strict=True)] for row in range(len(data))]  # fmt: skip
    else:
        names = [sorted(data.label_names(row)) for row in range(len(data))]
    return {digest: (data.splits[row], names[row]) for row, digest in enumerate(data.digests)}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("classification", name) for name in ("csv", "folder", "hf", "label-studio")),
        *(("multilabel", name) for name in ("csv", "hf", "label-studio")),
        *(("boxes", name) for name in ("csv", "coco", "yolo", "voc", "hf", "label-studio")),
    ],
)
def test_labels_come_back_from_every_format_elsewhere(tmp_path: Path, kind: str, name: Any) -> None:
    """People's labels of val and test go along; the images lie beside what is written, not in another folder."""
    if name == "hf":
        pytest.importorskip("datasets", reason="the extra hf")
    data, out = with_held_out(tmp_path, kind), tmp_path / "elsewhere" / "labels"
    file = boxes(data, tmp_path / "t.parquet") if kind == "boxes" else targets(data, tmp_path / "t.parquet", kind)
    out = out.with_suffix({"csv": ".csv", "label-studio": ".json"}.get(name, ""))
    found = gpt4image.export_labels(data=data, targets=file, format=name, out=out)
    assert (found.images, found.human_labels, found.left_out) == (6, 3, 0)
    if name == "label-studio":  # as it exports tasks whose predictions were accepted
        tasks = json.loads(out.read_text(encoding="utf-8"))
        out.write_text(json.dumps([{"annotations": task.get("predictions"), **task} for task in tasks]), "utf-8")
        values = [one.get("value") for one in ElementTree.parse(out.with_suffix(".xml")).iter() if one.tag != "Image"]
        assert [value for value in values if value] == [*CLASSES]
    (tmp_path / "photos").rename(tmp_path / "gone")
    again = load_dataset(f"{ {'csv': 'manifest'}.get(name, name) }:{out}")
    said = {"boxes": ([("dog", 1, 2, 5, 8)], [], [("dog", 1, 2, 5, 8)]), "classification": (["cat"], ["dog"], ["cat"])}
    of_targets = said.get(kind, (["cat"], ["dog"], ["cat", "dog"]))
    of_people = {"boxes": [("cat", 2, 2, 8, 6)], "classification": ["cat"]}.get(kind, ["cat", "dog"])
    digests = [hashlib.sha256((tmp_path / "gone" / f"{n}.png").read_bytes()).hexdigest() for n in range(6)]
    splits, labels = ("train", "train", "train", "train", "val", "test"), (*of_targets, *[of_people] * 3)
    assert content(again) == dict(zip(digests, zip(splits, labels, strict=True), strict=True))


@pytest.mark.parametrize("held_out", [False, True])
def test_trainers_of_yolo_find_every_path_of_data_yaml(photos: str, tmp_path: Path, held_out: bool) -> None:
    data = with_held_out(tmp_path, "boxes") if held_out else photos
    file = boxes(data, tmp_path / "b.parquet")
    gpt4image.export_labels(data=data, targets=file, format="yolo", out=tmp_path / "yolo")
    settings = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    places = {name: settings.pop(name) for name in ("train", "val", "test") if name in settings}
    assert [*places] == (["train", "val", "test"] if held_out else ["train", "val"])
    assert all(any((tmp_path / "yolo" / place).glob("*.png")) for place in places.values())
    assert settings == {"names": dict(enumerate(CLASSES))}


def test_labels_less_sure_are_left_out_and_images_below_stay_where_they_are(photos: str, tmp_path: Path) -> None:
    file = targets(photos, tmp_path / "t.parquet", "classification")
    common: dict[str, Any] = {"data": photos, "targets": file, "least_confidence": 0.7}
    found = gpt4image.export_labels(**common, format="csv", out=tmp_path / "labels.csv")
    assert (found.images, found.left_out) == (2, 2), "one is less sure, one has no target"
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["path"] for row in csv.DictReader(lines)] == ["photos/unlabelled/0.png", "photos/unlabelled/1.png"]


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
    own, again = load_targets(file), load_dataset(f"{format_}:{tmp_path / 'out'}")
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


@pytest.mark.parametrize("form", ["csv", "label-studio", "coco", "folder", "hf", "voc", "yolo"])
def test_a_full_disk_is_named_leaves_nothing_and_the_same_command_goes_on(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", other_disk)  # so that pictures are copied
    file = targets(photos, tmp_path / "t.parquet", "classification")
    file = boxes(photos, tmp_path / "b.parquet") if form in ("coco", "voc", "yolo") else file
    common: dict[str, Any] = {"data": photos, "targets": file, "format": form, "out": tmp_path / "new" / "out"}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            gpt4image.export_labels(**common)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(full.value.filename).startswith(str(tmp_path / "new"))
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []
    assert gpt4image.export_labels(**common).images == (4 if form == "label-studio" else 3)


@pytest.mark.parametrize(("form", "name"), [("voc", "cat\x07"), ("voc", "a\nb"), ("folder", "a\0b"), ("folder", "a/b")])
def test_a_class_whose_name_the_format_cannot_hold_is_refused(
    photos: str, tmp_path: Path, form: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CLASSES", (name, "dog"))
    file = tmp_path / "t.parquet"
    file = boxes(photos, file) if form == "voc" else targets(photos, file, "classification")
    with pytest.raises(DataError, match=re.escape(repr(name))):
        gpt4image.export_labels(data=photos, targets=file, format=form, out=tmp_path / "new" / "out")
    assert [*(tmp_path / "new").iterdir()] == []


@pytest.mark.parametrize("task", ["classification", "multilabel", "detection", "segmentation"])
def test_a_model_labels_new_images_for_people_to_correct(tmp_path: Path, task: str) -> None:
    """An image of none of the classes, and one that is not sure enough, is a task without a prediction."""
    model = small_model(tmp_path / "model", task, share=0.5 if task == "classification" else None)
    (tmp_path / "photos").mkdir()
    for colour in ("red", "lime", "black"):
        Image.new("RGB", (40, 40), colour).save(tmp_path / "photos" / f"{colour}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    out: dict[str, Any] = {"data": f"folder:{tmp_path / 'photos'}", "model": model, "least_confidence": 0.75}
    if task == "segmentation":
        with pytest.raises(ConfigError, match="masks cannot be written") as refused:
            gpt4image.export_labels(**out, format="label-studio", out=tmp_path / "tasks.json")
        assert refused.value.field == "model" and not (tmp_path / "tasks.json").exists()
        return
    found = gpt4image.export_labels(**out, format="label-studio", out=tmp_path / "tasks.json")
    assert [item.name for item in found.skipped] == ["broken.png"]
    told: dict[str, list[Any]] = {}
    for one in json.loads((tmp_path / "tasks.json").read_text("utf-8")):
        values = [each["value"] for said in one["predictions"] for each in said["result"]]
        told[one["data"]["key"]] = [values[0].get("choices") or values[0]["rectanglelabels"]] if values else []
    expected = {"classification": [["red"], ["green"], []], "multilabel": [["red"], ["green"], []]}
    assert [told[f"{name}.png"] for name in ("red", "lime", "black")] == [
        [each] if each else [] for each in expected.get(task, [["red"]] * 3)
    ]
    if task == "detection":  # of the two that overlap the better one, and the third is less sure
        gpt4image.export_labels(**out | {"least_confidence": 0.0}, format="coco", out=tmp_path / "coco")
        again = load_dataset(f"coco:{tmp_path / 'coco'}")
        assert isinstance(again.regions, Boxes) and np.diff(again.regions.starts).tolist() == [2, 2, 2]


def test_either_targets_or_a_model_is_written(tmp_path: Path) -> None:
    for both in ({}, {"targets": tmp_path / "a", "model": tmp_path / "b"}):
        with pytest.raises(ConfigError) as refused:
            gpt4image.export_labels(data="folder:photos", format="csv", out=tmp_path / "c", **both)  # pyright: ignore
        assert refused.value.field == "targets"
