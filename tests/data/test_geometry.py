"""Geometry: pixels and masks are moved alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gpt4image.data.geometry import Geometry


def shift(flip: bool, rows: int = 0, columns: int = 0, side: int = 8, size: int = 8) -> Geometry:
    return Geometry.shift(torch.tensor([[[rows], [columns]]]), torch.tensor([flip]), side, size)


def crop(flip: bool, x: float, y: float, width: float, height: float, size: int) -> Geometry:
    return Geometry.crop(torch.tensor([[x, y]]), torch.tensor([[width, height]]), torch.tensor([flip]), size)


@given(st.booleans(), st.integers(-3, 3), st.integers(-3, 3), st.integers(4, 8))
def test_a_mask_is_shifted_as_the_pixels_under_it(flip: bool, rows: int, columns: int, size: int) -> None:
    picture = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    geometry = shift(flip, rows, columns, 8, size)
    assert torch.equal(geometry.pixels(picture)[:, 0], geometry.masks(picture[:, 0]))


@pytest.mark.parametrize("flip", [False, True])
def test_a_resized_mask_keeps_its_values_and_lies_where_the_pixels_do(flip: bool) -> None:
    mask = torch.zeros(1, 32, 32, dtype=torch.int64)
    mask[:, :, 16:] = 7
    geometry = crop(flip, 0.0, 0.0, 0.5, 0.5, 32)
    moved = geometry.masks(mask)
    assert moved.dtype == torch.int64 and set(moved.unique().tolist()) == {0, 7}
    pixels: Tensor = geometry.pixels(mask[:, None].float())[:, 0]
    assert torch.equal(moved, torch.where(pixels >= 3.5, 7, 0))
    assert bool((moved[0, :, :8] == (7 if flip else 0)).all())


def test_a_flip_mirrors_left_and_right_alone() -> None:
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(shift(True).pixels(picture), picture.flip(3))
