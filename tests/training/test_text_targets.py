"""Text targets: the mean of an image's own texts, centred on training texts alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpt4image.training import text_targets
from gpt4image.training.text_targets import TextTargets

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


class TestCentred:
    vectors = np.array([[3, 0], [1, 0], [0, 2], [0, 4], [5, 5], [9, 9]], np.float32)
    targets = TextTargets.one_each(vectors, np.arange(6))
    train = np.array([0, 1, 2, 3, 4])

    def unit(self, *vectors: list[float]) -> np.ndarray:
        return np.array([np.array(v) / np.linalg.norm(v) for v in vectors])

    def test_on_the_mean_of_training_texts_alone(self) -> None:
        found = self.targets.centred(self.train).take(np.arange(6))[0]
        mean = self.vectors[:5].mean(0)  # the last image is none to train on
        assert np.allclose(found, self.unit(*(self.vectors - mean)), atol=1e-6)

    @given(counts=COUNTS, seed=st.integers(0, 5))
    def test_images_without_text_stay_without(self, counts: np.ndarray, seed: int) -> None:
        images = np.arange(len(counts))
        targets = some_targets(counts, seed).centred(images)
        vectors, described, _ = targets.take(images)
        assert vectors.isfinite().all()
        assert vectors[~described].count_nonzero() == 0
        assert (vectors.norm(dim=1) < 1 + 1e-5).all()

    def test_in_parts_as_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = self.targets.centred(self.train)
        monkeypatch.setattr(text_targets, "_CHUNK", 2)
        assert np.allclose(self.targets.centred(self.train).centre, whole.centre)
