"""Trainers of a small run with texts."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from gpt4image.config import EncodeConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.encoding.encode import encode
from gpt4image.training.loop import batch_losses, pixels_of, seed_step
from gpt4image.training.prepare import prepare
from gpt4image.training.trainer import Trainer, build
from small_training import SMALL
from tables import make_table, write_store

WIDTH = 6
TEXTS = ("The blue sky, plain.", "A green field, plain.", "A red wall and the sky.")
"""Of blue, green and red pictures; "plain" and "sky" are words of two colours."""


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a run on images with two texts each, that follow the class, and a few images without label or text."""
    (colour_folder / "unlabelled").mkdir()
    for path in sorted((colour_folder / "red").iterdir())[:4]:
        path.rename(colour_folder / "unlabelled" / path.name)
    images = load_dataset(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    names = np.eye(len(images.classes) + 1, WIDTH)
    vectors = {
        digest: [names[label] + 0.3 * rng.normal(size=WIDTH) for _ in range(2)]
        for digest, label in zip(images.digests, images.labels, strict=True)
    }
    make_table(tmp_path / "table", dict(list(vectors.items())[3:]))
    return {"data": f"folder:{colour_folder}", "embeddings": tmp_path / "table", "out": tmp_path / "run", **SMALL}


def trainer_of(described: dict[str, Any], **changes: Any) -> Trainer:
    ready = prepare(TrainConfig(**{**described, **changes}))
    return build(ready.config, ready.data)


def losses_at(trainer: Trainer, step: int = 0) -> dict[str, Tensor]:
    seed_step(0, step, trainer.device)
    (pixels,) = pixels_of(trainer, range(step, step + 1))
    return batch_losses(trainer, step, trainer.batches.batch(step), pixels)


def digests_of(folder: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.png"))]


def write_texts(store_path: Path, texts: dict[str, list[str]]) -> None:
    """Write a store with the texts of each digest."""
    write_store(store_path, (
        {"digest": digest, "describer": {"sample": number}, "text": text}
        for digest, several in texts.items() for number, text in enumerate(several)
    ))  # fmt: skip


@pytest.fixture
def worded(colour_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a run on images whose texts, in a store, name their colour; one has two texts, one none."""
    texts = {digest: [TEXTS[number // 16]] for number, digest in enumerate(digests_of(colour_folder)[1:])}
    texts[next(iter(texts))].append("A single zebra.")
    write_texts(tmp_path / "words.db", texts)
    encode(EncodeConfig(store=tmp_path / "words.db", encoder="bag-of-words:8", out=tmp_path / "words"))
    return {"data": f"folder:{colour_folder}", "embeddings": tmp_path / "words", "out": tmp_path / "run", **SMALL}
