"""How many of many images are right, from a few that were audited, with intervals and promises that hold.

The audited images are a simple random sample. The *estimated correctness* of an image, a probability to be right, only
sorts them into strata afterwards: one that is wrong widens the interval and does not make it false.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST = 5  # audited images from which on a share is estimated
MANY = 50  # audited images from which on there are three strata, not two
TAIL, ERROR = 0.025, 0.05
MID_P_TAIL = 0.0225  # mid-p limits cover a little less than they say, where strata are combined
LEAST_SPREAD = (
    0.2  # of an image whose estimate is sure, as it may be over-confident: these do not all share one stratum
)
STEPS, STARTS = 50, 2  # sets of surest images, of which the largest that keeps a promise is sought; those that may err


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of ``total`` images, or of things in them, with its 95 % interval, estimated from ``looks`` audited
    images."""

    share: float
    low: float
    high: float
    looks: int
    total: int

    def looks_for(self, half_width: float) -> int:
        """Return about how many audited images in all give an interval of ``share`` ± ``half_width``."""
        now = (self.high - self.low) / 2
        if now == 0:
            return self.looks
        # The square of the width is proportional to 1 / looks - 1 / total.
        left = (1 / self.looks - 1 / self.total) * (half_width / now) ** 2
        return min(self.total, math.ceil(1 / (1 / self.total + left)))

    def __str__(self) -> str:
        """The share and its interval in percent."""
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})"


def strata_of(estimated: Floats, looks: int) -> Ints:
    """Return (N,) strata of equal spread, for which equally many audited images each are best.

    The spread of an image is the standard deviation of being right, by its estimated correctness (Neyman 1934; Dalenius
    and Hodges 1959).
    """
    spread = np.maximum(np.sqrt(np.clip(estimated * (1 - estimated), 0, None)), LEAST_SPREAD)
    order = np.argsort(estimated, kind="stable")
    middle = np.cumsum(spread[order]) - spread[order] / 2
    found = np.empty(len(estimated), np.int64)
    found[order] = (middle / spread.sum() * (2 if looks < MANY else 3)).astype(np.int64)
    return found


def share_right(estimated: Floats, audited: Ints, right: Bools) -> Share:
    """Return the share of N images that are right, with a 95 % interval, by (n,) looks at random and whether each is
    right.

    Looks are stratified by the (N,) ``estimated`` correctness. Mid-p limits of each stratum (Lancaster 1961) are
    combined by recovering their variances (MOVER, Zou and Donner 2008), corrected for a finite set. A stratum without a
    look is joined with the one before.
    """
    strata = strata_of(estimated, len(audited))
    place = np.bincount(strata[audited], minlength=strata.max() + 1) > 0
    joined = np.maximum(np.cumsum(place) - 1, 0)[strata]  # looks are at least in one stratum
    size = np.bincount(joined)
    n = np.bincount(joined[audited], minlength=len(size))
    k = np.bincount(joined[audited], weights=right, minlength=len(size))
    weight, share = size / size.sum(), k / n
    known = weight * np.sqrt(1 - n / size)
    found = float(weight @ share)
    below = math.hypot(*(known * (share - (1 - _upper(n - k, n)))))
    above = math.hypot(*(known * (_upper(k, n) - share)))
    return Share(
        share=found, low=max(0.0, found - below), high=min(1.0, found + above), looks=len(audited), total=len(estimated)
    )


def share_of_classes(said: Sequence[str], estimated: Floats, audited: Ints, truth: Sequence[str]) -> Share | None:
    """Return the share of images whose class is said rightly, with its interval; None with too few audited images.

    ``said`` are N classes, empty where nothing is said, which counts nowhere; ``truth`` those of the n audited ones.
    """
    known = np.array([bool(name) for name in said], bool)
    seen = known[audited]
    if seen.sum() < FEWEST:
        return None
    right = np.array([said[row] == true for row, true in zip(audited, truth, strict=True)], bool)
    return share_right(estimated[known], (np.cumsum(known) - 1)[audited[seen]], right[seen])


def expected_right(said: NDArray[Any], judge: NDArray[Any] | None = None) -> tuple[Ints, Floats]:
    """Return the class that (N, K) probabilities name, -1 for a row of zeros, and how probably it is right.

    A ``judge``, probabilities of the same images by better evidence, says so where it says anything, else ``said``.
    """
    best = said.argmax(axis=1)
    own = said.max(axis=1)
    if judge is not None:
        own = np.where(judge.any(axis=1), judge[np.arange(len(judge)), best], own)
    return np.where(said.any(axis=1), best, -1), own.astype(np.float64)


