"""Mixup and CutMix: the matrix says truly what the pictures are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt4image.training.augment import mix


@pytest.mark.parametrize("seed", range(5))
def test_mixup_pictures_are_the_matrix_times_the_pictures(seed: int) -> None:
    np.random.seed(seed)
    images = torch.rand(8, 3, 6, 6)
    mixed = images.clone()
    matrix = mix(mixed, torch.arange(8), 0.8, 0.0)
    assert torch.allclose(matrix.sum(1), torch.ones(8))
    assert torch.allclose(mixed, torch.einsum("ij,jchw->ichw", matrix, images), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pictures_have_the_share_of_pixels_that_the_matrix_says(seed: int) -> None:
    np.random.seed(seed)
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10).clone()
    matrix = mix(images, torch.arange(8), 0.0, 1.0)
    own = torch.stack([(images[i, 0] == i).float().mean() for i in range(8)])
    assert torch.allclose(own, matrix.diagonal(), atol=1e-5)


@pytest.mark.parametrize("rows", [[1, 2, 4, 7], [1, 2, 4, 6, 7], [3], []])
def test_only_the_rows_asked_for_are_mixed_and_of_an_odd_number_the_last_is_not(rows: list[int]) -> None:
    np.random.seed(1)
    images = torch.rand(8, 3, 6, 6)
    mixed = images.clone()
    matrix = mix(mixed, torch.tensor(rows, dtype=torch.int64), 0.8, 0.0)
    asked = rows[: len(rows) // 2 * 2]
    others = [row for row in range(8) if row not in asked]
    assert torch.equal(mixed[others], images[others])
    assert torch.equal(matrix[others], torch.eye(8)[others])
    assert torch.allclose(mixed, torch.einsum("ij,jchw->ichw", matrix, images), atol=1e-5)
    assert all(not torch.equal(mixed[row], images[row]) for row in asked)
