"""Thresholds per class: the rule against brute force, and against what is known of its two ends."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.tasks.thresholds import PRIOR, USUAL, best_thresholds, checked_thresholds

IMAGES = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-1, 0, 1])), min_size=1, max_size=12)
"""Probabilities in eighths, so that many are equal, each with a label."""


def blended_f1(images: list[tuple[int, int]], threshold: float) -> Fraction:
    """F1 of the rule, exactly, one image at a time."""
    positives = sum(label == 1 for _, label in images)
    weight = Fraction(positives) / (positives + Fraction(PRIOR))
    right = wanted = predicted = Fraction(0)
    for eighths, label in images:
        present = weight * (label == 1) + (1 - weight) * Fraction(eighths, 8)
        wanted += present
        if eighths / 8 >= threshold:
            right += present
            predicted += weight * (label >= 0) + (1 - weight)
    return 2 * right / (wanted + predicted) if wanted + predicted else Fraction(0)


@given(IMAGES)
def test_no_other_threshold_has_a_larger_f1(images: list[tuple[int, int]]) -> None:
    scores = np.array([[eighths / 8] for eighths, _ in images], np.float32)
    (found,) = best_thresholds(scores, np.array([[label] for _, label in images], np.int8))
    best = max(blended_f1(images, cut / 16) for cut in range(18))
    assert 0.0 <= found <= 1.0
    assert float(blended_f1(images, found)) == pytest.approx(float(best), abs=1e-12)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=30))
def test_without_labels_a_class_is_present_from_half_the_best_f1_on(hundredths: list[int]) -> None:
    """Theorem of Lipton et al. for probabilities that are right."""
    scores = np.array(hundredths)[:, None] / 100
    (found,) = best_thresholds(scores, np.full(scores.shape, -1))
    best = float(blended_f1([(8 * Fraction(part, 100), -1) for part in hundredths], found))
    assert (scores[scores < found] <= best / 2 + 1e-9).all() and (scores[scores >= found] >= best / 2 - 1e-9).all()


def test_a_threshold_has_few_digits_and_a_class_of_no_probability_the_usual_one() -> None:
    scores = np.array([[0.1234567, 0.0], [0.4, 0.0]], np.float32)
    assert best_thresholds(scores, np.array([[0, -1], [1, -1]])) == (0.26, USUAL)


@pytest.mark.parametrize("value", [[0.5], [0.5, 1.5], [0.5, float("nan")], [0.5, "0.5"], [0.5, True], 0.5, {"a": 1}])
def test_thresholds_of_a_record_are_one_number_per_class(value: object) -> None:
    with pytest.raises(ValueError, match="must be 2 numbers between 0 and 1, one per class, not"):
        checked_thresholds(value, 2)
    assert checked_thresholds([0, 0.25], 2) == (0.0, 0.25) and checked_thresholds(None, 2) is None
