"""Chunks lose nothing, keep to the limit, and are averaged by their length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.encoding.text_encoders.long_texts import chunked, split

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


def test_chunks_are_found_in_few_tokenisations_of_any_tokenizer() -> None:
    calls = []

    def counted(texts: Sequence[str]) -> NDArray[np.int64]:
        calls.append(len(texts))
        return lengths(texts)

    def with_newlines(texts: Sequence[str]) -> NDArray[np.int64]:
        assert texts, "some tokenizers take no empty list"
        return lengths(texts) + [text.count("\n") for text in texts]

    assert split("a dog\n\n\n\n\n\nruns.", 7, with_newlines) == ["a dog runs."], "too long only by its newlines"
    chunks = split(" ".join(["dog"] * 2_000), 20, counted)
    assert all(lengths([chunk])[0] <= 20 for chunk in chunks) and len(calls) < 50


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
