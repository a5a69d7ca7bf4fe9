"""Boxes are cut at their picture; what cannot be used is counted and named once per reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data.box_checks import (
    SAMPLE,
    Corners,
    Faults,
    Listed,
    box_space,
    checked,
    from_sides,
    number,
    sizes_of_pictures,
    weight_of,
)
from region_cases import mask_bytes

ANY = st.floats() | st.floats(-1, 2, width=16) | st.sampled_from([0.0, 0.25, 1.0])


@given(st.lists(st.tuples(st.integers(0, 3), st.tuples(ANY, ANY, ANY, ANY), st.integers(0, 2)), max_size=12))
def test_every_box_is_kept_inside_its_picture_or_counted(found: list[tuple[int, Corners, int]]) -> None:
    listed, faults = Listed(), Faults()
    for position, (image, corners, label) in enumerate(found):
        listed.add(image, corners, label, 1.0, f"box {position}")
    boxes = checked(listed, np.ones((4, 2)), [True, True, False, True], 2, faults, "set")
    assert ((boxes.corners >= 0) & (boxes.corners <= 1)).all()
    assert (boxes.corners[:, 2:] > boxes.corners[:, :2]).all() and (boxes.labels < 2).all()
    dropped = sum(int(item.name.split()[1]) for item in faults.skipped("set"))
    assert len(boxes.labels) + dropped == len(found)
    given = {
        (image, np.float32(np.clip(corners, 0, 1)).tobytes(), label)
        for image, corners, label in found
        if all(map(math.isfinite, corners))
    }
    kept = zip(boxes.image_of.tolist(), boxes.corners, boxes.labels.tolist(), strict=True)
    assert {(image, (corners + np.float32(0)).tobytes(), label) for image, corners, label in kept} <= {
        (image, (np.frombuffer(corners, np.float32) + np.float32(0)).tobytes(), label)
        for image, corners, label in given
    }


def test_faults_name_a_few_and_count_all() -> None:
    faults = Faults()
    for place in range(1200):
        faults.add(f"box {place}", "it is wrong")
    faults.add("one", "it is odd")
    first, second = faults.skipped("a.json")
    assert first.name == "a.json: 1,200 annotations"
    assert first.reason == "it is wrong: 'box 0', 'box 1', 'box 2', 'box 3', 'box 4' and others"
    assert (second.name, second.reason) == ("a.json: 1 annotation", "it is odd: 'one'")


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ((10, 20), (10, 20)),
        ((20, 40), (20, 40)),  # the picture was made smaller
        ((20, 10), (10, 20)),  # sides exchanged
        ((0, 20), (10, 20)),
        ((math.nan, 20), (10, 20)),
    ],
)
def test_a_stated_size_counts_if_its_proportions_are_those_of_the_picture(
    stated: tuple[float, float], meant: tuple[float, float]
) -> None:
    picture = mask_bytes(np.zeros((20, 10), np.uint8))
    assert tuple(box_space(np.array(stated, np.float64), lambda: picture)) == meant


def test_without_a_picture_the_stated_size_counts() -> None:
    assert tuple(box_space(np.array([20.0, 10.0]), lambda: b"")) == (20, 10)
    assert np.isnan(box_space(np.array([0.0, 10.0]), lambda: b"")).all()


@pytest.mark.parametrize(("turned", "most"), [(False, SAMPLE), (True, 500)])
def test_a_sample_of_pictures_tells_whether_stated_sizes_are_right(turned: bool, most: int) -> None:
    picture, listed, read = mask_bytes(np.zeros((20, 10), np.uint8)), Listed(), list[int]()
    for image in range(500):
        listed.add(image, (1, 1, 5, 5), 0, 1.0, "box")
    stated = np.tile([20.0, 10.0] if turned else [10.0, 20.0], (1000, 1))
    sizes = sizes_of_pictures(listed, stated, lambda image: read.append(image) or picture)
    assert (sizes[:500] == (10, 20)).all()
    assert most / 2 < len(read) <= most and len(set(read)) == len(read), "and those without a box are not read"


def test_values_of_json() -> None:
    assert number(3) == 3 and number(2.5) == 2.5
    assert all(math.isnan(number(value)) for value in (True, "3", None, [], 10**400))
    assert from_sides([1, 2, 3, 4]) == (1, 2, 4, 6)
    assert all(map(math.isnan, from_sides([1, 2, 3]))) and all(map(math.isnan, from_sides("1234")))
    assert [weight_of(True, 0.5), weight_of(False, 0.5), weight_of(False, 7), weight_of(False, None)] == [0, 0.5, 1, 1]


def test_boxes_in_parts_of_the_picture_are_refused_where_pixels_are_expected() -> None:
    listed = Listed()
    listed.add(0, (math.nan, 0.0, 1.0, 1.0), 0, 1.0, "a")
    listed.add(0, (0.1, 0.2, 0.5, 1.0), 0, 1.0, "b")
    with pytest.raises(
        DataError, match=r"such as 0\.1, 0\.2, 0\.5, 1 .* of 'b'.* multiply them by the width and height"
    ):
        checked(listed, np.full((1, 2), 40.0), [True], 1, Faults(), "set")
    assert len(checked(listed, np.ones((1, 2)), [True], 1, Faults(), "set").labels) == 1  # parts are expected
    listed.add(0, (3.0, 3.0, 9.0, 9.0), 0, 1.0, "c")  # pixels, and a small box among them
    assert len(checked(listed, np.full((1, 2), 40.0), [True], 1, Faults(), "set").labels) == 2


def test_a_box_of_the_first_pixel_is_one() -> None:
    listed = Listed()
    listed.add(0, (0.0, 0.0, 1.0, 1.0), 0, 1.0, "a")
    assert len(checked(listed, np.full((1, 2), 40.0), [True], 1, Faults(), "set").labels) == 1
