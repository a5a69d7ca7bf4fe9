"""Consistency training within a run, beside labels, texts and mixing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small_training
from gpt4image.artifacts import runs
from gpt4image.config import TrainConfig
from gpt4image.data import load_dataset
from gpt4image.training import loop
from gpt4image.training.loop import batch_losses, seed_step
from gpt4image.training.prepare import prepare
from gpt4image.training.train import train
from gpt4image.training.trainer import Trainer, build
from small_training import resumed, same
from tables import make_table


@pytest.fixture
def few_labels(colour_folder: Path) -> Path:
    """A folder of 48 pictures, 36 of them without a label."""
    (colour_folder / "unlabelled").mkdir()
    for name in ("red", "green", "blue"):
        for path in sorted((colour_folder / name).iterdir())[4:]:
            path.rename(colour_folder / "unlabelled" / f"{name}-{path.name}")
    return colour_folder


def options(folder: Path, **changes: Any) -> TrainConfig:
    own = {"epochs": 2, "consistency": 1.0, "confidence": 0.4, "val_fraction": 0.0, "test_fraction": 0.0}
    return small_training.options(folder, **{"out": Path("unused"), **own, **changes})


def built(config: TrainConfig) -> Trainer:
    ready = prepare(config)
    return build(ready.config, ready.data)


def losses(trainer: Trainer) -> dict[str, float]:
    seed_step(0, 0, trainer.device)
    (pixels,) = loop.pixels_of(trainer, range(1))
    found = batch_losses(trainer, 0, trainer.batches.batch(0), pixels)
    return {name: value.item() for name, value in {**found.parts, "total": found.total}.items()}


def test_images_without_a_label_take_part_through_consistency_alone(few_labels: Path) -> None:
    trainer = built(options(few_labels, consistency=2.0, labelled_share=0.25, confidence=0.0))
    images = trainer.batches.batch(0)
    assert (trainer.data.labels[images] < 0).sum() == 6
    found = losses(trainer)
    assert found["consistency"] > 0
    assert found["total"] == pytest.approx(found["task"] + 2 * found["consistency"])


def test_confidence_is_a_share_of_what_label_smoothing_leaves(few_labels: Path) -> None:
    assert losses(built(options(few_labels, confidence=1.0, label_smoothing=0.0)))["consistency"] == 0
    assert losses(built(options(few_labels, confidence=1.0, label_smoothing=0.99)))["consistency"] > 0


def test_the_weak_view_is_only_moved_whatever_labelled_images_are_trained_with(few_labels: Path) -> None:
    plain = built(options(few_labels))
    busy = built(options(few_labels, mixup=0.8, colour=0.5, erase=1.0, auto_augment="rand-m9-p1"))
    seen: list[torch.Tensor] = []
    for trainer in (plain, busy):
        hook = trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        losses(trainer)
        hook.remove()
    without = torch.from_numpy(plain.data.labels[plain.batches.batch(0)] < 0)
    assert torch.equal(seen[0][:8][without], seen[1][:8][without])
    assert not torch.equal(seen[0][:8][~without], seen[1][:8][~without])


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.8, "cutmix": 1.0, "grad_accumulation": 2, "labelled_share": 0.25},
        {"precision": "bf16", "min_scale": 0.5, "ema": 0.9},
        {"memory_limit_gb": 0.0, "workers": 1},
    ],
    ids=["mixing", "bf16", "workers"],
)
def test_it_resumes_mid_epoch_to_the_same_bits(changes: dict[str, Any], few_labels: Path, tmp_path: Path) -> None:
    config = options(few_labels, out=tmp_path / "whole", **changes)
    train(config)
    assert all(row["consistency_loss"] >= 0 for row in runs.read_run(tmp_path / "whole")["metrics"])
    resumed(config, tmp_path / "broken", steps=4)
    assert same(tmp_path / "whole", tmp_path / "broken")


def test_described_images_without_a_label_are_aligned_as_well(few_labels: Path, tmp_path: Path) -> None:
    images = load_dataset(f"folder:{few_labels}")
    rng = np.random.default_rng(0)
    make_table(tmp_path / "table", {digest: [rng.normal(size=8)] for digest in images.digests[::2]})
    found = losses(built(options(few_labels, embeddings=tmp_path / "table")))
    assert found["total"] == pytest.approx(found["task"] + found["align"] + found["consistency"])
