"""Words as classes: their weights against a loop, and the loss where it is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import TableError
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.training.objectives.base import Batch, Outputs
from gpt4image.training.objectives.words import WordsObjective, WordTargets
from gpt4image.training.text_targets import TextTargets
from tables import make_table
from training_cases import TEXTS


@pytest.fixture
def text(worded: dict[str, Any]) -> TextTargets:
    """Texts of 48 images in the order of their files: blue, green, red; the first has none."""
    images = load_image_set(worded["data"])
    order = np.argsort(images.keys)
    return TextTargets.of(EmbeddingTable.open(worded["embeddings"]), [images.digests[i] for i in order])


def test_targets_are_those_of_the_paper(text: TextTargets) -> None:
    train = np.arange(1, 48)
    found = WordTargets.of(text, train)
    own = {i: set(TEXTS[(i - 1) // 16].lower().strip(".").replace(",", "").split()) for i in train.tolist()}
    counts = {word: sum(word in words for words in own.values()) for word in found.words}
    assert sorted(counts) == ["blue", "field", "green", "plain", "red", "sky", "wall"], "no stop word, no zebra"
    weights = {word: math.log((len(train) + 1) / (count + 1)) for word, count in counts.items()}
    targets = found.take(np.arange(48)).numpy()
    assert not targets[0].any()
    for i in train.tolist():
        row = np.array([weights[word] if word in own[i] else 0.0 for word in found.words])
        assert targets[i] == pytest.approx(row / row.sum(), abs=1e-6)


def test_words_are_chosen_by_training_images_only(text: TextTargets) -> None:
    assert set(WordTargets.of(text, np.arange(1, 15)).words) == {"blue", "plain", "sky"}


def test_the_loss_of_equal_logits_is_the_logarithm_of_the_words(text: TextTargets) -> None:
    targets = WordTargets.of(text, np.arange(48))
    config = TrainConfig(
        data="x", out=Path("y"), embeddings=Path("z"), task="pretrain", pretrain="words", words_weight=0.1
    ).resolved
    objective = WordsObjective(config=config, targets=targets)
    images = np.array([0, 5, 40])  # without a text, right, broken
    batch = Batch(
        images=images,
        broken=torch.tensor([False, False, True]),
        mixing=None,
        second=torch.arange(0),
    )
    logits = torch.zeros(3, len(targets.words), requires_grad=True)
    loss = objective.loss(batch, Outputs(task=logits, second=logits[:0], heads={"words": logits}))
    assert loss.item() == pytest.approx(math.log(len(targets.words)))
    loss.backward()
    assert logits.grad is not None and logits.grad[1].any() and not logits.grad[[0, 2]].any()
    assert objective.weight(0, loss, loss, Outputs(task=logits, second=logits)) == 0.1
    mixing = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]])
    mixed = replace(batch, mixing=mixing, broken=torch.zeros(3).bool())
    logits = torch.randn(3, len(targets.words), generator=torch.Generator().manual_seed(0))
    shares = mixing @ targets.take(images)
    expected = -(shares * logits.log_softmax(dim=1)).sum() / 2  # the first image has no words
    found = objective.loss(mixed, Outputs(task=logits, second=logits[:0], heads={"words": logits}))
    torch.testing.assert_close(found, expected)


def test_texts_that_cannot_be_read_are_named(text: TextTargets, worded: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is none"):
        WordTargets.of(replace(text, table=None), np.arange(48))
    with pytest.raises(TableError, match="No two training images share a word"):
        WordTargets.of(text, np.array([20, 40]))
    (tmp_path / "words.db").unlink()
    with pytest.raises(TableError, match=r"words of descriptions reads the texts themselves, but .* is gone"):
        WordTargets.of(text, np.arange(48))
    table = make_table(tmp_path / "numbers", {"0" * 64: [np.ones(4)]})
    with pytest.raises(TableError, match="imported as numbers"):
        WordTargets.of(TextTargets.of(table, ["0" * 64]), np.arange(1))
