"""Boxes that a trained detector predicts, as targets: what self-training learns from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.regions import Boxes, ImageBoxes
from gpt4image.tasks.average_precision import Matches

USUAL_THRESHOLD = 0.5  # where no human box of validation can tell
UNSURE = 0.5
"""Part of the threshold from which on a box is a region that counts for nothing."""


def best_threshold(predictions: NDArray[np.float32], human: Boxes, n_classes: int) -> float | None:
    """Return the score from which on predicted boxes agree best with human ones: the largest F1 at an IoU of 0.5.

    Args:
        predictions: (N, D, 6) left, top, right, bottom, score, class of each box, the best of an image first; a score
            of 0 is no box.
        human: of the same images.
        n_classes: K.

    Returns:
        None where no human box is predicted.
    """
    rows = np.flatnonzero(human.known)
    if not len(rows):
        return None
    found = Matches.of(predictions[rows], human[rows], n_classes)
    scores = np.sort(predictions[rows, :, 4][predictions[rows, :, 4] > 0])[::-1]
    right = found.right[:, 0].cumsum()
    if not right.any():
        return None
    f1 = 2 * right / (found.counts[:, 0].cumsum() + found.support.sum())
    return float(scores[f1.argmax()])


def pseudo_boxes(predictions: NDArray[np.float32], threshold: float | None) -> Boxes:
    """Return predicted boxes (N, D, 6) as targets.

    Those that score less than the threshold, but UNSURE of it, are regions that count for nothing. An image without a
    sure box is not annotated: a weak detector misses much.
    """
    sure = USUAL_THRESHOLD if threshold is None else threshold

    def of_image(rows: NDArray[np.float32]) -> ImageBoxes | None:
        found = rows[(rows[:, 4] > 0) & (rows[:, 4] >= UNSURE * sure)]
        weights = (found[:, 4] >= sure).astype(np.float32)
        return (found[:, :4], found[:, 5].astype(np.int64), weights) if weights.any() else None

    return Boxes.of_images([of_image(rows) for rows in predictions])
