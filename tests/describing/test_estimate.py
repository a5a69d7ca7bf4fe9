"""The sample that an estimate is made from."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gpt4image.describing.estimate import IMAGES_IN_SAMPLE, sample_of
from loaded_sets import in_memory


@pytest.mark.parametrize("count", [1, 3, 8, 9, 1000])
def test_a_sample_is_spread_over_the_distinct_images_and_always_the_same(count: int) -> None:
    contents = [str(number).encode() for number in range(count)]
    found = sample_of(in_memory(contents + contents[:1]))
    assert found == sample_of(in_memory(contents)), "a copy changes nothing"
    places = sorted(number for number in range(count) if hashlib.sha256(contents[number]).hexdigest() in found)
    assert len(places) == len(found) == min(IMAGES_IN_SAMPLE, count)
    gaps = np.diff([-(count / len(places)) / 2, *places])
    assert gaps.max() <= count / len(places) + 1
