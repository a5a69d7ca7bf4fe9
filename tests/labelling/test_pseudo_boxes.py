"""Boxes of a trained detector as targets: the threshold is the one that agrees best with human boxes."""

from __future__ import annotations

import numpy as np

from gpt4image.data.regions import Boxes
from gpt4image.labelling.boxes import UNSURE, USUAL_THRESHOLD, best_threshold, pseudo_boxes

RIGHT, WRONG = [0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]


def predicted(*rows: tuple[list[float], float, int]) -> np.ndarray:
    found = np.zeros((1, 4, 6), np.float32)
    for place, (corners, score, label) in enumerate(rows):
        found[0, place] = [*corners, score, label]
    return found


def human(images: int = 1) -> Boxes:
    one = (np.array([RIGHT], np.float32), np.array([1]), np.ones(1, np.float32))
    return Boxes.of_images([one] * images)


def test_the_best_threshold_parts_right_from_wrong_boxes() -> None:
    rows = np.concatenate(
        [predicted((RIGHT, 0.8, 1), (WRONG, 0.2, 1)), predicted((RIGHT, 0.6, 1), (WRONG, 0.3, 1)), predicted()]
    )
    assert best_threshold(rows, human(3), 2) == np.float32(0.6)


def test_without_a_right_box_nothing_can_be_chosen() -> None:
    assert best_threshold(predicted((RIGHT, 0.8, 0)), human(), 2) is None, "of another class"
    unknown = human().hidden(np.array([True]))
    assert best_threshold(predicted((RIGHT, 0.8, 1)), unknown, 2) is None
    assert pseudo_boxes(predicted((RIGHT, USUAL_THRESHOLD, 1)), None).known.all()


def test_boxes_between_thresholds_count_for_nothing_and_images_without_a_sure_one_are_not_annotated() -> None:
    rows = np.concatenate(
        [predicted((RIGHT, 0.8, 1), (WRONG, 0.6 * UNSURE, 0), (WRONG, 0.1, 0)), predicted((WRONG, 0.5, 1)), predicted()]
    )
    found = pseudo_boxes(rows, 0.6)
    assert found.known.tolist() == [True, False, False]
    assert found.weights.tolist() == [1, 0] and found.labels.tolist() == [1, 0]
