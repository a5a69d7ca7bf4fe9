"""The text classifier and its inputs: embeddings that are centred and smoothed, and which image is worth a label."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.artifacts import probabilities
from gpt4image.base.interrupts import Stopped, stopped_by
from gpt4image.labelling import texts as text_classifier
from gpt4image.labelling.texts import Texts, classify, smooth, unit
from tables import make_table


def clusters(n_classes: int, per_class: int, spread: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray]:
    """Unit vectors around one random direction a class."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_classes, 32))
    labels = np.repeat(np.arange(n_classes), per_class)
    vectors = centres[labels] + spread * rng.standard_normal((len(labels), 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def hide(labels: NDArray, per_class: int) -> NDArray:
    """Keep the first labels of each class."""
    given = np.full_like(labels, -1)
    for label in np.unique(labels):
        given[np.flatnonzero(labels == label)[:per_class]] = label
    return given


def test_predictions_of_labelled_images_have_not_seen_their_label():
    # Pure noise: whoever has seen the labels fits them, whoever has not is at chance.
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 300)).astype(np.float32)
    labels = rng.integers(0, 2, 200)
    result = classify(vectors, labels, 2, seed=0)
    assert result.out_of_fold.all()
    assert (result.probabilities.argmax(axis=1) == labels).mean() < 0.62


def test_a_thread_that_is_asked_to_stop_does_so_in_the_middle_of_a_fit():
    vectors, labels = clusters(3, 8, 0.5)
    event, tries = threading.Event(), []

    def work():
        with stopped_by(event):
            tries.append(classify(vectors, labels, 3, seed=0))
            event.set()
            with pytest.raises(Stopped):
                classify(vectors, labels, 3, seed=0)
            tries.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(tries) == 2
    classify(vectors, labels, 3, seed=0)  # other threads go on


@pytest.mark.parametrize(
    "counts", [[2] + [1] * 9, [10] * 9 + [1], [3] * 5 + [1] * 5, [30] + [2] * 9], ids=["2, 1", "10, 1", "3, 1", "30, 2"]
)
def test_classes_with_fewer_labels_than_others_are_found_as_well(counts: list[int]):
    vectors, labels = clusters(10, 60, 0.7)
    given_labels = np.full_like(labels, -1)
    for label, count in enumerate(counts):
        given_labels[np.flatnonzero(labels == label)[:count]] = label
    right = classify(vectors, given_labels, 10, seed=0).probabilities.argmax(axis=1) == labels
    few = (given_labels < 0) & (np.array(counts)[labels] == min(counts))
    assert right[few].mean() > 0.85


def test_searches_are_bounded(monkeypatch):
    monkeypatch.setattr(text_classifier, "MAX_SEARCH_LABELS", 60)
    vectors, labels = clusters(4, 50, 0.8)
    inputs = smooth(vectors, np.arange(len(vectors)), 0)
    result = classify(inputs, labels, 4, seed=0)
    assert result.out_of_fold.all()
    assert (result.probabilities.argmax(axis=1) == labels).mean() > 0.9


def test_class_names_help_where_they_say_something_and_do_no_harm_where_they_do_not():
    vectors, labels = clusters(6, 60, 2.0)
    few = hide(labels, 2)
    centres = unit(np.stack([vectors[labels == label].mean(axis=0) for label in range(6)]))
    telling, idle = unit(centres - centres.mean(axis=0)), unit(np.random.default_rng(1).standard_normal((6, 32)))

    def right(names: NDArray | None) -> float:
        found = classify(vectors, few, 6, seed=0, names=names).probabilities.argmax(axis=1) == labels
        return float(found[few < 0].mean())

    assert right(telling) > right(None) + 0.05
    assert right(idle) > right(None) - 0.03
    assert classify(vectors, labels, 6, seed=0, names=idle).names < 0.5
    assert classify(vectors, hide(labels, 1), 6, seed=0, names=telling).names == 0.5


def test_labels_that_are_wrong_in_a_known_way_do_not_mislead():
    vectors, labels = clusters(4, 100, 1.0)
    rng = np.random.default_rng(0)
    taken = np.where(rng.random(len(labels)) < 0.45, (labels + 1) % 4, labels)
    transition = 0.55 * np.eye(4) + 0.45 * np.roll(np.eye(4), 1, axis=1)

    def right(**known: NDArray) -> float:
        return float((classify(vectors, taken, 4, seed=0, **known).probabilities.argmax(axis=1) == labels).mean())

    assert right(transition=transition) > max(right(), 0.9)


def random_units(n: int, width: int = 5, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, width)))


@given(st.integers(2, 40), st.integers(0, 50))
def test_smoothing_is_the_naive_one(n: int, seed: int):
    vectors = random_units(n, seed=seed)
    reference = np.arange(0, n, 2)
    k = min(text_classifier.NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    expected = vectors.copy()
    for i in range(n):
        others = [j for j in reference if j != i]
        closest = sorted(others, key=lambda j: -float(vectors[i] @ vectors[j]))[:k]
        expected[i] = vectors[i] + vectors[closest].mean(axis=0) if k else vectors[i]
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert smooth(vectors, reference, 0) == pytest.approx(expected, abs=1e-4)


def test_many_texts_are_read_and_kept_in_blocks_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    digests = [f"{number:064x}" for number in range(50)]
    texts_of = {digest: random_units(1 + number % 3, seed=number) for number, digest in enumerate(digests[:45])}
    vectors, reference = make_table(tmp_path, texts_of).of_images(digests), np.arange(3, 45, 3)
    texts = Texts(vectors[:], vectors.described)
    centred = texts.centred(reference)[:]
    whole = smooth(centred, reference, 0)
    monkeypatch.setattr(text_classifier, "_BLOCK", 7 * len(reference))
    monkeypatch.setattr(probabilities, "IN_MEMORY", 10)
    monkeypatch.setattr(probabilities, "AT_ONCE", 10)
    monkeypatch.setattr(probabilities, "BLOCK_CELLS", 12)
    some = Texts(vectors, vectors.described).take(np.arange(50)).centred(reference)
    assert np.array_equal(some[:], centred) and not some[45:].any()
    found = smooth(some, reference, 0)
    assert isinstance(found.base, np.memmap)
    assert found[:] == pytest.approx(whole, abs=1e-6)
    assert np.array_equal(found[np.array([48, 3])], found[:][[48, 3]])
    assert np.array_equal(vectors.take(np.array([7, 2]))[:], vectors[:][[7, 2]])
