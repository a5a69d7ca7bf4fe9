"""Boxes are cut at their picture; what cannot be used is counted and named once per reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import DataError
from gpt4image.data.records import (
    SAMPLE,
    Corners,
    Faults,
    Object,
    Record,
    boxes_of,
    from_sides,
    number,
    picture_sizes,
    weight_of,
)
from region_cases import mask_bytes

ANY = st.floats() | st.floats(-1, 2, width=16) | st.sampled_from([0.0, 0.25, 1.0])


def no_read(row: int) -> bytes:
    raise AssertionError


PICTURE = mask_bytes(np.zeros((20, 10), np.uint8))


@given(st.lists(st.tuples(st.integers(0, 3), st.tuples(ANY, ANY, ANY, ANY), st.integers(0, 2)), max_size=12))
def test_every_box_is_kept_inside_its_picture_or_counted(found: list[tuple[int, Corners, int]]) -> None:
    records, faults = [Record(key=str(image), objects=[]) for image in range(4)], Faults()
    for position, (image, corners, label) in enumerate(found):
        records[image].objects.append(Object(f"box {position}", label, corners))  # type: ignore[union-attr]
    boxes = boxes_of(records, ["a", "b"], faults, "set", no_read, "parts")
    assert ((boxes.corners >= 0) & (boxes.corners <= 1)).all()
    assert (boxes.corners[:, 2:] > boxes.corners[:, :2]).all() and (boxes.labels < 2).all()
    dropped = sum(int(item.name.split()[1]) for item in faults.skipped("set"))
    assert len(boxes.labels) + dropped == len(found)
    given = {
        (image, (np.clip(np.array(corners), 0, 1).astype(np.float32) + np.float32(0)).tobytes(), label)
        for image, corners, label in found
        if all(map(math.isfinite, corners))
    }
    kept = zip(boxes.image_of.tolist(), boxes.corners, boxes.labels.tolist(), strict=True)
    assert {(image, (corners + np.float32(0)).tobytes(), label) for image, corners, label in kept} <= given


def test_faults_name_a_few_and_count_all() -> None:
    faults = Faults()
    for place in range(1200):
        faults.add(f"box {place}", "it is wrong")
    faults.add("one", "it is odd")
    assert [(item.name, item.reason) for item in faults.skipped("a.json")] == [
        ("a.json: 1,200 annotations", "it is wrong: 'box 0', 'box 1', 'box 2', 'box 3', 'box 4' and 1195 more"),
        ("a.json: 1 annotation", "it is odd: 'one'"),
    ]


def test_values_of_json_and_xml_and_what_is_left_of_an_image() -> None:
    assert [number(3), number(2.5), number("3")] == [3, 2.5, 3]
    assert all(math.isnan(number(value)) for value in (True, "x", "", None, [], 10**400))
    assert from_sides([1, 2, 3, 4]) == (1, 2, 4, 6)
    assert all(map(math.isnan, from_sides([1, 2, 3]))) and all(map(math.isnan, from_sides("1234")))
    assert [weight_of(True, 0.5), weight_of(False, 0.5), weight_of(False, 7), weight_of(False, None)] == [0, 0.5, 1, 1]
    lost, broken = Object("a", 0, (5, 5, 9, 9)), Object("b", 0, (0, 0, 1, 1), fault="it is wrong")
    objects = ([lost, broken], [lost, Object("c", 0, (0, 0, 1, 1))], [], None)
    records = [Record(key=str(row), objects=some) for row, some in enumerate(objects)]
    assert boxes_of(records, ["x"], Faults(), "set", no_read, "parts").known.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("stated", "picture", "meant"),
    [
        ((10, 20), PICTURE, (10, 20)),
        ((20, 40), PICTURE, (20, 40)),  # the picture was made smaller
        ((20, 10), PICTURE, (10, 20)),  # sides exchanged
        ((0, 20), PICTURE, (10, 20)),
        ((math.nan, 20), PICTURE, (10, 20)),
        ((20, 10), b"", (20, 10)),
        ((0, 10), b"", (math.nan, math.nan)),
    ],
)
def test_a_stated_size_counts_if_its_proportions_are_those_of_the_picture(
    stated: tuple[float, float], picture: bytes, meant: tuple[float, float]
) -> None:
    record = Record(key="a", size=stated, objects=[Object("box", 0, (1, 1, 2, 2))])
    np.testing.assert_array_equal(picture_sizes([record], lambda _: picture), [meant])


@pytest.mark.parametrize(("turned", "most"), [(False, SAMPLE), (True, 500)])
def test_a_sample_of_pictures_tells_whether_stated_sizes_are_right(turned: bool, most: int) -> None:
    size, read = (20.0, 10.0) if turned else (10.0, 20.0), list[int]()
    boxed = [Record(key=str(image), size=size, objects=[Object("box", 0, (1, 1, 5, 5))]) for image in range(500)]
    empty = [Record(key=str(image), size=size, objects=[]) for image in range(500, 1000)]
    sizes = picture_sizes([*boxed, *empty], lambda image: read.append(image) or PICTURE)
    assert (sizes[:500] == (10, 20)).all()
    assert most / 2 < len(read) <= most and len(set(read)) == len(read), "and those without a box are not read"


def test_boxes_in_parts_of_the_picture_are_refused_where_pixels_are_expected() -> None:
    def boxes_in_40(*corners: Corners, pixels: bool = True) -> int:
        listed = [Object(name, 0, one) for name, one in zip("abc", corners, strict=False)]
        picture = mask_bytes(np.zeros((40, 40), np.uint8))
        record = Record(key="k", size=(40, 40), objects=listed)
        unit = "corners" if pixels else "parts"
        return len(boxes_of([record], ["x"], Faults(), "set", lambda _: picture, unit).labels)

    broken, part = (math.nan, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 1.0)
    message = r"such as 0\.1, 0\.2, 0\.5, 1 of 'k, b'.* multiply them by the width and height"
    with pytest.raises(DataError, match=message):
        boxes_in_40(broken, part)
    assert boxes_in_40(broken, part, pixels=False) == 1
    assert boxes_in_40(broken, part, (3.0, 3.0, 9.0, 9.0)) == 2, "a small box among pixels"
    assert boxes_in_40((0.0, 0.0, 1.0, 1.0)) == 1, "the first pixel"
