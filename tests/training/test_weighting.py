"""Task against alignment: schedules and the balance of gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ConfigError
from gpt4image.config import TrainConfig
from gpt4image.training.weighting import SCHEDULES, gradient_ratio, weights_at

STEPS = 40


def config(**options) -> TrainConfig:
    return TrainConfig(**{"data": "folder:x", "out": "y", "align_weight": 0.5, **options})


def course(**options) -> list[float]:
    weights = [weights_at(config(**options), step, STEPS) for step in range(STEPS)]
    assert all(of_task == 1.0 for of_task, _ in weights)
    return [of_align for _, of_align in weights]


def test_without_options_the_weight_never_changes():
    assert course() == [0.5] * STEPS


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(until=st.floats(0.05, 1.0))
def test_the_weight_falls_to_zero_and_stays_there(schedule, until):
    weights = course(weight_schedule=schedule, weight_until=until)
    assert weights[0] == 0.5
    assert all(after <= before for before, after in itertools.pairwise(weights))
    assert all(weight == 0.0 for step, weight in enumerate(weights) if step >= until * STEPS)
    assert all(weight > 0.0 for step, weight in enumerate(weights) if step < 0.99 * until * STEPS)


def test_shapes_of_schedules():
    assert course(weight_schedule="linear")[10] == pytest.approx(0.5 * 0.75)
    assert course(weight_schedule="cosine")[10] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert course(weight_until=0.5) == [0.5] * 20 + [0.0] * 20


def test_text_first_then_the_task():
    weights = [weights_at(config(text_first=0.25), step, STEPS) for step in range(STEPS)]
    assert weights == [(0.0, 1.0)] * 10 + [(1.0, 0.0)] * 30


def test_text_first_has_no_schedule():
    for options in ({"adaptive_weight": True}, {"weight_schedule": "linear"}, {"weight_until": 0.5}):
        with pytest.raises(ConfigError, match="--text-first"):
            config(text_first=0.5, **options)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
def test_gradients_at_the_features_become_equally_long(seed, scale):
    features = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    task, align = features.square().sum(), scale * features.sin().mean()
    ratio = gradient_ratio(task, align, features)
    assert not ratio.requires_grad
    (of_task,) = torch.autograd.grad(task, features, retain_graph=True)
    (of_align,) = torch.autograd.grad(ratio * align, features)  # the graph is still there
    torch.testing.assert_close(of_task.norm(), of_align.norm())


def test_no_gradient_of_one_of_them():
    features = torch.ones(2, 3, requires_grad=True)
    none, some = 0.0 * features.sum(), features.sum()
    assert gradient_ratio(none, some, features) == 0.0
    assert gradient_ratio(some, none, features) == 0.0
    assert gradient_ratio(some, 1e-9 * some, features) == 1e4
    assert gradient_ratio(some.bfloat16(), some.bfloat16(), features) == 1.0
