"""Which weights learn, and that a tuned encoder is found again with what it has learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.encoding.text_encoders.tuning import How, Made, make_trainable, save_tuned, trained_weights
from tiny_text_models import make_open_clip, make_sentence_transformer

TEXTS = ["a small red dog", "the cat runs ."]


@pytest.fixture(params=["sentence-transformers", "open_clip"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> NeuralEncoder:
    if request.param == "open_clip":
        pytest.importorskip("open_clip")
        spec = make_open_clip(tmp_path / "clip")
    else:
        spec = f"sentence-transformers:{make_sentence_transformer(tmp_path)}"
    found = load_text_encoder(spec, "cpu")
    assert isinstance(found, NeuralEncoder)
    return found


def embed(tower: Tower) -> torch.Tensor:
    return normalize(tower(tower.tokenize(TEXTS)).float(), dim=1)


def change(weights: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for value in weights.values():
            value.add_(0.3 * torch.randn_like(value))


def save(folder: Path, encoder: Any, weights: dict[str, torch.Tensor], how: How = "lora") -> None:
    save_tuned(folder, weights, Made(encoder=encoder.spec, revision=encoder.revision, how=how, rank=2))


@pytest.mark.parametrize("how", ["lora", "full"])
def test_tuning_starts_where_the_encoder_is_and_is_found_again(
    encoder: NeuralEncoder, how: How, tmp_path: Path
) -> None:
    tower = encoder.load().eval()
    before = embed(tower).detach()
    make_trainable(tower, how, 2)
    weights = trained_weights(tower)
    torch.testing.assert_close(embed(tower), before)
    embed(tower)[:, 0].sum().backward()
    assert all(value.grad is not None for value in weights.values())
    share = sum(value.numel() for value in weights.values()) / sum(value.numel() for value in tower.parameters())
    assert share < 0.2 if how == "lora" else share > 0.8
    change(weights)
    save(tmp_path / "run" / "text_encoder", encoder, weights, how)
    found = load_text_encoder(f"tuned:{tmp_path / 'run'}", "cpu")
    assert isinstance(found, NeuralEncoder) and found.revision != encoder.revision
    torch.testing.assert_close(embed(found.load().eval()), embed(tower).detach(), atol=1e-5, rtol=0)
    assert (found.encode(TEXTS) * encoder.encode(TEXTS)).sum(axis=1).max() < 0.9999
    assert load_text_encoder(f"tuned:{tmp_path / 'run' / 'text_encoder'}").revision == found.revision


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    encoder: Any = load_text_encoder(f"sentence-transformers:{make_sentence_transformer(tmp_path)}", "cpu")
    with pytest.raises(ConfigError, match="the folder is missing"):
        load_text_encoder("tuned:")
    with pytest.raises(ModelError, match="there is no tuned text encoder"):
        load_text_encoder(f"tuned:{tmp_path}")
    tower = encoder.load()
    make_trainable(tower, "lora", 2)
    weights = trained_weights(tower)
    save(tmp_path / "run", encoder, {name: weights[name] for name in list(weights)[1:]})
    with pytest.raises(ModelError, match="does not fit"):
        load_text_encoder(f"tuned:{tmp_path / 'run'}", "cpu").encode(TEXTS)
    make_sentence_transformer(tmp_path, seed=1)
    with pytest.raises(ModelError, match="bring back the files"):
        load_text_encoder(f"tuned:{tmp_path / 'run'}")


@pytest.mark.parametrize(
    "wrong",
    [
        *([], {"format_version": 2}, {"encoder": None}, {"revision": 3}, {"how": "both"}, {"rank": 10**400}),
        {"encoder": "tuned:HERE"},  # made from itself
    ],
)
def test_a_record_with_wrong_values_is_named(wrong: Any, tmp_path: Path) -> None:
    right = {"format_version": 1, "encoder": "minilm", "revision": "x", "how": "lora", "rank": 2}
    (tmp_path / "weights.safetensors").write_bytes(b"")
    record = json.dumps({**right, **wrong} if isinstance(wrong, dict) else wrong)
    (tmp_path / "tuned.json").write_text(record.replace("HERE", str(tmp_path)))
    with pytest.raises(ModelError, match=r"tuned\.json is no record of a tuned text encoder"):
        load_text_encoder(f"tuned:{tmp_path}", "cpu")
