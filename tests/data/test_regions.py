"""Boxes and masks: cut at their picture, counted where they cannot be used, and kept with their pixels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, MemorySource
from gpt4image.data.geometry import Geometry
from gpt4image.data.records import Corners, Faults, Object, Record, number, with_boxes
from gpt4image.data.regions import NO_ANNOTATION, NO_BOX, VOID, Masks
from worlds import MasksInMemory, any_boxes, boxes, mask_bytes

ANY = st.floats() | st.floats(-1, 2, width=16) | st.sampled_from([0.0, 0.25, 1.0])


def load(records: Sequence[Record], unit: Any = "parts", side: int = 40) -> Dataset:
    pictures = MemorySource([mask_bytes(np.zeros((side, side), np.uint8))] * len(records))
    return with_boxes("set", records, pictures, ["a", "b"], Faults(), "set.json", unit=unit)


@given(st.lists(st.tuples(st.integers(0, 3), st.tuples(ANY, ANY, ANY, ANY), st.integers(0, 2)), max_size=12))
def test_every_box_is_kept_inside_its_picture_or_counted(found: list[tuple[int, Corners, int]]) -> None:
    listed: list[list[Object]] = [[] for _ in range(4)]
    for position, (image, corners, label) in enumerate(found):
        listed[image].append(Object(f"box {position}", label, corners))
    images = load([Record(key=str(image), objects=own) for image, own in enumerate(listed)])
    kept = boxes(images)
    assert ((kept.corners >= 0) & (kept.corners <= 1)).all()
    assert (kept.corners[:, 2:] > kept.corners[:, :2]).all() and (kept.labels < 2).all()
    assert len(kept.labels) + sum(int(item.name.split()[1]) for item in images.skipped) == len(found)
    given = {
        (image, (np.clip(np.array(corners), 0, 1).astype(np.float32) + np.float32(0)).tobytes(), label)
        for image, corners, label in found
        if all(map(math.isfinite, corners))
    }
    each = zip(kept.image_of.tolist(), kept.corners, kept.labels.tolist(), strict=True)
    assert {(image, (corners + np.float32(0)).tobytes(), label) for image, corners, label in each} <= given


def test_faults_name_a_few_and_count_all_and_an_image_that_lost_all_it_had_is_not_annotated() -> None:
    faults = Faults()
    for place in range(1200):
        faults.add(f"box {place}", "it is wrong")
    assert [(item.name, item.reason) for item in faults.skipped("a.json")] == [
        ("a.json: 1,200 annotations", "it is wrong: 'box 0', 'box 1', 'box 2', 'box 3', 'box 4' and 1195 more")
    ]
    assert [number(3), number("3")] == [3, 3] and math.isnan(number(10**400)) and math.isnan(number(True))
    lost, broken = Object("a", 0, (5, 5, 9, 9)), Object("b", 0, (0, 0, 1, 1), fault="it is wrong")
    objects = ([lost, broken], [lost, Object("c", 0, (0, 0, 1, 1))], [], None)
    records = [Record(key=str(row), objects=some) for row, some in enumerate(objects)]
    assert boxes(load(records)).known.tolist() == [False, True, True, False]


def test_boxes_in_parts_of_the_picture_are_refused_where_pixels_are_expected() -> None:
    def count(*corners: Corners, unit: str = "pixels") -> int:
        listed = [Object(name, 0, one) for name, one in zip("abc", corners, strict=False)]
        return len(boxes(load([Record(key="k", size=(40, 40), objects=listed)], unit)).labels)

    broken, part = (math.nan, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 1.0)
    with pytest.raises(DataError, match=r"such as 'k, a'.* multiply them by its width"):
        count(broken, part)
    assert count(broken, part, unit="parts") == 1
    assert count(broken, part, (3.0, 3.0, 9.0, 9.0)) == 2, "a small box among pixels"
    assert count((0.0, 0.0, 1.0, 1.0)) == 1, "the first pixel"


@given(st.integers(0, 200), st.lists(st.integers(0, 5), max_size=8))
def test_choosing_images_keeps_the_boxes_of_each_and_padded_rows_hold_each_once(seed: int, rows: list[int]) -> None:
    boxes = any_boxes(seed, images=6, classes=4)
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
