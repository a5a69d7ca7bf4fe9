"""Policies of timm: each image is changed as its own seed says, and nothing else is disturbed."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.training.cpu_augmentation import STRONG, Policy

MEAN = (0.5, 0.4, 0.3)


def pictures(count: int = 12) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", [STRONG, "rand-m9-mstd0.5-inc1", "augmix-m3-w3", "original", "v0", "3a"])
def test_an_image_is_changed_as_its_seed_says_whatever_its_place_and_company(name: str) -> None:
    policy, images, seeds = Policy(name, MEAN), pictures(), torch.arange(12) * 2**58
    whole = policy(images, seeds)
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:7]
    assert torch.equal(policy(images[order], seeds[order]), whole[order])
    assert not torch.equal(policy(images, seeds + 1), whole)


def test_the_same_image_with_other_seeds_gives_other_views() -> None:
    same = pictures(1).expand(40, -1, -1, -1)
    views = Policy(STRONG, MEAN)(same, torch.arange(40))
    assert len({view.numpy().tobytes() for view in views}) > 35


def test_random_states_of_others_are_left_alone() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    Policy(STRONG, MEAN)(pictures(), torch.arange(12))
    assert drawn() == expected


def test_strongest_magnitudes_never_fail() -> None:
    Policy("rand-m10-n15-p1-inc1", MEAN)(pictures(1).expand(40, -1, -1, -1), torch.arange(40))


def test_what_comes_from_outside_an_image_has_the_mean_colour() -> None:
    black = torch.zeros(60, 3, 16, 16, dtype=torch.uint8)
    policy = Policy("rand-m9-n1-p1", MEAN)
    policy._transform.ops = [op for op in policy._transform.ops if op.name == "TranslateXRel"]
    views = policy(black, torch.arange(60))
    assert {tuple(colour) for colour in views.permute(0, 2, 3, 1).reshape(-1, 3).tolist()} == {
        (0, 0, 0),
        (128, 102, 76),
    }


def test_a_policy_travels_to_worker_processes() -> None:
    policy = Policy("rand-m9-mstd0.5-inc1", MEAN)
    again = pickle.loads(pickle.dumps(policy))  # noqa: S301
    assert torch.equal(again(pictures(), torch.arange(12)), policy(pictures(), torch.arange(12)))


@pytest.mark.parametrize("name", ["randaugment", "rand-x9", "v7", "rand-m9-mmax30"])
def test_an_unknown_policy_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--auto-augment {name}"):
        Policy(name, MEAN)
