"""Retrieval: ranks as a plain sort gives them, ties against the query, equal texts as partners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.evaluating import measures
from gpt4image.evaluating.measures import recalls, zero_shot_accuracy


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), texts=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 999))
def test_recalls_are_those_of_a_plain_loop(n: int, texts: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, texts, n)
    images, of_text = unit(rng, n, 6), unit(rng, texts, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "CHUNK", chunk)
        found = recalls(images, of_text[ids], ids)
    directions = {"image_to_text_recall": (images, of_text[ids]), "text_to_image_recall": (of_text[ids], images)}
    for name, (queries, answers) in directions.items():
        for k in (1, 5, 10):
            hits = []
            for i in range(n):
                scores = queries[i] @ answers.T
                best = max(scores[j] for j in range(n) if ids[j] == ids[i])
                hits.append(sum(scores[j] >= best for j in range(n) if ids[j] != ids[i]) < k)
            assert (f"{name}:{k}" in found) == (k <= n)
            if k <= n:
                assert found[f"{name}:{k}"] == pytest.approx(np.mean(hits))


def test_a_perfect_space_finds_all_and_a_collapsed_one_nothing() -> None:
    space = np.eye(12, dtype=np.float32)
    assert set(recalls(space, space, np.arange(12)).values()) == {1.0}
    collapsed = np.full((12, 4), 0.5, np.float32)
    assert set(recalls(collapsed, collapsed, np.arange(12)).values()) == {0.0}


def test_zero_shot_takes_the_nearest_name_of_labelled_images() -> None:
    names = np.eye(3, dtype=np.float32)
    images = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert zero_shot_accuracy(images, names, np.array([0, 1, 1, -1])) == pytest.approx(2 / 3)
