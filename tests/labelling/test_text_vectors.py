from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.artifacts import top_k_probs
from gpt4image.labelling import text_vectors
from gpt4image.labelling.text_vectors import Texts, smooth, unit
from tables import make_table


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
    before, after = (smooth(Texts(each, there).centred(reference), reference, 0) for each in (vectors, changed))
    assert np.array_equal(before[:40], after[:40])


def test_many_texts_are_read_and_kept_in_blocks_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    digests = [f"{number:064x}" for number in range(50)]
    texts_of = {digest: random_units(1 + number % 3, seed=number) for number, digest in enumerate(digests[:45])}
    vectors, reference = make_table(tmp_path, texts_of).of_images(digests), np.arange(3, 45, 3)
    texts = Texts(vectors[:], vectors.described)
    centred = texts.centred(reference)[:]
    whole = smooth(centred, reference, 0)
    monkeypatch.setattr(text_vectors, "_BLOCK", 7 * len(reference))
    for module in (text_vectors, top_k_probs):
        monkeypatch.setattr(module, "DENSE_CELLS", 10)
    monkeypatch.setattr(top_k_probs, "BLOCK_CELLS", 12)
    some = Texts(vectors, vectors.described).take(np.arange(50)).centred(reference)
    assert np.array_equal(some[:], centred) and not some[45:].any()
    found = smooth(some, reference, 0)
    assert not isinstance(found, np.ndarray)
    assert found[:] == pytest.approx(whole, abs=1e-6)
    assert np.array_equal(found[np.array([48, 3])], found[:][[48, 3]])
    assert np.array_equal(vectors.take(np.array([7, 2]))[:], vectors[:][[7, 2]])


def test_texts_are_centred_on_the_reference_and_class_names_on_themselves():
    vectors, there, names = random_units(20, 8), np.arange(20) % 3 != 0, random_units(3, 8, seed=2)
    texts = Texts(vectors, there, names)
    expected = unit(vectors - vectors[:10][there[:10]].mean(axis=0))
    centred = texts.centred(np.arange(10))[:]
    assert centred[there] == pytest.approx(expected[there], abs=1e-6)
    assert not centred[~there].any()
    assert texts.centred_names() == pytest.approx(unit(names - names.mean(axis=0)))
    assert Texts(vectors, there).centred_names() is None
