"""Masks drawn for people."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gpt4image.pages.cards import SHARE, coloured, overlaid, palette


def test_colours_are_those_of_pascal_voc_and_all_differ() -> None:
    colours = palette()
    assert colours[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


def test_a_mask_keeps_its_numbers_at_another_size() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    image = coloured(mask, (4, 6))
    assert image.mode == "P" and image.size == (4, 6)
    assert np.array_equal(np.asarray(image), np.kron(mask, np.ones((3, 2), np.uint8)))


def test_the_background_stays_as_it_is_and_other_classes_are_tinted() -> None:
    picture = Image.new("RGB", (4, 2), (100, 100, 100))
    drawn = np.asarray(overlaid(picture, np.array([[0, 1]], np.uint8)))
    assert (drawn[:, :2] == 100).all()
    assert drawn[0, 3].tolist() == pytest.approx([100 + (128 - 100) * SHARE, *[100 * (1 - SHARE)] * 2], abs=1)
    assert not (np.asarray(overlaid(picture, np.array([[0, 1]], np.uint8), background=-1))[:, :2] == 100).any()
