"""Boxes of a teacher in a run: of training images alone, from a file or as an arm of a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_cases import NAMES, answer_squares, write_squares
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.base.errors import ConfigError
from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.planning import Regime
from gpt4image.config import CompareConfig, LabelConfig, TrainConfig
from gpt4image.labelling.answers import AnsweredBoxes
from gpt4image.labelling.label import label
from gpt4image.labelling.teaching import answers_about, taught_boxes
from gpt4image.training.prepare import prepare
from gpt4image.training.train import train

PLAIN: dict[str, Any] = {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}}
PLAIN |= {"image_size": 32, "batch_size": 4, "epochs": 1, "precision": "fp32", "device": "cpu"}


def options(spec: str, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": spec, "out": out, **PLAIN, "val_fraction": 0.3, **changes})


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, Path]:
    spec = write_squares(tmp_path / "set")
    return spec, answer_squares(spec, tmp_path / "a.db")


def test_the_teacher_of_an_arm_sees_the_boxes_that_are_left(given: tuple[str, Path], tmp_path: Path) -> None:
    spec, store = given
    data = prepare(options(spec, tmp_path)).data
    left = Regime(labels_per_class=2).apply(data, seed=0)
    answers = answers_about(left, store)
    assert isinstance(answers, AnsweredBoxes)
    boxes = taught_boxes(left, 0, None, answers, "fused")
    train, others = data.indices("train"), np.flatnonzero(data.image_set.splits != "train")
    assert boxes.known[train].all() and left.labels.known[train].sum() == 6
    assert boxes[others].content() == left.labels[others].content()
    for image in train:
        corners, labels, weights = boxes.image(image)
        true = data.labels.image(image)
        assert np.array_equal(labels[weights > 0], true[1]) and np.allclose(corners[weights > 0], true[0], atol=0.001)
        assert len(labels) == (1 if left.labels.known[image] else 2)
    raw = taught_boxes(left, 0, None, answers, "answers")
    assert (raw.weights[raw.places(train)] == 1).all() and len(raw.labels) > len(boxes.only(boxes.weights > 0).labels)


@pytest.mark.slow
def test_arms_of_boxes_are_compared(given: tuple[str, Path], tmp_path: Path, runs_here: None) -> None:
    spec, store = given
    arms = "baseline,asked,fused,self-training,oracle"
    common = {"data": spec, "answers": store, "arms": arms, "labels_per_class": 2, "seeds": 1, "jobs": 1, **PLAIN}
    outcome = compare(CompareConfig(**common, out=tmp_path / "cmp", val_fraction=0.3))
    record = read_json(tmp_path / "cmp" / "comparison.json")
    assert record["metric"] == "mAP" and set(record["arms"]) == set(arms.split(","))
    assert all("AP50" in arm["metrics"] for arm in record["arms"].values())
    assert record["arms"]["fused"]["description"] == "answered boxes as the annotators would draw them"
    assert outcome.skipped == ()
    with pytest.raises(ConfigError, match="zero-shot needs a task of classes"):
        compare(CompareConfig(**{**common, "arms": "zero-shot"}, out=tmp_path / "other", val_fraction=0.3))


def test_a_file_of_boxes_is_enough_where_nobody_drew_any(given: tuple[str, Path], tmp_path: Path) -> None:
    _, store = given
    data = f"folder:{tmp_path / 'set' / 'images'}"
    file = tmp_path / "boxes.parquet"
    label(LabelConfig(data=data, task="detection", classes=",".join(NAMES), answers=store, out=file))
    found = prepare(options(data, tmp_path / "run", targets=file))
    train_rows = found.data.indices("train")
    assert found.config.task == "detection" and found.data.labels.known[train_rows].all()
    assert not np.delete(found.data.labels.known, train_rows).any(), "others are held out"
    made = BoxLabels.load(file)
    fewer = replace(made, boxes=made.boxes.only(made.boxes.image_of > 0))
    fewer.save(tmp_path / "fewer.parquet")
    assert prepare(options(data, tmp_path, targets=tmp_path / "fewer.parquet")).fingerprint != found.fingerprint
    summary = train(options(data, tmp_path / "run", targets=file)).summary
    assert summary["labelled"] == 0 and summary["described"] == summary["train_images"]
