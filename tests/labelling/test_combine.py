"""The one model that joins sources, and answers that are not about their image."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.labelling.combine import Labels, Source, combine, corrected, find_cases
from gpt4image.labelling.evidence import Answers

CLASSES = 4


def source(rng: np.random.Generator, true: NDArray, right: float, prior: float = 1.0, name: str = "one") -> Source:
    """A source that is as sure as it is right, ``right`` of the time."""
    first = np.where(rng.random(len(true)) < right, true, (true + rng.integers(1, CLASSES, len(true))) % CLASSES)
    answers = Answers(first, np.full(len(true), -1), np.full(len(true), right, np.float32))
    stated = answers.probabilities(CLASSES)
    return Source(name=name, probabilities=stated, known=answers.given, prior=prior, first=first)


def labels_of(rows: NDArray, labels: NDArray) -> Labels:
    return Labels(rows, labels, np.eye(CLASSES, dtype=np.float32)[labels])


@settings(max_examples=6)
@given(st.integers(0, 10_000), st.sampled_from([0, 8, 60]))
def test_probabilities_sum_to_one_and_classes_have_no_order(seed: int, labelled: int):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, 200)
    sources = [source(rng, true, 0.8), source(rng, true, 0.6, name="two")]
    sources[1].known[::3] = False
    labels = labels_of(np.arange(labelled), true[:labelled])
    found, _ = combine(sources, labels, 0)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    order = rng.permutation(CLASSES)
    place = np.argsort(order)
    moved = [
        replace(one, probabilities=one.probabilities[:, order], first=place[one.first])
        for one in sources
        if one.first is not None
    ]
    again, _ = combine(moved, labels_of(labels.rows, place[labels.given]), 0)
    assert again == pytest.approx(found[:, order], abs=1e-3)


def test_a_systematic_confusion_is_learned_and_few_labels_do_not_overturn_the_answer():
    rng = np.random.default_rng(1)
    true = rng.integers(0, CLASSES, 4000)
    first = np.where(true == 0, 1, true)  # every 0 is answered 1
    answers = Answers(first, np.full(4000, -1), np.full(4000, 0.9, np.float32))
    stated = answers.probabilities(CLASSES)
    one = Source(name="one", probabilities=stated, known=answers.given, prior=1.0, first=first)
    shares = []
    for count in (0, 40, 400):
        found, _ = combine([one], labels_of(np.arange(count), true[:count]), 0)
        asked = np.flatnonzero(first == 1)
        shares.append(float(found[asked[asked >= count], 0].mean()))
        assert (found[count:].argmax(axis=1) == first[count:])[true[count:] > 1].all()
    assert shares[0] == pytest.approx(0.1 / 3, abs=1e-3)
    assert shares[0] < shares[1] < shares[2] and 0.3 < shares[2] < 0.6


def test_a_shrunk_weight_stays_by_its_prior_until_labels_speak_clearly():
    rng = np.random.default_rng(3)
    true = rng.integers(0, CLASSES, 2000)
    good = replace(source(rng, true, 0.9), first=None)
    boast = replace(good, probabilities=good.probabilities.copy())
    boast.probabilities[:1000] = good.probabilities[rng.permutation(1000)]  # as sure, and wrong for half of the images
    texts = replace(source(rng, true, 0.6, prior=0.0, name="texts"), first=None)

    def weight(other: Source, count: int, shrunk: bool) -> float:
        rows = np.random.default_rng(0).permutation(2000)[:count]
        return combine([other, replace(texts, shrunk=shrunk)], labels_of(rows, true[rows]), 0)[1]["texts"]

    assert weight(good, 40, True) < 0.05 < 0.15 < weight(good, 40, False)
    assert weight(boast, 40, True) > 0.4, "labels that speak clearly are believed"
    assert weight(boast, 400, True) == pytest.approx(weight(boast, 400, False), abs=0.2)


def test_a_label_does_not_change_its_own_prediction_and_unknown_images_have_none():
    rng = np.random.default_rng(2)
    true = rng.integers(0, CLASSES, 300)
    sources = [source(rng, true, 0.7), source(rng, true, 0.6, name="two")]
    for one in sources:
        one.known[290:] = False
    labels = true[:80]
    before, _ = combine(sources, labels_of(np.arange(80), labels), 0)
    changed = labels.copy()
    changed[5] = (labels[5] + 1) % CLASSES
    after, _ = combine(sources, labels_of(np.arange(80), changed), 0)
    assert np.abs(after - before).max() > 1e-4, "others have learned from it"
    assert after[5] == pytest.approx(before[5], abs=1e-6)
    assert not after[290:].any()


KINDS, IMAGES = 6, 900


def said(true: NDArray, right: float, seed: int) -> NDArray:
    """Return calibrated probabilities that name the true class for about ``right`` of the images."""
    rng = np.random.default_rng(seed)
    sure = np.clip(rng.beta(8 * right, 8 * (1 - right), len(true)), 1 / KINDS, 0.99)
    first = np.where(rng.random(len(true)) < sure, true, (true + rng.integers(1, KINDS, len(true))) % KINDS)
    found = np.repeat((1 - sure)[:, None] / (KINDS - 1), KINDS, axis=1)
    found[np.arange(len(true)), first] = sure
    return found.astype(np.float32)


def made(case: str, share: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return true classes, and what answers, texts and pictures say; a share of the images is of a case."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, KINDS, IMAGES)
    some, other = rng.random(IMAGES) < share, rng.integers(0, KINDS, IMAGES)
    of_answer = np.where(some & (case != "text"), other, true)
    of_text = np.where(some & (case in ("together", "text")), other, true)
    return true, said(of_answer, 0.95, 1), said(of_text, 0.9, 2), said(true, 0.85, 3)


def witness(probabilities: NDArray) -> Source:
    return Source(name="", probabilities=probabilities, known=np.ones(IMAGES, bool), prior=0.0)


def accuracy(found: NDArray, true: NDArray) -> float:
    return float((found.argmax(axis=1) == true).mean())


@pytest.mark.parametrize("witnesses", ["texts", "pictures", "both"])
def test_a_describer_that_is_too_sure_is_found_and_corrected(witnesses: str) -> None:
    true, answers, texts, pictures = made("answer", 0.3)
    by_text = witness(texts) if witnesses != "pictures" else None
    by_picture = witness(pictures) if witnesses != "texts" else None
    cases = find_cases(answers, np.arange(IMAGES), by_text, by_picture, 0)
    assert cases is not None and cases.rate == pytest.approx(0.3, abs=0.08)
    found = corrected(answers, cases, np.arange(IMAGES), by_text, by_picture)[:]
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-4)
    best = max(accuracy(each, true) for each in (answers, texts if by_text else pictures))
    assert accuracy(found, true) > max(accuracy(answers, true) + 0.1, best - 0.01)


def test_answer_and_text_of_another_image_are_shown_by_the_picture_alone() -> None:
    true, answers, texts, pictures = made("together", 0.3)
    assert find_cases(answers, np.arange(IMAGES), witness(texts), None, 0) is None
    both = witness(texts), witness(pictures)
    cases = find_cases(answers, np.arange(IMAGES), *both, 0)
    assert cases is not None and cases.shares.argmax() == 0 and cases.shares[1:].argmax() == 3, cases
    assert accuracy(corrected(answers, cases, np.arange(IMAGES), *both)[:], true) > accuracy(answers, true) + 0.05
