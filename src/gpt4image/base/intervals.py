"""95 % intervals of what is measured on images, where other images could have been drawn."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
SHARES = ("top1", "top5", "accuracy", "zero_shot", "refused")
"""Names of scores that are shares of images."""
RESAMPLES = 1000
"""Bootstrap samples of the images, for a score that is no mean over images."""
FEW_RESAMPLES = 200
"""As many tell a standard deviation."""
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within as many standard deviations


def wilson(share: float, images: float) -> Interval:
    """Return the interval of a share of ``images`` (Wilson 1927)."""
    middle, tail = share + _Z**2 / (2 * images), _Z**2 / images
    half = _Z * math.sqrt(share * (1 - share) / images + tail / (4 * images))
    return max(0.0, (middle - half) / (1 + tail)), min(1.0, (middle + half) / (1 + tail))


def paired(differences: NDArray[Any]) -> tuple[float, Interval]:
    """Return the mean of (n,) differences of scores from -1 to 1, and its interval (Agresti and Min 2005).

    Half an image is added that became better, and half of one that became worse, each with one that is as before.
    """
    n, total, mean = len(differences) + 2, float(differences.sum()), float(differences.mean())
    half = _Z * math.sqrt(((float((differences**2).sum()) + 1) / n - (total / n) ** 2) / n)
    return mean, (mean - half, mean + half)


def of_shares(scores: Mapping[str, float | None], images: float) -> dict[str, Interval]:
    """Return the intervals of those scores that are shares of ``images``."""
    return {name: wilson(scores[name] or 0.0, images) for name in SHARES if images and scores.get(name) is not None}


def independent(right: NDArray[Any], groups: Sequence[Hashable]) -> float:
    """Return how many independent images tell as much as (n,) ``right`` ones, of which those of one group are alike.

    It is the effective number by the variance between groups (Korn and Graubard 1998), at most n.
    """
    of_group, sizes = _numbered(groups)
    n, count, share = len(right), len(sizes), float(np.mean(right))
    if count == n or count == 1:
        return float(count)
    away = np.bincount(of_group, weights=right) - share * sizes
    spread = count / (count - 1) * float((away**2).sum()) / n**2
    return min(float(n), share * (1 - share) / spread) if spread else float(count)


def mean_over_classes(per_class: Sequence[float | None], support: Sequence[int]) -> Interval:
    """Return the interval of the mean of shares, each of as many images: theirs combined (Zou and Donner 2008)."""
    there = [(share, wilson(share, n)) for share, n in zip(per_class, support, strict=True) if share is not None]
    mean = math.fsum(share for share, _ in there) / len(there)
    below = math.hypot(*(share - low for share, (low, _) in there)) / len(there)
    above = math.hypot(*(high - share for share, (_, high) in there)) / len(there)
    return max(0.0, mean - below), min(1.0, mean + above)


def resamples(groups: Sequence[Hashable], count: int = RESAMPLES) -> NDArray[np.int64]:
    """Return (R, n) how often each of n images is in a bootstrap sample; those of one group are drawn together."""
    of_group, sizes = _numbered(groups)
    drawn = len(sizes)
    return np.random.default_rng(0).multinomial(drawn, np.full(drawn, 1 / drawn), size=count)[:, of_group]


def of_resamples(score: float, values: NDArray[np.float64]) -> Interval:
    """Return the interval of a score by the standard deviation of its (R,) values in bootstrap samples."""
    half = _Z * float(values.std())
    return max(0.0, score - half), min(1.0, score + half)


def _numbered(groups: Sequence[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    of_group = np.array([numbers[group] for group in groups], np.int64)
    return of_group, np.bincount(of_group)
