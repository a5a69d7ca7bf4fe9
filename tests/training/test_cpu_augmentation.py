"""CPU augmentation: functions of seed, batch and place alone, the same in any process; second views for some images."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.training.augment import Augmentation
from gpt4image.training.cpu_augmentation import STRONG, CpuAugmentation, Policy

HOW = Augmentation(
    size=12,
    flip=True,
    shift=0.125,
    min_scale=1.0,
    colour=0.0,
    erase=0.0,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.1),
)
SECOND = np.arange(20) % 3 == 0
IMAGES = np.array([4, 6, 8, 9, 13, 15])


def views(**changes: Any) -> CpuAugmentation:
    usual = {
        "how": HOW,
        "policy": None,
        "strong": Policy(STRONG, HOW.mean),
        "second": SECOND,
        "seed": 0,
        "total": 6,
        "rows": torch.arange(6),
    }
    return CpuAugmentation(**{**usual, **changes})


def pictures(count: int = 6, side: int = 12) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def same(batch: Tensor) -> Tensor:
    return batch[:1].expand(len(batch), -1, -1, -1)


def test_the_same_seed_batch_and_place_give_the_same_views_and_others_give_others() -> None:
    batch = pictures()
    made = views()(batch, IMAGES, 7)
    np.random.seed(9)  # global random numbers change nothing
    assert torch.equal(made, views()(batch, IMAGES, 7))
    assert not torch.equal(made[6:], views()(batch, IMAGES, 8)[6:])
    assert not torch.equal(made[6:], views(seed=1)(batch, IMAGES, 7)[6:])
    of_one_image = views(total=60, rows=torch.arange(60))(same(pictures(60)), np.zeros(60, np.int64), 7)
    assert len({view.numpy().tobytes() for view in of_one_image[60:]}) > 50


@pytest.mark.parametrize("rows", [[0, 5], [1, 2, 3, 4], [3]])
def test_a_process_makes_of_its_rows_what_one_process_makes_of_them(rows: list[int]) -> None:
    how = {"how": HOW, "policy": Policy("rand-m9-mstd0.5-inc1", HOW.mean)}
    whole = views(**how)(pictures(), IMAGES, 3)
    part = views(**how, rows=torch.tensor(rows))(pictures()[rows], IMAGES[rows], 3)
    assert torch.equal(part[: len(rows)], whole[rows])
    seconds = [6 + np.flatnonzero(SECOND[IMAGES]).tolist().index(row) for row in rows if SECOND[IMAGES[row]]]
    assert torch.equal(part[len(rows) :], whole[seconds])


def test_the_policy_leaves_the_first_views_of_images_with_a_second_one_alone() -> None:
    plain = views()(pictures(), IMAGES, 3)
    changed = views(policy=Policy("rand-m9-p1", HOW.mean))(pictures(), IMAGES, 3)
    assert torch.equal(changed[[1, 3, 5]], plain[[1, 3, 5]])
    assert torch.equal(changed[6:], plain[6:])
    assert not torch.equal(changed[[0, 2, 4]], plain[[0, 2, 4]])


@pytest.mark.parametrize("name", [STRONG, "rand-m9-mstd0.5-inc1", "augmix-m3-w3", "original", "v0", "3a"])
def test_an_image_is_changed_as_its_seed_says_whatever_its_place_and_company(name: str) -> None:
    policy, images, seeds = Policy(name, HOW.mean), pictures(12, 16), torch.arange(12) * 2**58
    whole = policy(images, seeds)
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:7]
    assert torch.equal(policy(images[order], seeds[order]), whole[order])
    assert not torch.equal(policy(images, seeds + 1), whole)


def test_random_states_of_others_are_left_alone() -> None:
    def numbers() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = numbers()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    Policy(STRONG, HOW.mean)(pictures(12, 16), torch.arange(12))
    assert numbers() == expected


def test_strongest_magnitudes_never_fail() -> None:
    Policy("rand-m10-n15-p1-inc1", HOW.mean)(pictures(1, 16).expand(40, -1, -1, -1), torch.arange(40))


@pytest.mark.parametrize("name", ["randaugment", "rand-x9", "v7", "rand-m9-mmax30"])
def test_an_unknown_policy_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--auto-augment {name}"):
        Policy(name, HOW.mean)


def test_a_policy_changes_all_frames_of_a_clip_alike() -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    policy, seeds = Policy("rand-m9-mstd0.5-inc1", (0.5, 0.4, 0.3)), torch.arange(4)
    changed = policy(images.repeat(1, 3, 1, 1), seeds)
    assert all(torch.equal(frame, policy(images, seeds)) for frame in changed.split(3, dim=1))


def test_views_that_are_alike_are_both_made_as_the_policy_says() -> None:
    every, policy = np.ones(20, bool), Policy("rand-m9-n2-p1", HOW.mean)
    plain = views(strong=None, second=every, alike=True)(pictures(), IMAGES, 7)
    made = views(policy=policy, strong=None, second=every, alike=True)(pictures(), IMAGES, 7)
    assert plain.shape == made.shape == (12, 3, 12, 12)
    changed = (plain != made).flatten(1).any(dim=1)
    assert changed[:6].any() and changed[6:].any()
    assert not torch.equal(plain[:6], plain[6:])
