"""Answers that are not about their image are found without a label, by texts, by pictures or by both."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.labelling.contamination import Witness, corrected, find_cases

CLASSES, IMAGES = 6, 900


def said(true: NDArray, right: float, seed: int) -> NDArray:
    """Return calibrated probabilities that name the true class for about ``right`` of the images."""
    rng = np.random.default_rng(seed)
    sure = np.clip(rng.beta(8 * right, 8 * (1 - right), len(true)), 1 / CLASSES, 0.99)
    first = np.where(rng.random(len(true)) < sure, true, (true + rng.integers(1, CLASSES, len(true))) % CLASSES)
    found = np.repeat((1 - sure)[:, None] / (CLASSES - 1), CLASSES, axis=1)
    found[np.arange(len(true)), first] = sure
    return found.astype(np.float32)


def made(case: str, share: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return true classes, and what answers, texts and pictures say; a share of the images is of a case."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, CLASSES, IMAGES)
    some, other = rng.random(IMAGES) < share, rng.integers(0, CLASSES, IMAGES)
    of_answer = np.where(some & (case != "text"), other, true)
    of_text = np.where(some & (case in ("together", "text")), other, true)
    return true, said(of_answer, 0.95, 1), said(of_text, 0.9, 2), said(true, 0.85, 3)


def accuracy(found: NDArray, true: NDArray) -> float:
    return float((found.argmax(axis=1) == true).mean())


@pytest.mark.parametrize("witnesses", ["texts", "pictures", "both"])
def test_a_describer_that_is_too_sure_is_found_and_corrected(witnesses: str) -> None:
    true, answers, texts, pictures = made("answer", 0.3)
    everyone = np.ones(IMAGES, bool)
    by_text = Witness(texts, everyone) if witnesses != "pictures" else None
    by_picture = Witness(pictures, everyone) if witnesses != "texts" else None
    cases = find_cases(answers, np.arange(IMAGES), by_text, by_picture, 0)
    assert cases is not None and cases.rate == pytest.approx(0.3, abs=0.08)
    found = corrected(answers, cases, np.arange(IMAGES), by_text, by_picture)[:]
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-4)
    best = max(accuracy(each, true) for each in (answers, texts if by_text else pictures))
    assert accuracy(found, true) > max(accuracy(answers, true) + 0.1, best - 0.01)


def test_answer_and_text_of_another_image_are_shown_by_the_picture_alone() -> None:
    true, answers, texts, pictures = made("together", 0.3)
    everyone = np.ones(IMAGES, bool)
    assert find_cases(answers, np.arange(IMAGES), Witness(texts, everyone), None, 0) is None
    both = Witness(texts, everyone), Witness(pictures, everyone)
    cases = find_cases(answers, np.arange(IMAGES), *both, 0)
    assert cases is not None and cases.shares.argmax() == 0 and cases.shares[1:].argmax() == 3, cases
    assert accuracy(corrected(answers, cases, np.arange(IMAGES), *both)[:], true) > accuracy(answers, true) + 0.05


@pytest.mark.parametrize("count", [40, IMAGES])
def test_answers_that_say_how_sure_they_are_stay_as_they_are(count: int) -> None:
    _, answers, texts, pictures = made("none", 0.0)
    everyone = np.ones(IMAGES, bool)
    both = Witness(texts, everyone), Witness(pictures, everyone)
    assert find_cases(answers, np.arange(count), *both, 0) is None
    assert find_cases(answers, np.arange(count), None, None, 0) is None


def test_a_witness_that_does_not_know_an_image_says_nothing_of_it() -> None:
    _, answers, texts, pictures = made("answer", 0.3)
    everyone, few = np.ones(IMAGES, bool), np.arange(IMAGES) < IMAGES - 1
    changed = texts.copy()
    changed[-1] = np.roll(changed[-1], 1)
    cases = find_cases(answers, np.arange(IMAGES), Witness(texts, few), None, 0)
    assert cases is not None
    found = [corrected(answers, cases, np.arange(IMAGES), Witness(each, few), None)[:] for each in (texts, changed)]
    assert np.array_equal(*found)
    assert find_cases(answers, np.arange(IMAGES), None, Witness(pictures, everyone), 0) is not None
