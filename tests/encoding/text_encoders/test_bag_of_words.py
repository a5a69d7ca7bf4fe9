"""Word counts as vectors: the same everywhere, blind to order and stop words, near to the counts themselves."""

from __future__ import annotations

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.encoding.text_encoders.registry import load_text_encoder

TEXTS = ["A brown dog runs over green grass.", "A red bus under a blue sky.", "Two dogs and a bus."]


def test_order_and_stop_words_do_not_count_and_a_text_has_one_vector() -> None:
    encoder = load_text_encoder("bag-of-words:32")
    one, other, alone = encoder.encode(["a dog and a cat", "the cat, the dog!", "dog"])
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(encoder.encode(["dog"])[0], alone)
    default, again = load_text_encoder("bag-of-words"), load_text_encoder("bag-of-words:384", "cpu")
    assert (again.spec, again.revision) == (default.spec, default.revision)
    same = load_text_encoder("bag-of-words:32", "cpu")
    np.testing.assert_array_equal(same.encode(TEXTS), encoder.encode(TEXTS))


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


@pytest.mark.parametrize("name", ["0", "-3", "many", "1.5"])
def test_a_width_is_a_number(name: str) -> None:
    with pytest.raises(ConfigError, match="WIDTH"):
        load_text_encoder(f"bag-of-words:{name}")
