"""Measuring a finished run: accuracy needs no texts, and what could not be measured is tried again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import trained_runs
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data import load_with_splits
from gpt4image.evaluate import evaluate
from gpt4image.train import train
from tables import make_table

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def write_table(folder: Path, table: Path, splits: tuple[str, ...]) -> None:
    """Describe the images of some splits."""
    default = {name: TrainConfig.model_fields[name].default for name in ("val_fraction", "test_fraction")}
    rng, images = np.random.default_rng(0), load_with_splits(f"folder:{folder}", **default)
    chosen = [digest for digest, split in zip(images.digests, images.splits, strict=True) if split in splits]
    shutil.rmtree(table, ignore_errors=True)
    make_table(table, {digest: list(rng.normal(size=(1, 12))) for digest in chosen})


@pytest.fixture
def run(colour_folder: Path, tmp_path: Path) -> Path:
    """A run aligned to descriptions of training and validation images."""
    write_table(colour_folder, tmp_path / "table", ("train", "val"))
    options = {**trained_runs.SHORT, **trained_runs.TINY_RESNET, "image_size": 16, "memory_format": "contiguous"}
    train(TrainConfig(**options, data=f"folder:{colour_folder}", embeddings=tmp_path / "table", out=tmp_path / "run"))
    return tmp_path / "run"


def test_retrieval_takes_validation_images_where_no_test_image_is_described(run: Path) -> None:
    outcome = evaluate(EvaluateConfig(run_dir=run))
    assert "retrieval" not in outcome.record["not_measured"]
    assert 0 <= outcome.summary["text_to_image_recall:1"] <= 1


def test_what_could_not_be_measured_is_measured_when_it_can_be(run: Path, colour_folder: Path, tmp_path: Path) -> None:
    write_table(colour_folder, tmp_path / "table", ("train",))
    assert "no image of test or val" in evaluate(EvaluateConfig(run_dir=run)).record["not_measured"]["retrieval"]
    write_table(colour_folder, tmp_path / "table", ("train", "test"))
    outcome = evaluate(EvaluateConfig(run_dir=run))
    assert "text_to_image_recall:1" in outcome.summary and "retrieval" not in outcome.record["not_measured"]


def test_accuracy_is_measured_where_the_embedding_table_is_gone(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "table")
    outcome = evaluate(EvaluateConfig(run_dir=run))
    assert 0 <= outcome.summary["top1"] <= 1
    assert outcome.record["not_measured"]["retrieval"]