def _upper(k: NDArray[Any], n: NDArray[Any]) -> Floats:
    """Return the mid-p upper limits of shares of which k of n were seen, by bisection."""
    low, high = k / n, np.ones(len(n))
    for _ in range(40):
        middle = (low + high) / 2
        inside = bdtr(k, n, middle) + np.where(k > 0, bdtr(np.maximum(k - 1, 0), n, middle), 0.0) > 2 * MID_P_TAIL
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def share_of_things(right: Ints, total: Ints, images: int) -> Share | None:
    """Return the share of things, such as boxes, that are right, with a 95 % interval; None where there are none.

    ``right`` (n,) of ``total`` (n,) things of each image looked at. Things of one image are alike, so exact binomial
    limits are taken at their effective number (Korn and Graubard 1998), corrected for a finite set of ``images``.
    """
    from scipy.stats import beta, norm, t

    n, things = len(total), int(total.sum())
    if not things or n < FEWEST:
        return None
    share = float(right.sum() / things)
    spread = n / (n - 1) * float(((right - share * total) ** 2).sum()) / things**2
    # Without an error, one thing per image is what surely is independent.
    effective = share * (1 - share) / spread if spread else float((total > 0).sum())
    effective = min(effective, things) * float(norm.ppf(TAIL) / t.ppf(TAIL, n - 1)) ** 2
    k = share * effective
    low = float(beta.ppf(TAIL, k, effective - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - TAIL, k + 1, effective - k)) if share < 1 else 1.0
    known = math.sqrt(1 - n / images)
    return Share(share=share, low=share - known * (share - low), high=share + known * (high - share),
                 looks=n, total=images)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The largest set of surest images of which at most a share is wrong, with 95 % confidence: its size, 0 where
    nothing can be promised; looks at it, or at the smallest set that was tested, and how many are wrong; and the looks
    at all images that a test needs, 0 where one was made."""

    images: int
    looks: int = 0
    wrong: int = 0
    needed: int = 0


def promise(confidence: Floats, audited: Ints, wrong: Bools, max_error: float) -> Promise:
    """Return how many of the surest of N images are wrong in at most ``max_error``, which holds in 19 of 20 audits.

    Larger and larger sets of the surest images are tested by exact hypergeometric limits (conformal labelling, arXiv
    2510.14581). The chance of an error is shared by a few of the sets; one that passes hands its share on to the next
    larger one (fallback procedure, Wiens and Dmitrienko 2005). Which sets these are depends on the number of looks,
    never on what they found.
    """
    from scipy.stats import hypergeom

    total, share = len(confidence), len(audited) / len(confidence)
    place = np.empty(total, np.int64)
    place[np.argsort(-confidence, kind="stable")] = np.arange(total)
    sizes = np.unique(np.arange(1, STEPS + 1) * total // STEPS)
    sizes = sizes[sizes > 0]
    broken = (sizes * max_error).astype(np.int64) + 1  # the fewest wrong images that break the promise
    usual = np.floor(sizes * share + 1e-9).astype(np.int64)
    first = np.flatnonzero(hypergeom.pmf(0, sizes, broken, usual) <= ERROR / STARTS)
    if not len(first):
        enough = next(
            n for n in range(len(audited), total + 1) if hypergeom.pmf(0, total, broken[-1], n) <= ERROR / STARTS
        )
        return Promise(images=0, looks=len(audited), wrong=int(wrong.sum()), needed=enough)
    starts = np.unique(np.linspace(first[0], len(sizes) - 1, STARTS + 1).astype(np.int64)[:STARTS])
    inside = place[audited] < sizes[:, None]
    seen, bad = inside.sum(axis=1), (inside & wrong).sum(axis=1)
    chance = hypergeom.cdf(bad, sizes, broken, seen)
    found, level = -1, 0.0
    for j in range(int(first[0]), len(sizes)):
        level += ERROR / len(starts) if j in starts else 0.0
        found, level = (j, level) if chance[j] <= level else (found, 0.0)
    images, shown = (int(sizes[found]), found) if found >= 0 else (0, int(first[0]))
    return Promise(images=images, looks=int(seen[shown]), wrong=int(bad[shown]))
