"""The task without labels: all images take part, and nothing is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt4image.config import TrainOptions
from gpt4image.tasks.registry import find_task


def test_no_label_is_read_and_all_images_take_part() -> None:
    task = find_task("pretrain", TrainOptions(data="x"))
    labels = np.array([0, 1, -1])
    task.require(labels, (), "x")
    assert not task.known(labels).any() and task.has_target(labels, None).all()
    assert task.counts(labels, 2).tolist() == [0, 0] and task.groups(labels).tolist() == [-1] * 3
    assert task.outputs(("a", "b", "c")) == 1
    assert not task.primary.better(2.0, 1.0) and task.primary.better(1.0, 2.0)


def test_its_loss_is_zero_with_a_gradient_for_each_parameter() -> None:
    task = find_task("pretrain", TrainOptions(data="x"))
    outputs = torch.ones(3, 1, requires_grad=True)
    targets = task.without_target(task.targets(np.zeros(3), None, 1, None), torch.ones(3).bool())
    loss = task.loss(outputs, targets, 0.1)
    loss.backward()
    assert loss == 0 and outputs.grad is not None and not outputs.grad.any()
    assert task.tail()(outputs) is outputs


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.zeros((2, 3), np.int8)])
def test_it_measures_nothing(labels: np.ndarray) -> None:
    task = find_task("pretrain", TrainOptions(data="x"))
    predictions = np.zeros((2, 1), np.float32)
    assert task.measure(predictions, labels, ("a",)) == {"images": 2, "labelled": 0, "classes": ["a"]}
    assert task.columns(predictions, labels) == {} and len(task.scores(predictions, labels)) == 0
    assert list(task.rows(predictions, ("a",), 1)) == [{}, {}]
