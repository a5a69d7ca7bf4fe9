"""The parts of a run, built from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.base.errors import ConfigError
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training.check import check
from gpt4image.training.optimizers import Plain
from gpt4image.training.prepare import prepare
from small_training import options
from training_cases import trainer_of


def test_arms_that_differ_in_the_text_start_from_the_same_weights(described: dict[str, Any]) -> None:
    aligned, plain, other = (
        trainer_of(described, **changes) for changes in ({}, {"align_weight": 0.0}, {"align_weight": 0.0, "seed": 1})
    )
    assert isinstance(plain.model, Plain) and plain.objectives == ()
    assert [objective.name for objective in aligned.objectives] == ["align"]
    own = plain.model.backbone.state_dict()
    backbone: Any = aligned.model.backbone
    assert all(torch.equal(value, own[name]) for name, value in backbone.state_dict().items())
    assert not all(torch.equal(value, own[name]) for name, value in other.model.backbone.state_dict().items())


def test_the_moving_average_is_what_is_evaluated_and_kept(described: dict[str, Any]) -> None:
    without, averaged = trainer_of(described), trainer_of(described, ema=0.9)
    assert without.evaluated is without.model and without.modules.keys() == {"model"}
    assert averaged.evaluated is not averaged.model and averaged.modules.keys() == {"model", "ema"}


def test_what_a_task_does_not_allow_is_refused(colour_folder: Path) -> None:
    task = MultiLabel()
    check(prepare(options(colour_folder, Path("unused"), mixup=0.2)).config.resolved, task)
    policy = prepare(options(colour_folder, Path("unused"), auto_augment="rand-m9-mstd0.5-inc1")).config.resolved
    check(policy, task)
    for dense in (Detection(), Segmentation()):
        with pytest.raises(ConfigError, match=f"the {dense.output} of --task {dense.name} would stay"):
            check(policy, dense)
    consistent = prepare(options(colour_folder, Path("unused"), consistency=1.0)).config.resolved
    with pytest.raises(ConfigError, match="task multilabel has no such one"):
        check(consistent, task)
    taught = prepare(options(colour_folder, Path("unused"))).config.resolved.model_copy(
        update={"self_train": Path("r")}
    )
    with pytest.raises(ConfigError, match="--self-train r is for masks and classes, not for --task detection"):
        check(taught, Detection())
    for name, value in (("frames", 3), ("frame_order", "still"), ("frame_differences", True)):
        of_clips = options(colour_folder, Path("unused"), **{name: value})
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is for clips, and task classification"):
            prepare(of_clips)
    for name, value, own in (
        ("focus_negatives", 2.0, "multilabel"),
        ("presence_weight", 0.0, "segmentation"),
        ("pretrain", "captions", "pretrain"),
    ):
        flag = f"--{name.replace('_', '-')} {value} is for --task {own}, not for classification"
        with pytest.raises(ConfigError, match=flag):
            prepare(options(colour_folder, Path("unused"), **{name: value}))
