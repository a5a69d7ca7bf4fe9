from __future__ import annotations

import numpy as np
import pytest

from gpt4image.labelling import propagation
from gpt4image.labelling.propagation import propagate
from gpt4image.labelling.text_vectors import unit


def moons(per_class: int = 150):
    """Unit vectors on two interleaved arcs: neighbours tell what no plane can."""
    rng = np.random.default_rng(0)
    angle = np.concatenate([rng.uniform(0, np.pi, per_class), rng.uniform(0, np.pi, per_class)])
    labels = np.repeat([0, 1], per_class)
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    points[labels == 1] = np.array([1.0, 0.3]) - points[labels == 1]
    points += rng.normal(0, 0.05, points.shape)
    return unit(np.column_stack([points, np.full(len(points), 1.5)])), labels


def few(labels, per_class):
    given = np.full_like(labels, -1)
    for label in np.unique(labels):
        given[np.flatnonzero(labels == label)[:per_class]] = label
    return given


def test_labels_follow_the_shape_of_the_texts():
    vectors, labels = moons()
    given = few(labels, 4)
    found = propagate(vectors, given, 3, seed=0, reference=np.arange(len(labels)))
    assert found.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert not found.probabilities[:, 2].any()
    assert (found.probabilities.argmax(axis=1) == labels)[given < 0].mean() > 0.95
    assert np.array_equal(found.out_of_fold, given >= 0)
    again = propagate(vectors, given, 3, seed=0, reference=np.arange(len(labels)))
    assert np.array_equal(found.probabilities, again.probabilities)


def test_spreading_is_the_solution_of_its_equation():
    vectors, labels = moons(30)
    graph = propagation._symmetric(propagation._similarities(vectors, np.arange(60)))  # pyright: ignore
    nodes = np.array([0, 1, 40])
    reached = propagation._spread(graph, nodes, labels[nodes], 2)  # pyright: ignore
    start = np.zeros((60, 2))
    start[nodes, labels[nodes]] = [0.5, 0.5, 1.0]
    kept = propagation.KEPT
    expected = np.linalg.solve(np.eye(60) - kept * graph.toarray(), (1 - kept) * start)
    assert reached == pytest.approx(expected, abs=0.01 * expected.max())


def test_a_label_that_contradicts_its_neighbours_is_seen():
    vectors, labels = moons()
    given = few(labels, 40)
    given[0] = 1
    found = propagate(vectors, given, 2, seed=0, reference=np.arange(len(labels)))
    assert found.out_of_fold[0]
    assert found.probabilities[0].argmax() == 0


def test_images_outside_the_reference_are_read_off_and_shape_no_other():
    vectors, labels = moons()
    given = few(labels, 20)
    reference = np.sort(np.concatenate([np.arange(0, 300, 2), np.flatnonzero(given >= 0)]))
    reference = np.unique(reference)
    outside = np.setdiff1d(np.arange(300), reference)
    found = propagate(vectors, given, 2, seed=0, reference=reference)
    assert (found.probabilities.argmax(axis=1) == labels)[outside].mean() > 0.9
    moved = vectors.copy()
    moved[outside] = -moved[outside]
    after = propagate(moved, given, 2, seed=0, reference=reference)
    assert np.array_equal(found.probabilities[reference], after.probabilities[reference])


def test_nodes_are_bounded_and_hold_every_label(monkeypatch):
    monkeypatch.setattr(propagation, "MAX_NODES", 60)
    vectors, labels = moons()
    given = few(labels, 20)
    found = propagate(vectors, given, 2, seed=0, reference=np.arange(300))
    assert np.array_equal(found.out_of_fold, given >= 0)
    assert (found.probabilities.argmax(axis=1) == labels).mean() > 0.85


def test_one_label_a_class_is_spread_without_folds():
    vectors, labels = moons()
    found = propagate(vectors, few(labels, 1), 2, seed=0, reference=np.arange(300))
    assert found.folds == 0
    assert not found.out_of_fold.any()
