from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.labelling import text_vectors
from gpt4image.labelling.neighbours import nearest
from gpt4image.labelling.text_vectors import Texts, named, side_by_side, smooth, unit


def random_units(n: int, width: int = 5, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, width)))


@given(st.integers(2, 40), st.integers(0, 50))
def test_smoothing_is_the_naive_one(n: int, seed: int):
    vectors = random_units(n, seed=seed)
    reference = np.arange(0, n, 2)
    k = min(text_vectors.NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    expected = vectors.copy()
    for i in range(n):
        others = [j for j in reference if j != i]
        closest = sorted(others, key=lambda j: -float(vectors[i] @ vectors[j]))[:k]
        expected[i] = vectors[i] + vectors[closest].mean(axis=0) if k else vectors[i]
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    assert smooth(vectors, reference, 0) == pytest.approx(expected, abs=1e-4)


def test_images_outside_the_reference_shape_no_other():
    vectors = random_units(60)
    reference = np.arange(40)
    changed = vectors.copy()
    changed[40:] = -changed[40:]
    there = np.ones(60, bool)
    before, after = (
        smooth(side_by_side(Texts.one(each, there), reference), reference, 0) for each in (vectors, changed)
    )
    assert np.array_equal(before[:40], after[:40])


def test_neighbours_are_the_same_in_any_blocks(monkeypatch):
    vectors, pool = random_units(50), np.arange(3, 50, 3)

    def found() -> list[set[int]]:
        return [set(row) for _, chosen, _ in nearest(vectors, pool, 4) for row in pool[chosen].tolist()]

    whole = found()
    monkeypatch.setattr("gpt4image.labelling.neighbours._BLOCK", 7 * len(pool))
    assert found() == whole
    assert all(i not in row for i, row in enumerate(whole))


def test_one_table_is_centred_and_brought_to_length_1():
    vectors, there = random_units(20, 8), np.arange(20) % 3 != 0
    reference = np.arange(10)
    joined = side_by_side(Texts.one(vectors, there), reference)
    expected = unit(vectors - vectors[:10][there[:10]].mean(axis=0))
    assert joined[there] == pytest.approx(expected[there], abs=1e-6)
    assert not joined[~there].any()


def test_tables_of_any_width_weigh_the_same_and_fill_in_for_each_other():
    wide, narrow = random_units(20, 64), 5 * random_units(20, 4, seed=1)
    has = (np.arange(20) < 15, np.arange(20) >= 5)
    texts = Texts(parts=(wide, narrow), has=has, names=(None, random_units(3, 4, seed=2)))
    assert texts.described.all()
    joined = side_by_side(texts, np.arange(20))
    lengths = np.linalg.norm(joined[:, :64], axis=1), np.linalg.norm(joined[:, 64:], axis=1)
    assert lengths[0] == pytest.approx(np.select([~has[1], has[0]], [1.0, 0.5**0.5], 0.0), abs=1e-5)
    assert lengths[1] == pytest.approx(np.select([~has[0], has[1]], [1.0, 0.5**0.5], 0.0), abs=1e-5)
    names = named(texts)
    assert names is not None
    assert not names[:, :64].any()
    assert np.linalg.norm(names, axis=1) == pytest.approx(1.0)
    assert named(Texts.one(wide, has[0])) is None
