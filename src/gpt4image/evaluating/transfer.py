"""Transfer: what the features of a trained model are worth on another image set, by a linear probe and by k-NN."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError
from gpt4image.base.files import fingerprint
from gpt4image.data.image_set import ImageSet
from gpt4image.data.pixels import Pixels

MOST_IMAGES = 5000
"""Images of a split that take part, the first by digest: probes stay quick on any set."""
TEST_FRACTION = 0.2
NEIGHBOURS, SHARPNESS = 20, 0.07
C_PATH = tuple(10.0**power for power in range(-4, 3))
HELD_OUT = 5  # one in so many training images chooses C
MAX_ITERATIONS = 300

Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferSet:
    """Labelled images of another set, with what was left out.

    Attributes:
        pixels: their pixels, at the size of the run.
        labels: (n,) int64.
        train: positions to fit on.
        test: positions to score on.
    """

    pixels: Pixels
    labels: Ints
    train: Ints
    test: Ints


def choose_images(spec: str) -> ImageSet:
    """Return the labelled train and test images of a set that take part; a test split is cut where it has none.

    Raises:
        ConfigError, DataError: the SPEC is wrong, or a split has fewer than two classes with labels.
    """
    from gpt4image.data import load_with_splits

    image_set = load_with_splits(spec, val_fraction=0.0, test_fraction=TEST_FRACTION)
    order = np.argsort(np.array(image_set.digests), kind="stable")
    chosen: list[Ints] = []
    for split in ("train", "test"):
        part = order[(image_set.splits[order] == split) & (image_set.labels[order] >= 0)][:MOST_IMAGES]
        if len(np.unique(image_set.labels[part])) < 2:
            raise DataError(f"--transfer {spec}: the {split} split has no labelled images of two or more classes.")
        chosen.append(part)
    return image_set.select(np.concatenate(chosen))


def identity(image_set: ImageSet) -> str:
    """Return what tells the images of a set, their labels and splits from others."""
    return fingerprint([image_set.digests, image_set.labels.tolist(), image_set.splits.tolist()])


@functools.lru_cache(maxsize=4)
def load_transfer_set(spec: str, size: int, memory_limit_gb: float, workers: int | None) -> TransferSet:
    """Return a set at ``size`` pixels, kept from run to run; images that cannot be decoded are left out."""
    from gpt4image.data.pixels import load_pixels

    image_set = choose_images(spec)
    pixels, _, usable = load_pixels(image_set, size, memory_limit_gb=memory_limit_gb, workers=workers)
    train, test = (np.flatnonzero((image_set.splits == split) & usable) for split in ("train", "test"))
    return TransferSet(pixels=pixels, labels=image_set.labels, train=train, test=test)


def linear_probe_accuracy(train: Array, train_labels: Ints, test: Array, test_labels: Ints) -> float:
    """Return the test accuracy of a logistic regression on frozen features.

    Its L2 strength is chosen by accuracy on every fifth training image; ties go to the stronger one.

    Args:
        train: (n, C) features, in random order.
        train_labels: (n,), two classes at least.
        test: (m, C).
        test_labels: (m,).
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = ((part - mean) / np.maximum(deviation, 1e-6) for part in (train, test))
    held_out = np.arange(len(train)) % HELD_OUT == HELD_OUT - 1
    strength = C_PATH[0]
    if len(np.unique(train_labels[~held_out])) > 1 and held_out.any():
        fit, check = (train[~held_out], train_labels[~held_out]), (train[held_out], train_labels[held_out])
        strength = C_PATH[int(np.argmax([_fit_and_score(fit, check, c) for c in C_PATH]))]
    return _fit_and_score((train, train_labels), (test, test_labels), strength)


def nearest_neighbour_accuracy(train: Array, train_labels: Ints, test: Array, test_labels: Ints) -> float:
    """Return the test accuracy of a vote of the 20 training images of the most similar features.

    A vote weighs exp(cosine / 0.07), as in DINO (Caron et al. 2021, arXiv 2104.14294; Wu et al. 2018).

    Args:
        train: (n, C) features.
        train_labels: (n,).
        test: (m, C).
        test_labels: (m,).
    """
    train, test = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (train, test))
    similarity = test @ train.T
    count = min(NEIGHBOURS, len(train))
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / SHARPNESS)
    votes = np.zeros((len(test), int(train_labels.max()) + 1))
    np.add.at(votes, (np.arange(len(test))[:, None], train_labels[nearest]), weights)
    return float((votes.argmax(axis=1) == test_labels).mean())


def _fit_and_score(train: tuple[Array, Ints], test: tuple[Array, Ints], c: float) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early only regularises a little more
        model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(*train)
    return float((model.predict(test[0]) == test[1]).mean())
