"""Whether an exported model is the model of its run: both predict the same images, each in its own way.

The run decodes and predicts as its evaluation does, in float32; the export as a ``Classifier``, as users do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ExportError
from gpt4image.base.outcome import Skipped
from gpt4image.data import ImageSet
from gpt4image.data.pixels import load_pixels
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.preprocessing import as_images
from gpt4image.tasks.base import Predictions, Task
from gpt4image.training.auto import stored_as
from gpt4image.training.predictions import images_at_once
from gpt4image.training.run_model import RunModel

MOST_IMAGES = 256
TOLERANCE = 1e-4
"""Largest difference of a probability that is still rounding: measured are some 1e-7."""


class Agreement(NamedTuple):
    """The number of images that two models predicted, and the largest difference of any prediction."""

    images: int
    largest_difference: float


def images_to_compare(image_set: ImageSet) -> ImageSet:
    """Return up to MOST_IMAGES images, spread evenly over the test split, or else validation, or else all."""
    splits = (image_set.indices(split) for split in ("test", "val"))
    indices = next((found for found in splits if len(found)), np.arange(len(image_set)))
    return image_set.select(indices[np.linspace(0, len(indices) - 1, min(len(indices), MOST_IMAGES)).astype(int)])


def run_probabilities(
    model: RunModel, images: ImageSet
) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[Skipped, ...]]:
    """Return what the model of a run predicts for images, in float32 on the CPU.

    Returns:
        (n, K) class probabilities; the (n,) positions of the images that can be decoded; the other images.

    Raises DataError: no image can be decoded.
    """
    options = model.config.model_copy(update={"device": "cpu", "precision": "fp32", "memory_format": "contiguous"})
    pixels, skipped, usable = load_pixels(
        images, memory_limit_gb=float("inf"), workers=1, **stored_as(options, model.task)
    )
    indices = np.flatnonzero(usable)
    return replace(model, config=options).read(pixels, indices).predictions, indices, skipped


def exported_probabilities(classifier: Classifier, images: ImageSet, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (n, K) class probabilities that an exported model gives the images at ``indices``."""
    at_once = min(64, images_at_once(classifier.task, len(classifier.classes), classifier.preprocessing.size))
    pixels = np.stack([classifier.preprocessing.pixels(images.read(int(index))) for index in indices])
    batches = (as_images(pixels[start : start + at_once]) for start in range(0, len(pixels), at_once))
    return np.concatenate([classifier.probabilities(batch) for batch in batches])


def agreement(task: Task, ours: Predictions, theirs: Predictions) -> Agreement:
    """Compare the predictions (n, ...) of a run to those of its export.

    Raises ExportError: a difference is more than rounding, or NaN.
    """
    largest = task.difference(ours, theirs)
    if not largest <= TOLERANCE:
        raise ExportError(
            f"The exported model is not the model of the run: on {len(ours)} images their predictions differ by up "
            f"to {largest:.2g} (allowed is {TOLERANCE:g}). Nothing was written; use another --format."
        )
    return Agreement(len(ours), largest)
