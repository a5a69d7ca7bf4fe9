from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image import text_classifier
from gpt4image.text_classifier import classify, smooth


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


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 100))
def test_probabilities_are_probabilities_and_repeat(n_classes: int, per_class: int, seed: int):
    vectors, labels = clusters(n_classes, 8, 1.0, seed)
    given_labels = hide(labels, per_class)
    first, again = (classify(vectors, given_labels, n_classes + 1, seed=seed) for _ in range(2))
    assert first.probabilities.shape == (len(labels), n_classes + 1)
    assert np.allclose(first.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert (first.probabilities[:, n_classes] == 0).all()
    assert np.array_equal(first.probabilities, again.probabilities)


def test_predictions_of_labelled_images_have_not_seen_their_label():
    # Pure noise: whoever has seen the labels fits them, whoever has not is at chance.
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 300)).astype(np.float32)
    labels = rng.integers(0, 2, 200)
    result = classify(vectors, labels, 2, seed=0)
    assert result.out_of_fold.all()
    assert (result.probabilities.argmax(axis=1) == labels).mean() < 0.62


def test_one_label_a_class_uses_the_defaults():
    vectors, labels = clusters(4, 20, 0.5)
    result = classify(vectors, hide(labels, 1), 4, seed=0)
    assert (result.folds, result.c, result.scale) == (0, text_classifier.DEFAULT_C, 1.0)
    assert not result.out_of_fold.any()
    assert (result.probabilities.argmax(axis=1) == labels).mean() > 0.9


def test_the_only_image_of_a_class_is_in_no_fold():
    vectors, labels = clusters(3, 10, 0.3)
    given_labels = hide(labels, 4)
    only = np.flatnonzero(given_labels == 2)
    given_labels[only[1:]] = -1
    result = classify(vectors, given_labels, 3, seed=0)
    assert not result.out_of_fold[only[0]]
    assert result.probabilities[only[0]].argmax() == 2
    assert result.out_of_fold.sum() == 8


def test_smoothing_helps_where_labels_are_few():
    vectors, labels = clusters(6, 60, 2.0)
    few = hide(labels, 2)
    hidden = few < 0
    smoothed = smooth(vectors, np.arange(len(vectors)), 0)
    right = [
        (classify(inputs, few, 6, seed=0).probabilities.argmax(axis=1) == labels)[hidden].mean()
        for inputs in (vectors, smoothed)
    ]
    assert right[1] > right[0] + 0.05


@given(st.integers(2, 40), st.integers(0, 50))
def test_smoothing_is_the_naive_one(n: int, seed: int):
    vectors = np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32)
    reference = np.arange(0, n, 2)
    centred = vectors - vectors[reference].mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    k = min(text_classifier.NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    expected = centred.copy()
    for i in range(n):
        others = [j for j in reference if j != i]
        nearest = sorted(others, key=lambda j: -float(centred[i] @ centred[j]))[:k]
        expected[i] = centred[i] + centred[nearest].mean(axis=0) if k else centred[i]
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert smooth(vectors, reference, 0) == pytest.approx(expected, abs=1e-4)


def test_images_outside_the_reference_shape_no_other():
    vectors, _ = clusters(3, 20, 1.0)
    reference = np.arange(40)
    changed = vectors.copy()
    changed[40:] = -changed[40:]
    assert np.array_equal(smooth(vectors, reference, 0)[:40], smooth(changed, reference, 0)[:40])


def test_searches_are_bounded(monkeypatch):
    monkeypatch.setattr(text_classifier, "MAX_REFERENCES", 50)
    monkeypatch.setattr(text_classifier, "MAX_SEARCH_LABELS", 60)
    vectors, labels = clusters(4, 50, 0.8)
    inputs = smooth(vectors, np.arange(len(vectors)), 0)
    result = classify(inputs, labels, 4, seed=0)
    assert result.out_of_fold.all()
    assert (result.probabilities.argmax(axis=1) == labels).mean() > 0.9
