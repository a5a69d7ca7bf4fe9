"""How many of many images are right, from a person's looks at a few: which to draw, and an interval that holds.

Images are drawn within strata of a *proxy*, an expected probability to be right: the confidence of a target, or the
target's probability of a model's prediction. Within a stratum they are drawn at random, so a proxy that is wrong widens
the interval and does not make it false.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_STRATA = 4
LOOKS_PER_STRATUM = 25
LEAST_SPREAD = 0.2  # of an image whose proxy is sure: it may be over-confident, so some looks go there, too


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of ``total`` images with its 95 % interval, estimated from ``looks`` of them."""

    share: float
    low: float
    high: float
    looks: int
    total: int

    def looks_for(self, half_width: float) -> int:
        """Return about how many looks in all give an interval of ``share`` ± ``half_width``."""
        now = (self.high - self.low) / 2
        if now == 0:
            return self.looks
        # The square of the width is proportional to 1 / looks - 1 / total.
        left = (1 / self.looks - 1 / self.total) * (half_width / now) ** 2
        return min(self.total, math.ceil(1 / (1 / self.total + left)))


def strata_of(proxy: Floats, looks: int) -> Ints:
    """Return (N,) strata of equal spread, for which equally many looks each are best.

    The spread of an image is the standard deviation of being right, by its proxy (Neyman 1934; Dalenius and Hodges
    1959).
    """
    strata = int(np.clip(looks // LOOKS_PER_STRATUM, 1, MOST_STRATA))
    spread = np.maximum(np.sqrt(np.clip(proxy * (1 - proxy), 0, None)), LEAST_SPREAD)
    order = np.argsort(proxy, kind="stable")
    middle = np.cumsum(spread[order]) - spread[order] / 2
    found = np.empty(len(proxy), np.int64)
    found[order] = (middle / spread.sum() * strata).astype(np.int64)
    return found


def drawn(strata: Ints, seed: int) -> Ints:
    """Return all rows in the order to look at them: strata take turns, at random within each."""
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.bincount(strata)
    turn = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return by_stratum[np.argsort(turn, kind="stable")]


def share_right(strata: Ints, looked: Ints, right: Bools) -> Share:
    """Return the share of N images that are right, with a 95 % interval.

    Exact binomial limits of each stratum (Clopper and Pearson 1934) are combined by recovering their variances (MOVER,
    Zou and Donner 2008), corrected for a finite set. A stratum without a look is joined with the one before.

    Args:
        strata: (N,) of all images.
        looked: (n,) rows that were looked at, at random within each stratum; n > 0.
        right: (n,) whether they are right.
    """
    place = np.bincount(strata[looked], minlength=strata.max() + 1) > 0
    joined = np.maximum(np.cumsum(place) - 1, 0)[strata]  # looks are at least in one stratum
    size = np.bincount(joined)
    n = np.bincount(joined[looked], minlength=len(size))
    k = np.bincount(joined[looked], weights=right, minlength=len(size))
    with np.errstate(invalid="ignore"):
        low, high = np.nan_to_num(beta.ppf(0.025, k, n - k + 1)), beta.ppf(0.975, k + 1, n - k)
    high = np.where(k == n, 1.0, high)
    weight, share = size / size.sum(), k / n
    known = weight * np.sqrt(1 - n / size)
    found = float(weight @ share)
    below, above = (math.hypot(*(known * distance)) for distance in (share - low, high - share))
    return Share(
        share=found, low=max(0.0, found - below), high=min(1.0, found + above), looks=len(looked), total=len(strata)
    )
