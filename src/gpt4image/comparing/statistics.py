"""Means and paired differences over seeds, and over seeds and test images, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

EQUAL = 1e-6
"""Differences of accuracies closer than this are equal: they are float32, and one of a million images is more."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of n paired differences, its 95 % t-interval and the two-sided p-value of the paired t-test.

    ``ci95`` and ``p`` are None for a single pair, and where all differences are equal and not zero: a coincidence of
    few seeds or images that has no variance to test. If all are zero the interval has no width, and p is 1.
    """

    difference: float
    ci95: tuple[float, float] | None
    p: float | None
    n: int


def mean_ci(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean of one value at least and the ends of its 95 % t-interval, None and None for a single value."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) == 1:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(sample) - 1) * stats.sem(sample))
    return mean, mean - half, mean + half


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the paired difference ``a - b`` of as many values, one at least."""
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Difference(difference=mean, ci95=None, p=None, n=n)
    error = 0.0 if np.ptp(differences) < EQUAL else float(stats.sem(differences))
    return _judged(mean, error, n - 1, n)


def crossed(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Return the paired difference ``a - b`` where other seeds *and* other test images could have been drawn.

    Both are crossed random factors, as readers and cases in studies of diagnosis; variance components below zero count
    as zero. Degrees of freedom after Hillis (2007), "A comparison of denominator degrees of freedom methods for
    multiple observer ROC analysis": conservative where seeds are few.

    ``a`` and ``b`` are (S, I) scores of I test images by S seeds of each arm, e.g. whether the class is right.
    """
    return _crossed(a, b, averaged=True)


def bootstrapped(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Return the same as ``crossed`` for a metric that is no mean over images, from its values on resampled images.

    What other images would change is the variance over the resamples: of each seed's own part, and of the mean of all
    seeds. To resample the seeds too would be far too sure of few: of three without a difference, all agree in sign one
    time in four.

    ``a`` and ``b`` are (S, R) metrics of S seeds of each arm in the same R resamples of the images.
    """
    return _crossed(a, b, averaged=False)


def _crossed(a: NDArray[Any], b: NDArray[Any], *, averaged: bool) -> Difference:
    """Return the difference of (S, C) values by variance components of seeds and columns.

    Columns are scores of images, of which the metric is the mean, where they are ``averaged``; else the metric itself.
    """
    differences = a.astype(np.float64) - b
    n, columns = differences.shape
    mean = float(differences.mean())
    if n == 1 or columns == 1:
        return Difference(difference=mean, ci95=None, p=None, n=n)
    scores = columns if averaged else 1
    of_seed, of_column = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    rest = differences - mean - of_seed[:, None] - of_column[None, :]
    seeds_square = scores * float(of_seed @ of_seed) / (n - 1)
    columns_square = n * float(of_column @ of_column) / (columns - 1)
    rest_square = float((rest**2).sum()) / ((n - 1) * (columns - 1))
    seeds_square = max(seeds_square, rest_square)
    variance = seeds_square + max(columns_square - rest_square, 0.0)
    seeds_differ = seeds_square > 1e-12  # less is rounding noise: a single hit that differs is more
    # Hillis' formula considers only the readers (seeds); with few images their own freedom is the smaller one.
    freedom = min((n - 1) * (variance / seeds_square) ** 2, columns - 1) if seeds_differ else columns - 1
    return _judged(mean, float(np.sqrt(variance / (n * scores))), freedom, n)


def _judged(mean: float, error: float, freedom: float, n: int) -> Difference:
    if error == 0.0 and mean != 0.0:
        return Difference(difference=mean, ci95=None, p=None, n=n)
    half = float(stats.t.ppf(0.975, freedom) * error)
    p = 1.0 if error == 0.0 else float(2.0 * stats.t.sf(abs(mean) / error, freedom))
    return Difference(difference=mean, ci95=(mean - half, mean + half), p=p, n=n)
