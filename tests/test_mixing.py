"""Mixup and CutMix: the matrix says truly what the pictures are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt4image.mixing import make_mixup, mix


def test_no_alpha_means_no_mixing() -> None:
    assert make_mixup(0.0, 0.0, 8) is None


@pytest.mark.parametrize("seed", range(5))
def test_mixup_pictures_are_the_matrix_times_the_pictures(seed: int) -> None:
    np.random.seed(seed)
    mixup = make_mixup(0.8, 0.0, 8)
    assert mixup is not None
    images = torch.rand(8, 3, 6, 6)
    mixed, matrix = mix(mixup, images.clone())
    assert torch.allclose(matrix.sum(1), torch.ones(8))
    assert torch.allclose(mixed, torch.einsum("ij,jchw->ichw", matrix, images), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pictures_have_the_share_of_pixels_that_the_matrix_says(seed: int) -> None:
    np.random.seed(seed)
    mixup = make_mixup(0.0, 1.0, 8)
    assert mixup is not None
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10).clone()
    mixed, matrix = mix(mixup, images)
    own = torch.stack([(mixed[i, 0] == i).float().mean() for i in range(8)])
    assert torch.allclose(own, matrix.diagonal(), atol=1e-5)
