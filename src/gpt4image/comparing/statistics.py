"""Means and paired differences over seeds, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of n paired differences, its 95 % t-interval and the two-sided p-value of the paired t-test.

    ``ci95`` and ``p`` are None for a single pair. Where all differences are equal the interval has no width, and p is
    1 if they are zero and 0 otherwise.
    """

    difference: float
    ci95: tuple[float, float] | None
    p: float | None
    n: int


def mean_ci(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean of ``values`` and the ends of its 95 % t-interval, None and None for a single value.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("the mean of no values is not defined")
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) == 1:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(sample) - 1) * _standard_error(sample))
    return mean, mean - half, mean + half


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the paired difference ``a - b``.

    Raises:
        ValueError: the lengths differ, or there are no values.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must have equal length, got {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    n = len(differences)
    mean, low, high = mean_ci(differences.tolist())
    if low is None or high is None:
        return Difference(difference=mean, ci95=None, p=None, n=n)
    error = _standard_error(differences)
    if error == 0.0:
        p = 1.0 if mean == 0.0 else 0.0
    else:
        p = float(2.0 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(difference=mean, ci95=(low, high), p=p, n=n)


def _standard_error(sample: np.ndarray) -> float:
    """Return the standard error of the mean; rounding noise of equal values counts as none."""
    error = float(sample.std(ddof=1) / np.sqrt(len(sample)))
    return 0.0 if error <= 1e-14 * float(np.abs(sample).max()) else error
