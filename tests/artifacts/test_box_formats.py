"""Coordinates of boxes: every convention is read as what it means, and what comes out is fit for use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.box_formats import BOX_FAULTS, box_counts, corners, in_thousandths, overlap
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.config import BOX_FORMATS

PICTURE = (2000, 1000)
WRITTEN = {
    **{"xyxy-1000": [100, 200, 400, 800], "yxyx-1000": [200, 100, 800, 400]},
    **{"xywh-1000": [100, 200, 300, 600], "yxhw-1000": [200, 100, 600, 300]},
    **{"xyxy-1": [0.1, 0.2, 0.4, 0.8], "yxyx-1": [0.2, 0.1, 0.8, 0.4]},
    **{"xywh-1": [0.1, 0.2, 0.3, 0.6], "yxhw-1": [0.2, 0.1, 0.6, 0.3]},
    **{"xyxy-sent": [50, 50, 200, 200], "yxyx-sent": [50, 50, 200, 200]},
    **{"xywh-sent": [50, 50, 150, 150], "yxhw-sent": [50, 50, 150, 150]},
    **{"xyxy-original": [200, 200, 800, 800], "yxyx-original": [200, 200, 800, 800]},
    **{"xywh-original": [200, 200, 600, 600], "yxhw-original": [200, 200, 600, 600]},
}
"""The same box, of an image that is sent with 500 x 250 pixels, in every convention."""
MEANT = [100, 200, 400, 800]


def box(*numbers: float, label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "box_2d": list(numbers), **more}


def answer(*boxes: dict[str, Any], **more: Any) -> Answer:
    return Answer(boxes=boxes, **{"picture": PICTURE, **more})


@pytest.mark.parametrize("name", BOX_FORMATS)
def test_every_convention_is_read_as_what_it_means(name: str) -> None:
    assert corners([WRITTEN[name]], name, PICTURE, 500).tolist() == [pytest.approx(MEANT)]
    found = in_thousandths(answer(box(*WRITTEN[name], words="a cat", truncated=True)), name, 500)
    assert found == Answer(boxes=(box(*MEANT, words="a cat", truncated=True),)) and found.box_faults is None


def test_boxes_that_are_of_no_use_are_left_out_and_counted() -> None:
    kept = [box(10, 20, 500, 600, words="first"), box(11, 20, 500, 601, label="dog"), box(-50, 700, 300, 1200)]
    others = [box(11, 20, 500, 601), box(0, 5, 1000, 1000)]
    empty = [box(5, 5, 5, 900), box(900, 5, 800, 900), box(1100, 5, 1200, 900)]
    found = in_thousandths(answer(*kept, *others, *empty, box_faults={"unusable": 3}))
    assert [one["box_2d"] for one in found.boxes or ()] == [[10, 20, 500, 600], [11, 20, 500, 601], [0, 700, 300, 1000]]
    assert found.box_faults == {"unusable": 3, "clipped": 1, "no_area": 3, "duplicates": 1, "whole_image": 1}
    assert in_thousandths(found) == found, "what was made fit for use stays as it is"
    counts = box_counts([found, Answer(), answer()], ["cat"])
    faults = {f"boxes_{fault}": count for fault, count in found.box_faults.items()}
    assert counts == {"boxes": 3, "boxes_outside_list": 1, **faults}
    assert box_counts([Answer()]) == {} and box_counts([found])["boxes_outside_list"] == 0
    whole = answer(box(0, 0, 1000, 1000))
    assert in_thousandths(whole).boxes == whole.boxes, "a single box may be the whole image"
    unknown = in_thousandths(answer(box(1, 2, 3, 4), picture=(0, 0)), "xyxy-original")
    assert unknown.boxes == () and unknown.box_faults == {"no_area": 1}, "pixels of what size?"


NUMBERS = st.integers(-(10**8), 10**8) | st.floats(-1e8, 1e8) | st.integers(0, 1000)


@given(
    st.lists(st.tuples(st.lists(NUMBERS, min_size=4, max_size=4), st.sampled_from("ab")), max_size=8),
    st.sampled_from(BOX_FORMATS),
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    st.none() | st.integers(1, 2000),
)
def test_boxes_lie_within_the_image_and_have_an_area(
    given_: list[tuple[list[float], str]], name: str, picture: tuple[int, int], max_side: int | None
) -> None:
    found = in_thousandths(answer(*(box(*n, label=label) for n, label in given_), picture=picture), name, max_side)
    assert found.picture is None and len(found.boxes or ()) <= len(given_)
    for one in found.boxes or ():
        left, top, right, bottom = one["box_2d"]
        assert 0 <= left < right <= 1000 and 0 <= top < bottom <= 1000
    assert set(found.box_faults or {}) <= set(BOX_FAULTS)
    assert in_thousandths(found) == found


def test_the_overlap_is_that_of_torchvision() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(0, 1000, (n, 2, 2)), axis=1).reshape(n, 4) for n in (7, 5))
    np.testing.assert_allclose(overlap(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-12)
    assert overlap(a, a[:0]).shape == (7, 0) and overlap(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]


def test_the_store_reads_boxes_by_the_convention_of_their_describer(tmp_path: Path) -> None:
    me, other = {"kind": "test", "max_side": 500}, {"kind": "other"}
    written = answer(box(50, 60, 200, 210))
    row = Description(digest="a" * 64, prompt=PROMPTS["short"], describer=me, created=0.0, answer=written)
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([row])
        assert store.box_formats() == {}
        before = store.fingerprint()
        (as_asked,) = store.answers()
        store.set_box_format(other, "xyxy-1", {})
        store.set_box_format(me, "yxyx-1", {})
        store.set_box_format(me, "yxyx-sent", {"iou": 0.9})
        store.set_box_format({"kind": "test"}, "polar", {})  # of a later version
        assert store.box_formats() == {'{"kind":"other"}': "xyxy-1", '{"kind":"test","max_side":500}': "yxyx-sent"}
        assert store.fingerprint() != before, "texts and boxes that are read otherwise are others"
    with DescriptionStore(tmp_path / "a.db") as store:
        (found,), (raw,) = store.answers(), store.answers(as_written=True)
        (described,) = store.descriptions()
    assert as_asked.answer.boxes == (box(50, 60, 200, 210),)
    assert found.answer == described.answer == Answer(boxes=(box(120, 200, 420, 800),))
    assert raw.answer == written
