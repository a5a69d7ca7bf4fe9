"""A text encoder that learns with the model: it starts as the table, resumes to the same bits, and is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ConfigError, ModelError, TableError
from gpt4image.config import EncodeConfig, TrainConfig
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.encoding.text_encoders.tuning import FOLDER, WEIGHTS
from gpt4image.models.weights import load_tensors
from gpt4image.training.run_model import read_text_space
from gpt4image.training.train import train
from gpt4image.training.trainer import TextTower
from gpt4image.training.training_data import TextTargets
from small_training import options, resumed, same
from tiny_text_models import make_sentence_transformer
from training.cases import digests_of, write_texts

LONG = "the small red dog runs under the blue sky . a green tree sits . a small cat runs"
KINDS = ["a red dog runs .", "the blue sky", "a green tree sits under the sky ."]


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> Path:
    """A table of the colours: one image has two texts, one a long one, one none; some share a text."""
    digests = digests_of(colour_folder)
    texts = {digest: [f"{KINDS[number // 16]} {'zebra ' * (number % 5)}"] for number, digest in enumerate(digests[1:])}
    texts[digests[1]].append("a small cat")
    texts[digests[2]] = [LONG]
    write_texts(tmp_path / "a.db", texts)
    model = make_sentence_transformer(tmp_path, max_length=12)
    encode(EncodeConfig(store=tmp_path / "a.db", encoder=f"sentence-transformers:{model}", out=tmp_path / "t"))
    return tmp_path / "t"


def tower_of(table: Path, how: Any = "lora") -> tuple[TextTargets, TextTower]:
    """Targets of all images of a table, and of one that has no text; and the encoder that learns with them."""
    found = EmbeddingTable.open(table)
    text = TextTargets.of(found, [*(row.tobytes().hex() for row in found.digests), "0" * 64])
    return text, TextTower(text, found, how, torch.device("cpu"))


@pytest.mark.parametrize("how", ["lora", "full"])
def test_before_it_learns_it_gives_the_vectors_of_the_table(described: Path, how: Any) -> None:
    assert EmbeddingTable.open(described).manifest.pooled > 0
    text, tower = tower_of(described, how)
    tower.train()
    images = np.random.default_rng(0).permutation(len(text.offsets) - 1)
    batch = tower.read(images, torch.device("cpu"))
    found = tower(batch)
    expected, has, _ = text.take(images)
    assert not has.all()
    torch.testing.assert_close(found.detach(), expected, atol=0.02, rtol=0)
    assert len(batch.chunk_of_text) < len(images), "equal texts are read once"
    found.square().sum().backward()
    assert list(tower.parameters()) and all(parameter.grad is not None for parameter in tower.parameters())
    tower.zero_grad()
    none = tower(tower.read(np.array([len(text.offsets) - 2] * 3), torch.device("cpu")))  # images without texts
    assert none.shape == (3, text.width) and not none.any()
    none.sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


CASES: dict[str, dict[str, Any]] = {
    "lora": {"tune_text": "lora", "ema": 0.9},
    "full": {"tune_text": "full", "mixup": 0.5},
}


@pytest.mark.parametrize("case", CASES)
def test_runs_resume_to_the_same_bits_and_the_encoder_is_found_again(
    case: str, described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    changes = {"embeddings": described, "epochs": 1, "optimizer": "sgd", "lr": 0.05, **CASES[case]}
    config = options(colour_folder, tmp_path / "whole", **changes)
    train(config)
    resumed(config, tmp_path / "broken", steps=2)
    assert same(tmp_path / "whole", tmp_path / "broken")
    ours, theirs = (load_tensors(tmp_path / name / FOLDER / WEIGHTS)[0] for name in ("whole", "broken"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(("lora" in name) == (case == "lora") for name in ours)
    spec = f"tuned:{tmp_path / 'whole'}"
    frozen = load_text_encoder(EmbeddingTable.open(described).manifest.encoder, "cpu")
    assert not np.array_equal(load_text_encoder(spec, "cpu").encode(KINDS), frozen.encode(KINDS))
    outcome = encode(EncodeConfig(store=tmp_path / "a.db", encoder=spec, out=tmp_path / "again"))
    assert outcome.summary["encoder"] == spec
    assert read_text_space(tmp_path / "whole").encoder == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": None}, "needs --embeddings"),
        ({"align_weight": 0.0}, "--align-weight above 0"),
        ({"align_loss": "cosine"}, "goes with neither --align-loss cosine"),
        ({"paper_compat": True}, "goes with neither --align-loss cosine nor --paper-compat"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = {"data": "folder:x", "out": tmp_path, "embeddings": tmp_path / "t", "tune_text": "lora", **changes}
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_tables_whose_texts_or_encoder_are_gone_are_refused(
    described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    tuned = options(colour_folder, tmp_path / "run", embeddings=described, tune_text="lora")
    make_sentence_transformer(tmp_path, seed=1, max_length=12)
    with pytest.raises(TableError, match="another version of"):
        train(tuned)
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    with pytest.raises(TableError, match=r"the store that .* is gone"):
        train(tuned)
    encode(EncodeConfig(store=tmp_path / "b.db", encoder="bag-of-words", out=tmp_path / "words"))
    with pytest.raises(ModelError, match="has nothing to learn"):
        train(options(colour_folder, tmp_path / "run", embeddings=tmp_path / "words", tune_text="lora"))
    assert not (tmp_path / "run").exists()
