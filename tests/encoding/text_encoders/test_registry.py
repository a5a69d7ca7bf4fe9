"""Text encoders by SPEC, the one that made some vectors, and chunks of long texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders import neural
from gpt4image.encoding.text_encoders.long_texts import chunked, split
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower
from gpt4image.encoding.text_encoders.registry import load_known_encoder, load_text_encoder


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("minillm", "Did you mean 'minilm'"),
        ("", "Unknown text encoder: '' is not one of"),
        ("minilm:large", "without a name; got 'minilm:large'"),
        *((f"bag-of-words:{width}", "WIDTH") for width in ("0", "-3", "many", "1.5")),
    ],
)
def test_specs_that_name_no_encoder_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_text_encoder(spec)


def test_vectors_of_another_revision_or_width_are_not_mixed_with_its_own() -> None:
    spec, whose = "bag-of-words:32", "The table t was made with"
    revision = load_text_encoder(spec).revision
    assert load_known_encoder(spec, "cpu", revision=revision, width=32, whose=whose).width == 32
    assert load_known_encoder(spec, "cpu", revision="", width=None, whose=whose).spec == spec
    with pytest.raises(ModelError, match=rf"The table t was made with {spec} \(revision 0000"):
        load_known_encoder(spec, "cpu", revision="0" * 64, width=32, whose=whose)
    with pytest.raises(ModelError, match="has vectors of 64 numbers, and that encoder gives 32"):
        load_known_encoder(spec, "cpu", revision=revision, width=64, whose=whose)


TEXTS = ["A brown dog runs over green grass.", "A red bus under a blue sky.", "Two dogs and a bus."]


def test_cosines_are_those_of_the_log_counts() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    counts = np.log1p(CountVectorizer(stop_words="english").fit_transform(TEXTS).toarray())
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    encoder = load_text_encoder("bag-of-words")
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, counts @ counts.T, atol=0.15)
    without_words = encoder.encode(["", "the of a", "dog"])
    np.testing.assert_allclose(np.linalg.norm(without_words, axis=1), 1, atol=1e-5)
    assert encoder.token_lengths(["", "the of a", "red dog"]).tolist() == [0, 0, 2]


class Lengths(Tower):
    """Places a text by its number of characters; ``tilt`` is what a coarser arithmetic would get wrong."""

    def __init__(self, tilt: float = 0.0) -> None:
        super().__init__()
        self.max_tokens, self.tilt = 7, tilt

    def token_lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) for text in texts])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"lengths": torch.tensor([float(len(text)) for text in texts]), "kind": "plain"}

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        coarse = torch.is_autocast_enabled("cpu")
        return torch.stack([tokens["lengths"], torch.ones_like(tokens["lengths"]) + self.tilt * 100 * coarse], dim=1)


def test_vectors_have_unit_length_and_the_model_is_loaded_once_at_the_first_use() -> None:
    loads: list[int] = []
    encoder = NeuralEncoder("lengths", "r1", lambda: loads.append(1) or Lengths(), "cpu")
    assert (encoder.spec, encoder.revision, loads) == ("lengths", "r1", [])
    found = encoder.encode(["abc", ""])
    assert np.allclose(found, [[3 / 10**0.5, 1 / 10**0.5], [0.0, 1.0]], atol=1e-6)
    assert encoder.width == 2 and encoder.max_tokens == 7 and encoder.token_lengths(["ab"]).tolist() == [2]
    assert loads == [1]


@pytest.mark.parametrize(
    ("native", "tilt", "precision"), [(True, 0.0, "bf16"), (True, 1.0, "fp32"), (False, 0.0, "fp32")]
)
def test_bf16_is_taken_where_it_is_native_and_keeps_directions(
    native: bool, tilt: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neural, "computes_bf16", lambda _: native)
    assert NeuralEncoder("lengths", "r1", lambda: Lengths(tilt), "cpu").precision == precision


SPECIAL = 2


def lengths(texts: Sequence[str]) -> NDArray[np.int64]:
    """Word lengths of a tokenizer with begin, end, and one token for every four letters of a word."""
    return np.array([SPECIAL + sum(-(-len(word) // 4) for word in text.split()) for text in texts], np.int64)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("A dog runs. Cats sit! The sky is blue.", 12, ["A dog runs. Cats sit!", "A dog runs. The sky is blue."]),
        ("A dog runs. Cats sit! The sky is blue.", 9, ["A dog runs. Cats sit!", "A dog The sky is blue."]),
        ("one two six ten", 4, ["one two", "one six", "one ten"]),
        ("abcdefghijklm", 4, ["abcdef", "ghijklm"]),
    ],
)
def test_chunks_end_at_sentences_or_words_and_begin_as_the_text_does(
    text: str, limit: int, expected: list[str]
) -> None:
    assert split(text, limit, lengths) == expected


texts = st.text(alphabet="ab .\n?", max_size=120)


@given(texts, st.integers(3, 12))
def test_nothing_is_lost_and_the_limit_is_kept(text: str, limit: int) -> None:
    chunks = split(text, limit, lengths)
    assert (lengths(chunks) <= limit).all()
    letters = iter("".join("".join(chunks).split()))
    assert all(letter in letters for letter in "".join(text.split())), "in order, with beginnings in between"


@given(st.lists(texts, min_size=1, max_size=5), st.integers(3, 12))
def test_pooling_is_the_weighted_mean_at_unit_length(several: list[str], limit: int) -> None:
    chunks = chunked(several, lengths(several), limit, lengths)
    vectors = np.random.default_rng(0).standard_normal((len(chunks.texts), 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pooled = chunks.pool(vectors)
    assert pooled.shape == (len(several), 6)
    tokens = lengths(chunks.texts)
    for number in range(len(several)):
        mine = chunks.owner == number
        mean = np.average(vectors[mine], axis=0, weights=tokens[mine])
        np.testing.assert_allclose(pooled[number], mean / np.linalg.norm(mean), atol=1e-5)
        assert chunks.weight[mine].sum() == pytest.approx(1)
