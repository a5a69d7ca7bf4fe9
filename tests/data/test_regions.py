"""Boxes and masks are indexed by images, and move with the geometry of the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import NO_ANNOTATION, NO_BOX, VOID, Boxes, ImageBoxes, Masks
from loaded_sets import MasksInMemory

CLASSES = 4


def boxes_of(seed: int, images: int = 6) -> Boxes:
    rng = np.random.default_rng(seed)

    def one() -> ImageBoxes | None:
        if rng.random() < 0.25:
            return None
        count = int(rng.integers(0, 4))
        corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
        return corners, rng.integers(0, CLASSES, count), rng.choice([0.0, 0.5, 1.0], count).astype(np.float32)

    return Boxes.of_images([one() for _ in range(images)])


@given(st.integers(0, 200), st.lists(st.integers(0, 5), max_size=8))
def test_choosing_images_keeps_the_boxes_of_each_and_padded_rows_hold_each_once(seed: int, rows: list[int]) -> None:
    boxes = boxes_of(seed)
    part = boxes[np.array(rows, np.int64)]
    assert len(part) == len(rows) and part.known.tolist() == [boxes.known[row] for row in rows]
    for place, row in enumerate(rows):
        for mine, theirs in zip(part.image(place), boxes.image(row), strict=True):
            assert np.array_equal(mine, theirs)
    padded = boxes.padded()
    assert padded.shape[1] >= 1
    for i in range(len(boxes)):
        corners, labels, weights = boxes.image(i)
        own = padded[i, : len(labels)]
        assert np.array_equal(own, np.column_stack([corners, labels, weights]).astype(np.float32))
        assert set(padded[i, len(labels) :, 4].tolist()) <= {NO_BOX if boxes.known[i] else NO_ANNOTATION}


@given(st.integers(0, 50), st.booleans())
def test_a_box_and_a_mask_stay_with_their_pixels(seed: int, resized: bool) -> None:
    rng = np.random.default_rng(seed)
    side = 40
    left, top = rng.integers(12, 18, 2)
    right, bottom = left + rng.integers(4, 9), top + rng.integers(4, 9)
    picture = torch.zeros(1, 1, side, side)
    picture[0, 0, top:bottom, left:right] = 7.0
    flipped = torch.tensor([bool(rng.integers(2))])
    if resized:
        geometry = Geometry.crop(torch.zeros(1, 2), torch.tensor([[0.8, 0.9]]), flipped, size=80)
    else:
        offsets = torch.from_numpy(rng.integers(-4, 5, (1, 2, 1)))
        geometry = Geometry.shift(offsets, flipped, side, side)
    corners = torch.tensor([[[left, top, right, bottom]]]) / side
    moved = (geometry.boxes(corners) * geometry.size)[0, 0]
    pixels = geometry.pixels(picture)[:, 0]
    rows, columns = (pixels[0] > 3.5).nonzero(as_tuple=True)
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert torch.allclose(moved, found.float(), atol=1.0 if resized else 1e-3)
    mask = geometry.masks(picture[0].long())
    assert mask.dtype == torch.int64 and set(mask.unique().tolist()) == {0, 7}
    assert (mask != torch.where(pixels >= 3.5, 7, 0)).float().mean() < 0.01, "but for ties at a border"


def test_masks_are_stretched_without_new_values_and_void_without_one() -> None:
    mask = np.array([[0, 1, 1], [2, VOID, 1]], np.uint8)
    masks = Masks(
        source=MasksInMemory([mask]),
        rows=np.array([0, -1]),
        presence_of_classes=np.array([[1, 1, 1], [-1, 1, -1]], np.int8),
    )
    pixels = masks.pixels(6)
    assert set(np.unique(pixels[0]).tolist()) == {0, 1, 2, VOID} and (pixels[1] == VOID).all()
    more = masks.with_classes([3, 0, 1], 4)
    assert set(np.unique(more.pixels(6)[0]).tolist()) == {3, 0, 1, VOID}
    assert more.presence(4).tolist() == [[1, 1, -1, 1], [1, -1, -1, -1]]
    assert masks[np.array([True, False])].known.tolist() == [True]
    assert masks.hidden(np.array([True, False])).content() != masks.content()
    with pytest.raises(IndexError):
        masks[np.array([5])]
