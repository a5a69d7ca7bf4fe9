"""Segments: checked before the library sees them, and drawn as COCO's own tools draw them."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from faster_coco_eval.core import mask
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.data.coco_segments import MAX_OUTLINE, Segment, SegmentSource, bounds, segment

COORDINATES = st.floats(-50, 90, width=32)


@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=8))
def test_a_polygon_covers_what_the_reference_does_once_it_is_cut_at_the_borders(
    points: list[tuple[float, float]],
) -> None:
    found = segment([[float(value) for point in points for value in point]], (40, 20), 3)
    assert isinstance(found, Segment)
    drawn = SegmentSource(np.array([[40.0, 20.0]]), [[found]]).read(0)
    cut = np.clip(points, 0, (40, 20)).astype(np.float32).reshape(-1).tolist()
    assert np.array_equal(drawn, 3 * mask.decode(mask.frPyObjects([cut], 20, 40))[..., 0])


@given(st.integers(0, 1000))
def test_compressed_run_lengths_are_read(seed: int) -> None:
    region = np.random.default_rng(seed).random((20, 40)) < 0.3
    runs = mask.encode(np.asfortranarray(region.astype(np.uint8)))
    counts = runs["counts"]
    found = segment({"size": [20, 40], "counts": counts.decode() if isinstance(counts, bytes) else counts}, (40, 20), 1)
    assert isinstance(found, Segment)
    assert np.array_equal(SegmentSource(np.array([[40.0, 20.0]]), [[found]]).read(0) == 1, region)
    ys, xs = np.nonzero(region)
    where = bounds({"size": [20, 40], "counts": counts.decode()}, (40, 20))
    assert where == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_the_objects_of_a_picture_are_drawn_one_at_a_time() -> None:
    side, found = 1000, [segment([[n, n, 900, n, 900, 900, n, 900]], (1000, 1000), n) for n in range(1, 41)]
    source = SegmentSource(np.array([[side, side]]), [[one for one in found if isinstance(one, Segment)]])
    tracemalloc.start()
    pixels = source.read(0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [pixels[n, n] for n in (1, 20, 40, 899)] == [1, 20, 40, 40]
    assert most < 6 * side**2


@pytest.mark.parametrize(
    ("value", "size", "reason"),
    [
        ([[0, 0, 1e30, 0, 1e30, 1e30, 0, 1e30] * 1000], (7000, 7000), "outline is too long"),
        ({"size": [10**5, 10**5], "counts": [10**10]}, (10**5, 10**5), "above 50,000,000 pixels"),
        ({"size": [20, 40], "counts": [1] * 10}, (40, 20), "do not add up"),
        ([[1, 1, 2, 2, 3, 3]], (float("nan"), 20), "size of its picture"),
        ([[True, "a", 2, 2, 3, 3]], (40, 20), "no number"),
        ("text", (40, 20), "no segmentation"),
    ],
)
def test_bombs_are_refused_at_once(value: object, size: tuple[float, float], reason: str) -> None:
    start = time.process_time()
    found = segment(value, size, 1)
    assert isinstance(found, str) and reason in found
    assert time.process_time() - start < 1
    assert MAX_OUTLINE < 10**7
