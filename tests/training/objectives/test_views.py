"""SimCLR against NumPy that follows the paper, and what it comes to where that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.training.objectives.views import nt_xent

Array = NDArray[np.float64]


def projections(seed: int, count: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return one, two


def simclr_by_the_paper(one: Array, two: Array, ids: list[int], temperature: float) -> float:
    rows = [*one, *two]
    images, count, terms = ids * 2, len(one), []
    for i, row in enumerate(rows):
        other = (i + count) % (2 * count)
        cosine = [float(row @ z / np.linalg.norm(row) / np.linalg.norm(z)) for z in rows]
        shown = [k for k in range(2 * count) if k == other or images[k] != images[i]]
        total = sum(math.exp(cosine[k] / temperature) for k in shown)
        terms.append(-math.log(math.exp(cosine[other] / temperature) / total))
    return float(np.mean(terms))


@given(seed=st.integers(0, 1000), count=st.integers(1, 6), width=st.integers(1, 5), temperature=st.floats(0.1, 1.0))
def test_simclr_is_that_of_the_paper(seed: int, count: int, width: int, temperature: float) -> None:
    one, two = projections(seed, count, width)
    ids = torch.randint(0, count, (count,), generator=torch.Generator().manual_seed(seed))
    expected = simclr_by_the_paper(one.numpy(), two.numpy(), ids.tolist(), temperature)
    assert float(nt_xent(one, two, ids, temperature)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [2, 5])
def test_views_that_are_all_alike_are_as_good_as_guessing(count: int) -> None:
    alike = torch.ones(count, 3, dtype=torch.float64)
    assert float(nt_xent(alike, alike, torch.arange(count), 0.2)) == pytest.approx(math.log(2 * count - 1))


def test_images_that_are_told_apart_have_no_loss() -> None:
    apart = torch.eye(4, dtype=torch.float64)
    assert float(nt_xent(apart, apart, torch.arange(4), 0.02)) == pytest.approx(0.0, abs=1e-9)


def test_an_image_that_is_in_the_batch_twice_is_no_negative_of_itself() -> None:
    one, two = projections(0, 3, 4)
    ids = torch.tensor([7, 7, 9])
    moved = one.clone()
    moved[1] = -one[1]
    with_other = nt_xent(moved, two, ids, 0.2) - nt_xent(one, two, ids, 0.2)
    alone = nt_xent(moved[1:], two[1:], ids[1:], 0.2) - nt_xent(one[1:], two[1:], ids[1:], 0.2)
    assert with_other != alone
    for rows in ([0, 2], [1, 2]):  # rows 0 and 1 see row 2 and their own other view, and not each other
        assert nt_xent(one[rows], two[rows], ids[rows], 0.2).isfinite()
    assert float(nt_xent(one[:2], two[:2], ids[:2], 0.2)) == pytest.approx(0.0)


def test_no_image_gives_no_loss_and_no_gradient() -> None:
    one, two = (view[:0].requires_grad_() for view in projections(0, 1, 3))
    loss = nt_xent(one, two, torch.arange(0), 0.2)
    loss.backward()
    assert loss == 0
