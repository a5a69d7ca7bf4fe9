"""Harder regimes: what is taken away from the training images, or spoilt, before an arm sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.image_set import NO_LABEL
from gpt4image.data.splits import flip_labels, keep_labels_per_class
from gpt4image.errors import DataError
from gpt4image.training_data import TrainingData


def labels_left(data: TrainingData, labels_per_class: int | None, label_noise: float, seed: int) -> NDArray[np.int64]:
    """Return the labels that a seed trains on: some kept, some flipped, only ever in train."""
    labels, train = data.labels, data.indices("train")
    if labels_per_class is not None:
        labels = keep_labels_per_class(labels, train, labels_per_class, seed, classes=data.classes)
    if label_noise > 0.0:
        labelled = train[labels[train] != NO_LABEL]
        labels = flip_labels(labels, labelled, label_noise, len(data.classes), seed)
    if not (labels[train] != NO_LABEL).any():
        raise DataError(f"No training image of {data.image_set.spec} has a label; label some.")
    return labels
