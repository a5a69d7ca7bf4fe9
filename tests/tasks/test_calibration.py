"""How sure a model is: errors, the error of chance, and the probability from which on it is right often enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.tasks.calibration import at_least, border, calibration, calibration_error


def stated(seed: int, count: int) -> np.ndarray:
    """Return confidences of two classes."""
    return np.random.default_rng(seed).uniform(0.5, 1, count)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.floats(-0.3, 0.0))
def test_the_error_is_how_far_all_are_off_and_never_less(seed: int, count: int, off: float) -> None:
    confidence = stated(seed, count)
    right = np.random.default_rng(seed + 1).random(count) < confidence + off
    error = calibration_error(confidence, right)
    assert abs(confidence.mean() - right.mean()) - 1e-9 <= error <= 1


def test_a_model_that_is_as_sure_as_it_is_right_is_at_the_floor() -> None:
    confidence = stated(0, 20_000)
    two = np.stack([confidence, 1 - confidence], axis=1)
    labels = (np.random.default_rng(1).random(len(two)) >= confidence).astype(np.int64)
    found, error = calibration(two, labels), calibration_error(confidence, labels == 0)
    assert error <= found["floor95"] < 0.02 and found["floor"] < calibration(two[:300], labels[:300])["floor"]
    assert found["brier"] == pytest.approx(2 * ((confidence - (labels == 0)) ** 2).mean())
    assert sum(images for *_, images in found["bins"]) == len(two)
    assert found["sure"]["right"] / found["sure"]["images"] == pytest.approx(0.95, abs=0.01)


@given(st.integers(0, 2**32 - 1), st.floats(0.6, 0.99))
def test_from_the_border_on_enough_are_right_and_below_it_too_few(seed: int, wanted: float) -> None:
    confidence = stated(seed, 500).round(2)
    right = np.random.default_rng(seed + 1).random(500) < confidence
    least = border(confidence, right, wanted)
    assert least > 1 or right[confidence >= least].mean() >= wanted
    lower = [right[confidence >= value] for value in np.unique(confidence[confidence < least])]
    assert all(some.sum() < wanted * (len(some) + 1) for some in lower)


def test_what_a_border_promises_is_measured_on_images_that_did_not_choose_it() -> None:
    found = []
    for seed in range(40):
        confidence = stated(seed, 400)
        right = np.random.default_rng(seed + 99).random(400) < confidence
        found.append(at_least(confidence, right, 0.9))
    assert np.mean([each.right for each in found]) == pytest.approx(0.9, abs=0.015)
    assert all(low <= each.answered <= high for each in found for low, high in [each.answered_ci95])
    nothing = at_least(np.full(10, 0.9), np.zeros(10, bool), 0.5)
    assert nothing.probability > 1 and nothing.answered == 0 and nothing.right is None
