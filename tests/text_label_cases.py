"""Small files of text labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.data import Dataset


def made() -> Targets:
    """Return those of three images, the last of test."""
    return Targets(
        keys=("a", "b", "c"),
        digests=("0" * 64, "1" * 64, "2" * 64),
        splits=np.array(["train", "train", "test"]),
        labels=np.array([0, 1, -1]),
        probabilities=np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32),
        out_of_fold=np.array([True, True, False]),
        facts=Facts(classes=("cat", "dög"), noise=0.25, agreement=0.5, c=1.0, folds=2, seed=0, encoders=("minilm",)),
    )


def made_of(images: Dataset, classes: Sequence[str], probabilities: Any, task: str = "classification") -> Targets:
    """Return those of images without a label."""
    labels = np.full(probabilities.shape if task == "multilabel" else len(images), -1, np.int64)
    return Targets(
        keys=images.keys,
        digests=tuple(images.digests),
        splits=images.splits,
        labels=labels.astype(np.int8) if task == "multilabel" else labels,
        probabilities=probabilities,
        out_of_fold=np.ones(labels.shape, bool),
        facts=Facts(classes=tuple(classes), noise=0.0, agreement=None, c=None, folds=5, seed=0, encoders=(), task=task),
    )
