"""Corruptions: the same pixels for the same seed, worse with severity, and nothing but pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt4image.evaluating.corruptions import KINDS, SEVERITIES, corrupt


@pytest.fixture(scope="module", params=[32, 48])
def images(request: pytest.FixtureRequest) -> torch.Tensor:
    """Pictures of coloured patches."""
    side, rng = request.param, np.random.default_rng(0)
    small = torch.from_numpy(rng.integers(20, 236, (6, 3, 11, 11)).astype(np.float32))
    return torch.nn.functional.interpolate(small, (side, side), mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_are_the_same_again_and_worse_with_severity(kind: str, images: torch.Tensor) -> None:
    before, state = images.clone(), torch.get_rng_state()
    worse = []
    for severity in SEVERITIES:
        spoilt = corrupt(kind, severity, images, seed=3)
        assert spoilt.dtype == torch.uint8 and spoilt.shape == images.shape
        assert torch.equal(spoilt, corrupt(kind, severity, images, seed=3))
        worse.append(float((spoilt.float() - images.float()).abs().mean()))
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
    assert worse[0] > 0
    assert max(worse) == worse[-1] > 1.3 * worse[0]
    assert np.corrcoef(SEVERITIES, worse)[0, 1] > 0.8, worse


@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise", "impulse_noise", "elastic"])
def test_the_seed_draws_what_is_random(kind: str, images: torch.Tensor) -> None:
    assert not torch.equal(corrupt(kind, 3, images, seed=0), corrupt(kind, 3, images, seed=1))
