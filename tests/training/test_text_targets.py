"""Text targets: the mean of an image's own texts."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpt4image.training.training_data import TextTargets

COUNTS = hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 3))


def some_targets(counts: np.ndarray, seed: int = 0) -> TextTargets:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return TextTargets(
        matrix=rng.normal(size=(10, 3)).astype(np.float16), offsets=offsets, rows=rng.integers(0, 10, offsets[-1])
    )


def own_texts(targets: TextTargets, image: int) -> np.ndarray:
    return targets.matrix[targets.rows[targets.offsets[image] : targets.offsets[image + 1]]].astype(np.float32)


@given(counts=COUNTS, seed=st.integers(0, 5))
def test_targets_are_the_mean_of_an_images_own_texts(counts: np.ndarray, seed: int) -> None:
    targets = some_targets(counts, seed)
    batch = np.random.default_rng(seed).integers(0, len(counts), 12)
    vectors, described, identity = targets.take(batch)
    for position, image in enumerate(batch):
        own = own_texts(targets, image)
        assert bool(described[position]) == (len(own) > 0)
        assert np.allclose(vectors[position], own.mean(0) if len(own) else np.zeros(3), atol=1e-6)
        first, end = targets.offsets[image : image + 2]
        assert int(identity[position]) == (targets.rows[first:end].min() if len(own) else -1)


def test_the_same_texts_in_another_order_are_the_same() -> None:
    targets = TextTargets(
        matrix=np.eye(3, dtype=np.float32), offsets=np.array([0, 2, 4, 5]), rows=np.array([0, 1, 1, 0, 2])
    )
    vectors, _, ids = targets.take(np.array([0, 1, 2]))
    assert torch.equal(vectors[0], vectors[1])
    assert ids.tolist() == [0, 0, 2]


@given(counts=COUNTS, seed=st.integers(0, 99))
def test_texts_of_others_are_all_of_theirs(counts: np.ndarray, seed: int) -> None:
    text, rng = some_targets(counts, seed), np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    chosen, others = order[: len(order) // 2], rng.permutation(order)[: len(order) // 2]
    given_ = text.of_others(chosen, others)
    assert given_.table is None
    assert (given_.identity[chosen] == text.identity[others]).all()
    assert torch.equal(given_.take(chosen)[0], text.take(others)[0])
    assert not given_.described[order[len(order) // 2 :]].any()


def test_one_each_gives_an_image_its_row() -> None:
    targets = TextTargets.one_each(np.eye(3, dtype=np.float32), np.array([2, -1, 0]))
    assert targets.take(np.array([0, 1, 2]))[0].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert targets.described.tolist() == [True, False, True]
