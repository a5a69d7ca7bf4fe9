from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.labelling.label_noise import find_noise, find_transition, judge, raise_to
from gpt4image.training.targets import Noise, explained

CLASSES = 5


def texts(rng: np.random.Generator, count: int, sharpness: float) -> tuple[NDArray, NDArray]:
    """Calibrated probabilities (count, CLASSES) and the true classes drawn from them."""
    logits = sharpness * rng.standard_normal((count, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, np.array([rng.choice(CLASSES, p=row) for row in probabilities])


def flipped(rng: np.random.Generator, true: NDArray, noise: float) -> NDArray:
    return np.where(rng.random(len(true)) < noise, (true + rng.integers(1, CLASSES, len(true))) % CLASSES, true)


@pytest.mark.parametrize("noise", [0.2, 0.4, 0.6])
def test_noise_is_seen_with_few_labels_and_at_high_rates(noise: float):
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clean, true = texts(rng, 250, 6.0)
        labels = flipped(rng, true, noise)
        # A calibrated classifier lowers its confidence everywhere to allow for wrong labels.
        lowered = [raise_to(clean, power) for power in (0.1, 0.15, 0.2, 0.3, 0.5)]
        said = min(lowered, key=lambda each: -np.log(each[np.arange(250), labels]).sum())
        found.append(find_noise(said, labels)[0].rate)
    assert np.median(found) == pytest.approx(noise, abs=0.08)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("count", [50, 400])
def test_clean_labels_are_taken_at_their_word_however_unsure_the_texts(sharpness: float, count: int):
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found.append(find_noise(*texts(rng, count, sharpness))[0].rate)
    assert sum(rate > 0 for rate in found) <= 1


def test_classes_that_are_taken_for_another_are_found_and_uniform_noise_stays_uniform():
    rng = np.random.default_rng(0)
    clean, true = texts(rng, 600, 6.0)
    uniform = Noise(rate=0.3)
    taken = np.where(rng.random(600) < 0.3, (true + 1) % CLASSES, true)
    noise = find_transition(clean, taken, uniform, 0)
    expected = 0.7 * np.eye(CLASSES) + 0.3 * np.roll(np.eye(CLASSES), 1, axis=1)
    assert noise.transition is not None
    assert noise.matrix(CLASSES) == pytest.approx(expected, abs=0.12)
    assert noise.rate == pytest.approx(0.3, abs=0.05)
    assert find_transition(clean, flipped(rng, true, 0.3), uniform, 0).transition is None


def test_what_texts_explain_is_nothing_for_the_frequencies_and_all_for_the_labels():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=500)
    frequencies, every = np.bincount(labels) / len(labels), np.ones(500, bool)
    assert explained(np.tile(frequencies, (500, 1)), labels, every) == pytest.approx(0.0, abs=1e-6)
    assert explained(np.eye(3)[labels], labels, every) == 1.0
    shares = [explained(*texts(rng, 3000, sharpness), np.ones(3000, bool)) or 0.0 for sharpness in (0.5, 2.0, 8.0)]
    assert 0.0 < shares[0] < 0.3 < shares[1] < 0.7 < shares[2] < 1.0
    assert explained(np.eye(3)[[1, 1]], np.array([1, 1]), every[:2]) is None
    assert explained(np.eye(3)[labels], labels, ~every) is None


def test_naming_wrong_labels_is_judged():
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    found = judge(said, np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0]))
    assert (found["flipped"], found["named"], found["precision"], found["recall"]) == (1, 2, 0.5, 1.0)
    assert found["average_precision"] == 1.0
    clean = judge(said[:1], np.array([0]), np.array([0]))
    assert clean == {"flipped": 0, "named": 0, "precision": None, "recall": None, "average_precision": None}
