"""Errors of human boxes: each kind is found where it is, and right boxes are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from gpt4image.data.regions import Boxes
from gpt4image.labelling.boxes import KINDS, TaughtBoxes, suspected_boxes

PLACES = ((0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9))


def boxes(*each: tuple[tuple[float, ...], int], weight: float = 1.0) -> Boxes:
    corners = np.array([place for place, _ in each], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in each], np.int64)
    return Boxes.of_images([(corners, labels, np.full(len(each), weight, np.float32))])


def taught(given: Boxes, probable: float = 0.9) -> TaughtBoxes:
    count = len(given.labels)
    return TaughtBoxes(boxes=given, probable=np.full(count, probable), drawn=np.ones(count, np.int8), weights={})


BOTH = boxes((PLACES[0], 0), (PLACES[1], 1))
MOVED = (0.1, 0.1, 0.5, 0.5)  # IoU 9 / 23 with the first place


@pytest.mark.parametrize(
    ("human", "kind", "place", "label"),
    [
        (boxes((PLACES[0], 0)), "missing", PLACES[1], 1),
        (boxes((PLACES[0], 0), (PLACES[1], 1), ((0.0, 0.7, 0.2, 0.9), 1)), "false", (0.0, 0.7, 0.2, 0.9), 1),
        (boxes((MOVED, 0), (PLACES[1], 1)), "misplaced", MOVED, 0),
        (boxes((PLACES[0], 2), (PLACES[1], 1)), "another class", PLACES[0], 2),
    ],
)
def test_each_kind_is_found(human: Boxes, kind: str, place: tuple[float, ...], label: int) -> None:
    (found,) = suspected_boxes(taught(BOTH), human)
    assert (found.kind, found.image, found.label) == (kind, 0, label)
    assert np.allclose(found.corners, place)
    assert 0 < found.doubt <= 1


def test_right_boxes_are_left_alone() -> None:
    assert suspected_boxes(taught(BOTH), BOTH) == []
    assert suspected_boxes(taught(BOTH, 0.3), boxes((PLACES[0], 0))) == [], "the teacher is not confident"
    assert suspected_boxes(taught(BOTH), boxes((PLACES[0], 0), (PLACES[1], 1), weight=0.0)) == []


def test_images_without_answer_or_annotation_are_not_judged() -> None:
    gone = np.array([True])
    assert suspected_boxes(taught(BOTH.hidden(gone)), BOTH) == []
    assert suspected_boxes(taught(BOTH), BOTH.hidden(gone)) == []


def test_an_answer_of_nothing_contradicts_every_box_the_surest_first() -> None:
    empty = Boxes.of_images([(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))])
    found = suspected_boxes(taught(empty), BOTH)
    assert [suspect.kind for suspect in found] == ["false", "false"]
    assert set(KINDS) == {"missing", "false", "misplaced", "another class"}
