"""Tiny models of every family that transformers has, against what the library's own classes give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from tiny_text_models import make_model, make_sentence_transformer

TEXTS = ["a small red dog runs", "the cat", "the blue sky . a green tree"]
LIMITS = {"bert": 32, "roberta": 23, "clip": 32, "siglip": 32, "t5": 32, "llama": 32}


def own_embedding(folder: Path, kind: str, text: str) -> torch.Tensor:
    """One text, without a batch and without padding, by the library's full model."""
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModel.from_pretrained(folder, dtype="float32").eval()
    with torch.inference_mode():
        if kind == "siglip":
            tokens = tokenizer(text, padding="max_length", max_length=32, return_tensors="pt")
            return model.get_text_features(input_ids=tokens["input_ids"]).pooler_output[0]
        tokens = tokenizer(text, return_tensors="pt")
        if kind == "clip":
            return model.get_text_features(**tokens).pooler_output[0]
        reader = model.get_encoder() if kind == "t5" else model
        return reader(**tokens).last_hidden_state[0].mean(0)


@pytest.mark.parametrize("kind", LIMITS)
def test_every_family_gives_the_embedding_it_is_known_for(tmp_path: Path, kind: str) -> None:
    folder = make_model(tmp_path / kind, kind)
    encoder = load_text_encoder(f"transformers:{folder}", "cpu")
    assert encoder.max_tokens == LIMITS[kind]
    assert encoder.token_lengths([*TEXTS, "", "zebra " * 50]).tolist() == [7, 4, 9, 2, 52]
    vectors = encoder.encode([*TEXTS, "", "zebra " * 50])
    assert vectors.dtype == np.float32 and vectors.shape == (5, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    expected = torch.stack([own_embedding(folder, kind, text) for text in TEXTS]).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (vectors[:3] * expected).sum(axis=1).min() >= 0.999


def test_pooling_and_weights_are_part_of_the_revision(tmp_path: Path) -> None:
    one = load_text_encoder(f"transformers:{make_model(tmp_path / 'one', 'bert')}")
    other = load_text_encoder(f"transformers:{make_model(tmp_path / 'other', 'bert', seed=1)}")
    again = load_text_encoder(f"transformers:{make_model(tmp_path / 'again', 'bert')}")
    assert one.revision == again.revision != other.revision
    folder = make_sentence_transformer(tmp_path)
    by_library = load_text_encoder(f"sentence-transformers:{folder}")
    assert by_library.revision != load_text_encoder(f"transformers:{folder}").revision


def test_models_without_all_their_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_model(tmp_path / "bert", "bert")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"'encoder\.layer\.1\.output\.dense\.weight' are missing"):
        load_text_encoder(f"transformers:{folder}", "cpu").encode(["a"])


def test_pickled_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "bert", "bert")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be loaded as a text model"):
        load_text_encoder(f"transformers:{folder}", "cpu").encode(["a"])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder(f"transformers:{folder}", "cpu")


def test_a_model_that_needs_pictures_too_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "chinese_clip")
    with pytest.raises(ModelError, match=r"\(chinese_clip\) gives no embedding of a text alone.*give a text model"):
        load_text_encoder(f"transformers:{folder}", "cpu").encode(["a dog"])
