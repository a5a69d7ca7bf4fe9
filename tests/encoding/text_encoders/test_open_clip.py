"""A tiny CLIP of open_clip with random weights: the library's own embedding, its limit, and no pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("open_clip")

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from tiny_text_models import make_open_clip

TEXTS = ["a small red dog runs", "the cat", "zebra " * 40]


def test_embeddings_are_the_librarys_own_and_texts_are_counted_before_the_cut(tmp_path: Path) -> None:
    import open_clip

    spec = make_open_clip(tmp_path)
    encoder = load_text_encoder(spec, "cpu")
    assert encoder.spec == spec and encoder.max_tokens == 24
    assert encoder.token_lengths(TEXTS).tolist() == [7, 4, 42]
    library: Any = open_clip.create_model("tiny-clip", pretrained=str(tmp_path / "clip.safetensors"))
    with torch.inference_mode():
        expected = library.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS), normalize=True).numpy()
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (3, encoder.width) == (3, 12)
    assert (vectors * expected).sum(axis=1).min() >= 0.999


def test_the_revision_knows_the_weights(tmp_path: Path) -> None:
    spec = make_open_clip(tmp_path)
    before, content = load_text_encoder(spec).revision, (tmp_path / "clip.safetensors").read_bytes()
    (tmp_path / "clip.safetensors").write_bytes(content[:-1] + b"\x01")
    assert load_text_encoder(spec).revision != before


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_open_clip(tmp_path / "model")
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder(f"open_clip:tiny-clip/{tmp_path / 'weights.pt'}")
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda _model, _tag: {"url": "https://example.org/clip.pt"})
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_text_encoder("open_clip:RN50/known-by-a-pickle-alone")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ConfigError, "MODEL/PRETRAINED"),
        ("ViT-B-32", ConfigError, "MODEL/PRETRAINED"),
        ("ViT-B-33/openai", ConfigError, "Did you mean 'ViT-B-3"),
        ("ViT-B-32/laion3b", ModelError, r"its tags: .*laion2b_s34b_b79k"),
    ],
)
def test_mistakes_say_what_to_do(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_text_encoder(f"open_clip:{name}")


def test_a_folder_as_the_model_is_refused_since_its_configuration_can_ask_for_code(tmp_path: Path) -> None:
    make_open_clip(tmp_path)
    with pytest.raises(ConfigError, match="'local-dir:evil' is not"):
        load_text_encoder(f"open_clip:local-dir:evil/{tmp_path / 'clip.safetensors'}", "cpu")


def test_a_tokenizer_of_transformers_is_told_to_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

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


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    make_open_clip(tmp_path / "other", "wide-clip", width=32)
    make_open_clip(tmp_path)
    with pytest.raises(ModelError, match="does not fit wide-clip"):
        load_text_encoder(f"open_clip:wide-clip/{tmp_path / 'clip.safetensors'}", "cpu").encode(["a"])
