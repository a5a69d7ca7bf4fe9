"""Which of the given labels are wrong, by predictions that have not seen them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import beta

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ANCHORS = 0.1  # share of the labelled images, those where the text is surest, that noise is read off
MIN_ANCHORS = 50
MIN_NOISE, MAX_NOISE = 0.05, 0.75
MIN_STEADINESS = 0.6
CONFIDENCE = 0.99  # that at least MIN_NOISE of the labels are wrong


def estimate_noise(probabilities: Floats, labels: Ints) -> float:
    """Estimate the part of labels that is wrong, from out-of-fold predictions.

    Where the text is surest it is nearly always right, so disagreement there is noise (anchors: Patrini et al. 2017,
    arXiv 1609.03683). Texts that say little about the classes disagree too; but then agreement falls off from the
    surest images to all, whereas noise is the same for all. What cannot be told apart from that counts as no noise:
    clean labels are not to be harmed.

    Args:
        probabilities: (n, K) predictions that have not seen the image's label.
        labels: (n,) given labels.

    Returns:
        0, or a value in [MIN_NOISE, MAX_NOISE]; always 0 for fewer than 2 * MIN_ANCHORS labels.
    """
    if len(labels) < 2 * MIN_ANCHORS:
        return 0.0  # the surest of so few are not sure
    right = probabilities.argmax(axis=1) == labels
    count = max(MIN_ANCHORS, round(ANCHORS * len(labels)))
    anchors = np.argsort(-probabilities.max(axis=1), kind="stable")[:count]
    noise = float(1.0 - right[anchors].mean())
    wrong = count - int(right[anchors].sum())
    # Clopper-Pearson bound: a few disagreements among few anchors may be the text's own mistakes.
    surely = float(beta.ppf(1.0 - CONFIDENCE, wrong, count - wrong + 1)) if wrong else 0.0
    if surely < MIN_NOISE or noise > MAX_NOISE:
        return 0.0
    chance = float(np.bincount(labels).max() / len(labels))
    steadiness = (right.mean() - chance) / max(1.0 - noise - chance, 1e-6)
    return noise if steadiness >= MIN_STEADINESS and right.mean() > chance else 0.0


def clean_probabilities(probabilities: NDArray[np.float32], labels: Ints, fitted: Bools, noise: float) -> Floats:
    """Turn probabilities of the noisy label into those of the clean class.

    Log-probabilities are scaled by the factor under which the noise model explains the given labels best (forward
    correction, Patrini et al. 2017): a classifier fitted to wrong labels is right more often than it is sure.

    Args:
        probabilities: (N, K).
        labels: (N,) given labels.
        fitted: (N,) rows to fit the factor on: labelled, and predicted out-of-fold.
        noise: part of the labels that is wrong.
    """
    n_classes = probabilities.shape[1]
    other = noise / (n_classes - 1)
    own = labels[fitted]

    def loss(log_scale: float) -> float:
        clean = _power(probabilities[fitted], np.exp(log_scale))
        return float(-np.log(other + (1.0 - noise - other) * clean[np.arange(len(own)), own]).mean())

    result: Any = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    return _power(probabilities, np.exp(result.x))


def find_doubtful(probabilities: Floats, labels: Ints) -> Bools:
    """Say which labels are probably wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    An image counts as a class where its probability reaches the mean of that class among the images labelled so; it is
    doubtful where the most probable such class is not its label.

    Args:
        probabilities: (n, K) predictions that have not seen the image's label.
        labels: (n,) given labels.
    """
    sums = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=probabilities.shape[1])
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    return (confident.max(axis=1) >= 0.0) & (confident.argmax(axis=1) != labels)


def _power(probabilities: Floats, scale: float) -> Floats:
    """Raise probabilities to a power and normalise each row: what scaling the logits does."""
    raised = np.where(probabilities > 0, np.maximum(probabilities, 1e-12) ** scale, 0.0)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
