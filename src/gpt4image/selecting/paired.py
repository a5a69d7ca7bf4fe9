"""Accuracies on the same images, compared: exact paired tests, corrected, and how many images decide."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
ALPHA, POWER = 0.05, 0.8


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    plain = np.asarray(p, np.float64)
    order = np.argsort(plain, kind="stable")
    corrected = np.empty_like(plain)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(plain[order] * np.arange(len(plain), 0, -1)))
    return corrected.tolist()


def exact_p(one: Bools, other: Bools) -> float:
    """Return the p-value of McNemar's exact test, two-sided, of (n,) right answers of two on the same images."""
    from scipy import stats

    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    tested: Any = stats.binomtest(min(better, worse), better + worse) if better + worse else None
    return 1.0 if tested is None else float(tested.pvalue)


def images_to_decide(difference: float, differing: float, comparisons: int) -> int | None:
    """Return about how many images show a difference of accuracies in 80 % of samples, None without a difference.

    The answers of a share ``differing`` of the images are right for only one of both (Connor 1987); the test is
    corrected for the number of ``comparisons``.
    """
    from scipy.stats import norm

    size = abs(difference)
    if not size:
        return None
    differing = max(differing, size)
    level, power = float(norm.ppf(1 - ALPHA / (2 * comparisons))), float(norm.ppf(POWER))
    return math.ceil(((level * math.sqrt(differing) + power * math.sqrt(differing - size**2)) / size) ** 2)
