"""Text encoders by SPEC, and the one that made some vectors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders import neural
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower, folder_revision, refuse_pickles
from gpt4image.encoding.text_encoders.registry import load_known_encoder, load_text_encoder


def test_the_spec_of_an_encoder_finds_it_again() -> None:
    encoder = load_text_encoder("bag-of-words:32")
    again = load_text_encoder(encoder.spec)
    assert (again.spec, again.revision, again.width) == (encoder.spec, encoder.revision, 32)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("minillm", "Did you mean 'minilm'"),
        ("", "Unknown text encoder: '' is not one of"),
        ("minilm:large", "without a name; got 'minilm:large'"),
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "vocab.txt", "1_Pooling/config.json", "README.md"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_the_revision_knows_contents_and_names_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    revision = folder_revision(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("other words")
    assert folder_revision(copy) == revision
    (copy / "1_Pooling" / "config.json").write_text("{}")
    assert folder_revision(copy) != revision
    shutil.rmtree(copy / "1_Pooling")
    assert folder_revision(copy) != revision


def test_pickles_are_allowed_only_beside_the_safetensors_that_are_read_instead(folder: Path) -> None:
    (folder / "pytorch_model.bin").touch()
    refuse_pickles(folder)
    (folder / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match=r"adapter_model\.bin: pickled weights are never loaded"):
        refuse_pickles(folder)


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
