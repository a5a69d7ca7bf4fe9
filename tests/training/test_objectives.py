"""FixMatch and SimCLR against loops that follow their papers word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.training.objectives import consistency_loss, nt_xent

Array = NDArray[np.float64]


def by_the_paper(weak: Tensor, strong: Tensor, counts: list[bool], confidence: float) -> Tensor:
    terms = []
    for i in range(len(weak)):
        if not counts[i]:
            continue
        shares = [math.exp(value) for value in weak[i].tolist()]
        q = [share / sum(shares) for share in shares]
        best = max(range(len(q)), key=q.__getitem__)
        if q[best] >= confidence:
            terms.append(-(strong[i, best].exp() / strong[i].exp().sum()).log())
        else:
            terms.append(0 * strong[i].sum())
    return torch.stack(terms).mean() if terms else 0 * strong.sum()


@given(seed=st.integers(0, 1000), count=st.integers(0, 8), classes=st.integers(2, 5), confidence=st.floats(0.0, 1.0))
def test_values_and_gradients_are_those_of_the_paper(seed: int, count: int, classes: int, confidence: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weak = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    strong = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    counts = torch.rand(count, generator=generator) < 0.8
    ours, theirs = (strong.clone().requires_grad_() for _ in range(2))
    loss = consistency_loss(weak, ours, counts, confidence)
    expected = by_the_paper(weak, theirs, counts.tolist(), confidence)
    assert torch.allclose(loss, expected, atol=1e-12, rtol=0)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12, rtol=0)


def test_the_weak_view_gets_no_gradient() -> None:
    weak, strong = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    consistency_loss(weak, strong, torch.ones(4, dtype=torch.bool), 0.0).backward()
    assert weak.grad is None and strong.grad is not None and strong.grad.abs().sum() > 0


def test_unsure_images_count_in_the_mean() -> None:
    weak = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
    strong = torch.zeros(2, 2)
    loss = consistency_loss(weak, strong, torch.tensor([True, True]), 0.95)
    assert loss.item() == pytest.approx(math.log(2) / 2)


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
