"""Few masks: which are kept, and what each arm is told of the images that lost theirs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drawn_masks
from gpt4image.artifacts.answers import Answer, Prompt
from gpt4image.artifacts.targets import BoxLabels
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.comparing.arms import training_data
from gpt4image.comparing.compare import situation
from gpt4image.comparing.planning import Regime, make_plan
from gpt4image.config import CompareConfig, LabelConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.data import load_dataset
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import Boxes, Masks
from gpt4image.labelling.label import label
from gpt4image.tasks.classification import Classification
from gpt4image.training.prepare import prepare
from gpt4image.training.targets import check_fitting
from tables import write_store

Once = Callable[[str, Callable[[Path], Any]], Path]
NAMES = ("baseline", "asked", "oracle")


def write(root: Path) -> None:
    images = load_dataset(drawn_masks.draw(root / "set", train=36, tagged=6))
    prompt = Prompt(name="tags", version=1, text="Which?", class_conditioned=False, ask=("tags",))
    tags = [tuple(name for name in images.label_names(i) if name != "background") for i in range(len(images))]
    rows = [{"digest": images.digests[i], "answer": Answer(tags=names)} for i, names in enumerate(tags)]
    write_store(root / "tags.db", (rows[i] for i, key in enumerate(images.keys) if "tagged" not in key), prompt=prompt)


@pytest.fixture(scope="module")
def root(once: Once) -> Path:
    """A set of drawn pictures, and answers with the tags of those that have a mask."""
    return once("few-masks", write)


def answer_boxes(images: Dataset, path: Path) -> Boxes:
    """Write a store with the true boxes of the images of train that have a mask, and return them."""
    assert isinstance(images.regions, Masks)
    boxes = images.regions.around().hidden(images.splits != "train")
    prompt = Prompt(name="boxes", version=1, text="Where?", class_conditioned=False, ask=("boxes",))

    def answer(row: int) -> Answer:
        corners, labels, _ = boxes.image(row)
        found = [
            {"label": images.classes[k], "box_2d": (1000 * sides).tolist()}
            for k, sides in zip(labels, corners, strict=True)
        ]
        return Answer(boxes=tuple(found))

    rows = ({"digest": images.digests[row], "answer": answer(row)} for row in np.flatnonzero(boxes.known))
    write_store(path, rows, prompt=prompt)
    return boxes


def options(root: Path, out: Path, **changes: Any) -> CompareConfig:
    given = {"data": f"masks:{root / 'set'}", "answers": root / "tags.db", "out": out, "labelled_images": 5}
    return CompareConfig(**{**drawn_masks.SMALL, "epochs": 2, "seeds": 1, "jobs": 1, **given, **changes})


def test_answered_boxes_teach_images_that_have_no_mask(root: Path, tmp_path: Path) -> None:
    images = load_dataset(f"masks:{root / 'set'}")
    boxes = answer_boxes(images, tmp_path / "boxes.db")
    some = [row for row, key in enumerate(images.keys) if "/train/" in key and boxes.known[row]][5:]
    shutil.copytree(root / "set", tmp_path / "set")
    for row in some:
        (tmp_path / "set" / images.keys[row].replace("images", "masks")).unlink()
    shared = {"data": f"masks:{tmp_path / 'set'}", "val_fraction": 0.0}
    label(LabelConfig(**shared, task="detection", answers=tmp_path / "boxes.db", out=tmp_path / "boxes.parquet"))
    options = {**drawn_masks.SMALL, **shared, "targets": tmp_path / "boxes.parquet", "epochs": 1}
    data = prepare(TrainConfig(**options, out=tmp_path / "run")).data
    assert data.task.name == "segmentation" and data.labels.boxes is not None
    place = {key: row for row, key in enumerate(data.image_set.keys)}
    rows = np.array([place[images.keys[row]] for row in some])
    assert data.weak(rows).all() and np.array_equal(data.labels.boxes.known.nonzero()[0], np.sort(rows))
    taught, true = data.labels.boxes[rows], boxes[some]
    assert np.array_equal(taught.labels, true.labels) and np.allclose(taught.corners, true.corners, atol=2e-3)
    with pytest.raises(TableError, match="holds text labels for --task detection, this run is of classification"):
        check_fitting(
            BoxLabels.load(tmp_path / "boxes.parquet"), TrainConfig(**options, out=tmp_path), images, Classification()
        )


def test_masks_that_are_kept_are_drawn_per_seed_and_are_part_of_more(root: Path, tmp_path: Path) -> None:
    data = prepare(options(root, tmp_path)).data
    train = data.indices("train")
    few, more, other = (
        Regime(labelled_images=count).apply(data, seed).labels.known for count, seed in ((5, 0), (9, 0), (5, 1))
    )
    assert few[train].sum() == other[train].sum() == 5 and more[train].sum() == 9
    assert (more | ~few).all() and (few != other).any()
    assert np.array_equal(np.delete(few, train), np.delete(data.labels.known, train))
    assert Regime(labelled_images=5).name == "5-images" and Regime(labelled_images=5).is_label_scarce
    with pytest.raises(DataError, match="36 annotated images are asked for, but train has 3"):
        Regime(labelled_images=36).apply(data, 0)
    with pytest.raises(ConfigError, match="both say which labels are kept"):
        options(root, tmp_path, labels_per_class=2)


def test_every_arm_is_told_what_its_name_says(root: Path, tmp_path: Path) -> None:
    plan = make_plan(options(root, tmp_path, arms=",".join(NAMES)))
    assert tuple(plan.members) == NAMES
    made = [training_data(ARMS[job.arm], situation(job, plan.prepared.data)) for job in plan.jobs]
    arms = dict(zip(NAMES, made, strict=True))
    data = arms["baseline"]
    train, true = data.indices("train"), data.all_labels.presence_of_classes
    known = data.labels.known[train]
    assert known.sum() == 5 and all(
        (arm.labels.known[train] == known).all() for name, arm in arms.items() if name != "oracle"
    )
    assert arms["oracle"].labels.known[train].sum() == data.all_labels.known[train].sum()
    pools = {name: [len(part) for part in arm.pools()] for name, arm in arms.items()}
    weak = {name: int(arm.weak(arm.pools()[1]).sum()) for name, arm in arms.items()}
    asked = int((data.all_labels.known[train] & ~known).sum())
    assert weak == {"baseline": 0, "asked": asked, "oracle": 0}, "tags of images without a mask are told to no arm"
    assert pools["asked"] == [5, len(train) - 5]
    rows = train[data.all_labels.known[train] & ~known]
    told = arms["asked"].soft
    assert told is not None and ((told[rows, 1:] >= 0.5) == (true[rows, 1:] == 1)).all()


def test_arms_with_answers_learn_from_answered_boxes_too(root: Path, tmp_path: Path) -> None:
    boxes = answer_boxes(load_dataset(f"masks:{root / 'set'}"), tmp_path / "boxes.db")
    plan = make_plan(options(root, tmp_path, answers=tmp_path / "boxes.db", arms="baseline,asked"))
    arms = {job.arm: training_data(ARMS[job.arm], situation(job, plan.prepared.data)) for job in plan.jobs}
    asked, data = arms["asked"], arms["baseline"]
    assert data.labels.boxes is None
    rows = np.flatnonzero(data.image_set.splits == "train")
    rows = rows[~data.labels.known[rows] & boxes.known[rows]]
    assert np.flatnonzero(asked.labels.boxes.known).tolist() == rows.tolist()
    assert np.allclose(asked.labels.boxes[rows].corners, boxes[rows].corners, atol=2e-3)
    shown = boxes[rows].presence(asked.soft.shape[1])
    assert ((asked.soft[rows, 1:] >= 0.5) == (shown[:, 1:] == 1)).mean() > 0.95, "labels of boxes are tags"
