"""What validation images decide: temperatures, scores of boxes, and records of both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from gpt4image.data.dataset import NO_LABEL
from gpt4image.tasks.classification import Classification, one_hot
from gpt4image.tasks.decision import Decision, binary_temperatures, exclusive_temperature, score_sigmoid
from gpt4image.tasks.multilabel import NOT_KNOWN, MultiLabel


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 4.0))
def test_a_model_that_was_sharpened_is_brought_back(seed: int, sharper: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (4000, 5))
    truth = softmax(logits, axis=1)
    labels = (truth.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    task, stated = Classification(), softmax(logits * sharper, axis=1).astype(np.float32)
    (found,) = task.temperature(stated, labels, None)
    assert found == pytest.approx(sharper, rel=0.12)
    assert np.abs(task.calibrated(stated, (found,)) - truth).max() < 0.05
    (by_targets,) = task.temperature(stated, np.full(4000, NO_LABEL), truth)
    assert by_targets == pytest.approx(sharper, rel=0.02), "a teacher's targets say it where there is no label"


def test_few_images_move_a_temperature_little() -> None:
    right = np.full((3, 2), (0.9, 0.1), np.float32)
    assert 0.5 < exclusive_temperature(right, one_hot(np.zeros(3, np.int64), 2)) < 1.0
    assert Classification().temperature(right, np.full(3, NO_LABEL), None) == (1.0,)


def test_each_tag_has_a_temperature_and_one_without_labels_that_of_all() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, (3000, 3))
    labels = (rng.random(odds.shape) < expit(odds)).astype(np.int8)
    labels[:, 2] = NOT_KNOWN
    stated = expit(odds * np.array([1.5, 3.0, 1.0])).astype(np.float32)
    first, second, unknown = MultiLabel().temperature(stated, labels, None)
    assert (first, second) == pytest.approx((1.5, 3.0), rel=0.12)
    targets = np.where(labels == NOT_KNOWN, np.nan, labels.astype(np.float64))
    assert first < unknown < second and binary_temperatures(stated, targets)[2] == unknown
    again = MultiLabel().calibrated(stated, (first, second, 1.0))
    assert np.abs(again[:, :2] - expit(odds[:, :2])).max() < 0.06


def test_scores_of_boxes_say_how_often_they_are_right() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(5000)
    right = rng.random(5000) < expit(2.0 * np.log(score / (1 - score)) - 1.0)
    assert score_sigmoid(score, right) == pytest.approx((2.0, -1.0), abs=0.2)


@pytest.mark.parametrize(
    "record", [{"thresholds": [0.5]}, {"thresholds": [0.5, 1.5]}, {"score": [1.0]}, {"other": 1}, 3]
)
def test_records_that_do_not_fit_two_classes_are_refused(record: object) -> None:
    with pytest.raises(ValueError, match=r"thresholds|score|other|decision"):
        Decision.of(record, 2)
    assert Decision.of({"thresholds": [0, 0.25]}, 2).thresholds == (0.0, 0.25) and Decision.of(None, 2) == Decision()
