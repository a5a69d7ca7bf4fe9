from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.labelling.answers import Answers
from gpt4image.labelling.fusion import Evidence, Expert, fuse

CLASSES = 4


def expert(rng: np.random.Generator, true: NDArray, right: float, prior: float = 1.0, name: str = "one") -> Expert:
    """An expert that is as sure as it is right, ``right`` of the time."""
    first = np.where(rng.random(len(true)) < right, true, (true + rng.integers(1, CLASSES, len(true))) % CLASSES)
    answers = Answers(first, np.full(len(true), -1), np.full(len(true), right, np.float32))
    stated = answers.probabilities(CLASSES)
    return Expert(name=name, probabilities=stated, known=answers.given, prior=prior, first=first)


def evidence(rows: NDArray, labels: NDArray) -> Evidence:
    return Evidence(rows, labels, np.eye(CLASSES, dtype=np.float32)[labels], None)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0, 8, 60]))
def test_probabilities_sum_to_one_and_classes_have_no_order(seed: int, labelled: int):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, 200)
    experts = [expert(rng, true, 0.8), expert(rng, true, 0.6, name="two")]
    experts[1].known[::3] = False
    labels = evidence(np.arange(labelled), true[:labelled])
    found, _ = fuse(experts, labels, 0)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    order = rng.permutation(CLASSES)
    place = np.argsort(order)
    moved = [
        Expert(name=e.name, probabilities=e.probabilities[:, order], known=e.known, prior=e.prior, first=place[e.first])
        for e in experts
        if e.first is not None
    ]
    again, _ = fuse(moved, evidence(labels.rows, place[labels.given]), 0)
    assert again == pytest.approx(found[:, order], abs=1e-3)


def test_the_more_reliable_expert_gets_more_weight_the_more_labels_there_are():
    rng = np.random.default_rng(0)
    true = rng.integers(0, CLASSES, 2000)
    good, bad = expert(rng, true, 0.9, name="good"), expert(rng, true, 0.4, name="bad")
    boast = Expert(name="bad", probabilities=good.probabilities[rng.permutation(2000)], known=bad.known, prior=1.0)
    margins = []
    for count in (0, 20, 200, 1000):
        _, weights = fuse([good, boast], evidence(np.arange(count), true[:count]), 0)
        margins.append(weights["good"] - weights["bad"])
    assert margins[0] == 0 and margins == sorted(margins) and margins[-1] > 0.5


def test_a_systematic_confusion_is_learned_and_few_labels_do_not_overturn_the_answer():
    rng = np.random.default_rng(1)
    true = rng.integers(0, CLASSES, 4000)
    first = np.where(true == 0, 1, true)  # every 0 is answered 1
    answers = Answers(first, np.full(4000, -1), np.full(4000, 0.9, np.float32))
    one = Expert(
        name="one", probabilities=answers.probabilities(CLASSES), known=answers.given, prior=1.0, first=answers.first
    )
    shares = []
    for count in (0, 40, 400):
        found, _ = fuse([one], evidence(np.arange(count), true[:count]), 0)
        asked = np.flatnonzero(first == 1)
        asked = asked[asked >= count]
        shares.append(float(found[asked, 0].mean()))
        assert (found[count:].argmax(axis=1) == first[count:])[true[count:] > 1].all()
    assert shares[0] == pytest.approx(0.1 / 3, abs=1e-3)
    assert shares[0] < shares[1] < shares[2] and 0.3 < shares[2] < 0.6


def test_a_held_weight_stays_by_its_prior_until_labels_speak_clearly():
    rng = np.random.default_rng(3)
    true = rng.integers(0, CLASSES, 2000)
    good = replace(expert(rng, true, 0.9), first=None)
    boast = replace(good, probabilities=good.probabilities.copy())
    boast.probabilities[:1000] = good.probabilities[rng.permutation(1000)]  # as sure, and wrong for half of the images
    texts = replace(expert(rng, true, 0.6, prior=0.0, name="texts"), first=None)

    def weight(other: Expert, count: int, held: bool) -> float:
        rows = np.random.default_rng(0).permutation(2000)[:count]
        return fuse([other, replace(texts, held=held)], evidence(rows, true[rows]), 0)[1]["texts"]

    assert weight(good, 40, True) < 0.05 < 0.15 < weight(good, 40, False)
    assert weight(boast, 40, True) > 0.4, "labels that speak clearly are believed"
    assert weight(boast, 400, True) == pytest.approx(weight(boast, 400, False), abs=0.2)


def test_a_label_does_not_change_its_own_prediction():
    rng = np.random.default_rng(2)
    true = rng.integers(0, CLASSES, 300)
    experts = [expert(rng, true, 0.7), expert(rng, true, 0.6, name="two")]
    labels = true[:80]
    before, _ = fuse(experts, evidence(np.arange(80), labels), 0)
    changed = labels.copy()
    changed[5] = (labels[5] + 1) % CLASSES
    after, _ = fuse(experts, evidence(np.arange(80), changed), 0)
    assert np.abs(after - before).max() > 1e-4, "others have learned from it"
    assert after[5] == pytest.approx(before[5], abs=1e-6)


def test_an_image_that_no_expert_knows_has_no_prediction():
    rng = np.random.default_rng(3)
    true = rng.integers(0, CLASSES, 50)
    one = expert(rng, true, 0.8)
    one.known[:10] = False
    found, weights = fuse([one], evidence(np.arange(0), true[:0]), 0)
    assert not found[:10].any() and found[10:] == pytest.approx(one.probabilities[10:], abs=1e-5)
    assert weights == {"one": 1.0}
