"""Boxes of several answers: which are of one object, and how many answers have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.artifacts.answers import Answer
from gpt4image.labelling.answers import box_votes


def box(*numbers: float, label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "box_2d": list(numbers), **more}


def answers(*each: list[dict[str, Any]]) -> list[Answer]:
    return [Answer(boxes=tuple(boxes)) for boxes in each]


def test_answers_that_agree_are_one_box_with_mean_corners() -> None:
    votes = box_votes(
        [
            *answers(
                [box(0, 0, 100, 100, words="a cat", truncated=True, confidence=0.9), box(500, 500, 900, 900)],
                [box(6, 0, 106, 100, words="a cat", truncated=False, confidence=0.6)],
                [box(3, 3, 103, 97, words="a tom"), box(0, 0, 100, 100, label="dog")],
                [],
            ),
            Answer(class_name="cat"),
        ]
    )
    assert [(one.label, one.share) for one in votes] == [("cat", 0.75), ("cat", 0.25), ("dog", 0.25)]
    first = votes[0]
    np.testing.assert_allclose(first.corners, [3, 1, 103, 99])
    assert (first.truncated, first.confidence, first.words) == (0.5, pytest.approx(0.75), ("a cat", "a tom"))
    assert (votes[1].truncated, votes[1].confidence, votes[1].words) == (None, None, ())


def test_an_answer_has_one_box_per_object_and_the_best_pair_comes_first() -> None:
    votes = box_votes(answers([box(0, 0, 100, 100)], [box(0, 0, 100, 70), box(0, 0, 100, 95)]))
    assert [(one.share, one.corners.tolist()) for one in votes] == [(1.0, [0, 0, 100, 97.5]), (0.5, [0, 0, 100, 70])]


def test_without_answers_there_is_no_box() -> None:
    assert box_votes([]) == box_votes([Answer()]) == box_votes(answers([], [])) == []


BOX = st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(1, 100), st.integers(1, 100)).map(
    lambda n: box(n[0], n[1], n[0] + n[2], n[1] + n[3])
)


@given(st.lists(st.lists(BOX, max_size=6), min_size=1, max_size=5))
def test_every_box_is_counted_once(each: list[list[dict[str, Any]]]) -> None:
    votes = box_votes(answers(*each))
    assert sum(round(one.share * len(each)) for one in votes) == sum(map(len, each))
    assert all(0 < one.share <= 1 and (one.corners[2:] > one.corners[:2]).all() for one in votes)
    assert [one.share for one in votes] == sorted((one.share for one in votes), reverse=True)
