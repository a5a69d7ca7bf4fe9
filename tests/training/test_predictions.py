"""Predictions in batches: each image gets its own row, whatever its place and whatever batches there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.tasks.video import Video
from gpt4image.training import predictions
from gpt4image.training.predictions import images_at_once, outputs, predict
from training_cases import trainer_of


def test_rows_are_those_of_their_images_in_batches_of_any_size(
    described: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(described, align_weight=0.0)
    indices = np.array([7, 3, 3, 40, 0, 12, 5])
    arguments = trainer.augmentation, trainer.config
    whole = predict(trainer.model.backbone, trainer.data, indices, *arguments)  # type: ignore[arg-type]
    assert whole.shape == (7, 3) and np.allclose(whole.sum(axis=1), 1.0, atol=1e-6)
    assert np.array_equal(whole[1], whole[2])
    monkeypatch.setattr(predictions, "EVAL_BATCH", 2)
    small = predict(trainer.model.backbone, trainer.data, indices, *arguments)  # type: ignore[arg-type]
    assert np.allclose(small, whole, atol=1e-5)
    (one,) = predict(trainer.model.backbone, trainer.data, indices[3:4], *arguments)  # type: ignore[arg-type]
    assert np.allclose(one, whole[3], atol=1e-5)


def test_large_images_go_in_smaller_batches_and_no_image_needs_no_model(described: dict[str, Any]) -> None:
    trainer = trainer_of(described, align_weight=0.0)
    seen: list[int] = []

    def read(inputs: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(inputs))
        return (inputs.mean(dim=(1, 2, 3)),)

    at_once = images_at_once(trainer.data.task, 3, predictions.EVAL_SIZE * 8)
    outputs(read, trainer.data.pixels, np.arange(9), trainer.augmentation, trainer.config, at_once)
    assert seen == [4, 4, 1]
    empty = predict(torch.nn.Identity(), trainer.data, np.arange(0), trainer.augmentation, trainer.config)
    assert empty.shape == (0, 3)


@pytest.mark.parametrize(
    ("task", "classes", "size", "count"),
    [
        (Classification(), 150, 64, 256),
        (Classification(), 150, 448, 64),
        (Segmentation(), 8, 224, 32),
        (Segmentation(), 150, 448, 1),
        (Video(8), 150, 224, 32),
    ],
)
def test_masks_of_many_classes_and_clips_of_many_frames_go_in_smaller_batches(
    task: Task, classes: int, size: int, count: int
) -> None:
    assert images_at_once(task, classes, size) == count
