"""The loss of FixMatch, against a loop that follows the paper word by word."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gpt4image.training.objectives.consistency import consistency_loss


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


def test_half_precision_is_computed_in_float32() -> None:
    weak, strong = torch.randn(4, 3), torch.randn(4, 3)
    half = consistency_loss(weak.bfloat16(), strong.bfloat16(), torch.ones(4, dtype=torch.bool), 0.0)
    assert half.dtype == torch.float32
    full = consistency_loss(weak.bfloat16().float(), strong.bfloat16().float(), torch.ones(4, dtype=torch.bool), 0.0)
    assert half == full
