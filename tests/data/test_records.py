"""Boxes are cut at their picture; what cannot be used is counted and named once per reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data import Dataset, MemorySource
from gpt4image.data.records import SAMPLE, Corners, Faults, Object, Record, number, picture_sizes, with_boxes
from region_cases import boxes, mask_bytes

ANY = st.floats() | st.floats(-1, 2, width=16) | st.sampled_from([0.0, 0.25, 1.0])
PICTURE = mask_bytes(np.zeros((20, 10), np.uint8))


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
        ("a.json: 1,200 annotations", "it is wrong: 'box 0', 'box 1', 'box 2', 'box 3', 'box 4' and 1195 more"),
    ]
    assert [number(3), number("3")] == [3, 3] and math.isnan(number(10**400)) and math.isnan(number(True))
    lost, broken = Object("a", 0, (5, 5, 9, 9)), Object("b", 0, (0, 0, 1, 1), fault="it is wrong")
    objects = ([lost, broken], [lost, Object("c", 0, (0, 0, 1, 1))], [], None)
    records = [Record(key=str(row), objects=some) for row, some in enumerate(objects)]
    assert boxes(load(records)).known.tolist() == [False, True, True, False]


@pytest.mark.parametrize(("turned", "most"), [(False, SAMPLE), (True, 500)])
def test_a_sample_of_pictures_tells_whether_stated_sizes_are_right(turned: bool, most: int) -> None:
    size, read = (20.0, 10.0) if turned else (10.0, 20.0), list[int]()
    boxed = [Record(key=str(image), size=size, objects=[Object("box", 0, (1, 1, 5, 5))]) for image in range(500)]
    empty = [Record(key=str(image), size=size, objects=[]) for image in range(500, 1000)]
    sizes = picture_sizes([*boxed, *empty], lambda image: read.append(image) or PICTURE)
    assert (sizes[:500] == (10, 20)).all()
    assert picture_sizes(boxed[:1], lambda _: b"").tolist() == [[*size]], "of a picture that cannot be read"
    assert most / 2 < len(read) <= most and len(set(read)) == len(read), "and those without a box are not read"


def test_boxes_in_parts_of_the_picture_are_refused_where_pixels_are_expected() -> None:
    def count(*corners: Corners, unit: str = "corners") -> int:
        listed = [Object(name, 0, one) for name, one in zip("abc", corners, strict=False)]
        return len(boxes(load([Record(key="k", size=(40, 40), objects=listed)], unit)).labels)

    broken, part = (math.nan, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 1.0)
    with pytest.raises(DataError, match=r"such as 0\.1, 0\.2, 0\.5, 1 of 'k, b'.* multiply them by the width"):
        count(broken, part)
    assert count(broken, part, unit="parts") == 1
    assert count(broken, part, (3.0, 3.0, 9.0, 9.0)) == 2, "a small box among pixels"
    assert count((0.0, 0.0, 1.0, 1.0)) == 1, "the first pixel"
