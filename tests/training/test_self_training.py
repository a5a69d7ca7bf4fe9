"""Masks that a finished run predicts: whom they teach, what they are, and what is refused before pixels are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import drawn_masks
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, RunError
from gpt4image.config import TrainConfig
from gpt4image.data import annotation
from gpt4image.data.regions import VOID
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training.prepare import prepare
from gpt4image.training.run_model import load_run_model, self_trained
from gpt4image.training.train import train
from gpt4image.training.training_data import TrainingData
from loaded_sets import masks_of
from small_training import resumed, same


def options(drawn_run: Path, out: Path, **changes: Any) -> TrainConfig:
    shared = {"data": f"masks:{drawn_run / 'set'}", "out": out, "self_train": drawn_run / "run", "epochs": 2}
    return TrainConfig(**{**drawn_masks.SMALL, **shared, **changes})


@pytest.fixture(scope="module")
def taught(drawn_run: Path) -> TrainingData:
    return self_trained(prepare(options(drawn_run, Path("unused")), ("train", "val")).data, drawn_run / "run")


def test_training_images_without_a_mask_get_the_predicted_one(drawn_run: Path, taught: TrainingData) -> None:
    labels, train = taught.labels, taught.indices("train")
    tagged = np.array(["tagged" in key for key in taught.image_set.keys])
    assert taught.from_run is not None and taught.from_run.tolist() == tagged.tolist()
    assert (labels.drawn == (labels.known | tagged)).all() and not (labels.known & tagged).any()
    assert (taught.weak(train) == tagged[train]).all(), "masks of people come first, and these on top of them"
    with_mask = np.flatnonzero(labels.known)
    own = replace(labels, taught=None)
    assert (labels[with_mask].pixels(32) == own[with_mask].pixels(32)).all()

    model = load_run_model(drawn_run / "run", taught.task, taught.classes)
    model.backbone.eval()
    some = np.flatnonzero(tagged)
    once = model.read(taught.pixels, some).predictions
    found = labels[some].pixels(32)
    assert (found != VOID).all() and (found == once).mean() > 0.95, "of one view; these are of two"
    assert labels[some[:2]].pixels(64).shape == (2, 64, 64)
    assert labels.content() != own.content()


def test_the_prediction_is_that_of_the_picture_and_its_mirror_image_together(
    drawn_run: Path, taught: TrainingData
) -> None:
    model = load_run_model(drawn_run / "run", taught.task, taught.classes)
    seen: list[torch.Tensor] = []
    plain = model.backbone.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return plain(images)

    model.backbone.forward = forward  # type: ignore[method-assign]
    found = model.read(taught.pixels, np.arange(3), mirrored=True).predictions
    assert torch.equal(seen[0].flip(3), seen[1]) and len(seen) == 2
    with torch.inference_mode():
        both = (plain(seen[0]) + plain(seen[1]).flip(3)) / 2
    assert (found == Segmentation().tail()(both.float()).numpy()).all()


def test_a_predicted_mask_teaches_pixels_but_not_what_the_image_shows() -> None:
    values = np.zeros((2, 8, 8), np.uint8)
    values[:, :4] = 1
    drawn = masks_of(values)
    labels = annotation.untagged(drawn.hidden(np.array([False, True])))
    given = labels.with_taught(drawn.source, np.array([-1, 1]))
    targets = Segmentation().targets(given, None, 4, None)
    assert (targets.masks[1] == targets.masks[0]).all() and not targets.presence[1].any()
    assert Segmentation().has_target(given, None).all() and not Segmentation().has_target(labels, None).all()
    assert Segmentation(presence=0.0).weak(given, None).tolist() == [False, True]
    assert given[np.array([1])].pixels(8).tolist() == [values[1].tolist()]


def test_a_taught_run_goes_on_after_a_stop(drawn_run: Path, tmp_path: Path) -> None:
    config = options(drawn_run, tmp_path / "whole")
    train(config)
    assert not same(tmp_path / "whole", drawn_run / "run")
    resumed(config, tmp_path / "again", steps=3)
    assert same(tmp_path / "whole", tmp_path / "again")


def test_a_run_that_cannot_teach_is_refused_before_pixels_are_read(
    drawn_run: Path, tmp_path: Path, small_run: Path
) -> None:
    drawn_masks.draw(tmp_path / "whole")
    drawn_masks.draw(tmp_path / "other", tagged=3)
    (tmp_path / "other" / "classes.txt").write_text("background\ndisc\ncube")
    tags = tmp_path / "other" / "tags.csv"
    tags.write_text(tags.read_text().replace("square", "cube"))
    for changes, error, why in (
        ({"self_train": tmp_path / "nothing"}, RunError, "nothing"),
        ({"self_train": small_run}, RunError, "is of --task classification; give one of segmentation"),
        ({"data": f"masks:{tmp_path / 'whole'}"}, ConfigError, "without a label or text label, and all .* have one"),
        ({"data": f"masks:{tmp_path / 'other'}"}, RunError, "class 2 is 'square' there and 'cube' here"),
    ):
        with pytest.raises(error, match=why):
            prepare(options(drawn_run, tmp_path / "run", **changes), ("train", "val"))


@pytest.mark.parametrize("soft", [False, True])
def test_classes_are_taught_where_there_is_no_target(small_run: Path, soft: bool) -> None:
    config = runs.read_run(small_run)["config"]
    own = {name: config[name] for name in ("model", "model_args", "image_size", "batch_size", "stem", "precision")}
    ready = prepare(TrainConfig(data=config["data"], out=Path("unused"), self_train=None, **own), ("train", "val"))
    data, classes = ready.data, len(ready.data.classes)
    train = data.indices("train")
    left = np.where(np.arange(len(data.labels)) % 3 == 0, data.labels, -1)
    data = replace(data, labels=left)
    if soft:
        given = np.zeros((len(left), classes), np.float32)
        given[np.arange(len(left)) % 3 < 2, 1] = 1.0
        data = replace(data, soft=given)
    before = data.has_target(train)
    taught = self_trained(data, small_run)
    assert taught.from_run is not None and (taught.from_run[train] == ~before).all()
    assert taught.has_target(train).all() and taught.soft is not None
    known = train[before]
    one_hot = np.eye(classes, dtype=np.float32)[left[known]]
    assert (taught.soft[known] == (given[known] if soft else one_hot)).all()
    model = load_run_model(small_run, data.task, data.classes)
    assert taught.soft[train[~before]] == pytest.approx(model.read(data.pixels, train[~before]).predictions[:])
    with pytest.raises(ConfigError, match=r"all .* have one"):
        self_trained(taught, small_run)
