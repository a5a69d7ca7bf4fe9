"""Are new images like those before? A test of features, and the shares of classes then and now. Arrays only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.intervals import Interval, wilson
from gpt4image.selecting.paired import holm

Floats = NDArray[np.floating[Any]]
MOST, FEWEST, FOLDS, PERMUTATIONS = 1000, 20, 5, 999  # images a side of the test: at most, at least
DIRECTIONS, RIDGE = 64, 1.0  # principal directions, and the penalty in units of their mean variance


class Drift(NamedTuple):
    """How well a classifier tells new images from those before: area under its curve, .5 is chance, and the p-value."""

    auc: float
    p: float


class ShareOfClass(NamedTuple):
    """A class, its share of the images then and now with 95 % intervals, and the p-value, corrected for all classes."""

    name: str
    then: float
    then_ci95: Interval
    now: float
    now_ci95: Interval
    p: float


def drift(before: Floats, new: Floats, seed: int = 0) -> Drift | None:
    """Return the classifier two-sample test of (n, D) and (m, D) features; None where a side has too few images.

    A linear classifier is fitted out of fold (Lopez-Paz and Oquab 2017, arXiv 1610.06545); its score under random
    labels gives the p-value. It is linear in the labels, so that all permutations are one product.
    """
    if min(len(before), len(new)) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    sides = [rng.permutation(len(side))[:MOST] for side in (before, new)]
    x = np.concatenate([before[sides[0]], new[sides[1]]]).astype(np.float64)
    labels = np.repeat([0.0, 1.0], [len(side) for side in sides])
    x -= x.mean(axis=0)
    x = x @ np.linalg.svd(x, full_matrices=False)[2][:DIRECTIONS].T
    fold = rng.permutation(len(x)) % FOLDS
    permuted = np.stack([labels, *(rng.permutation(labels) for _ in range(PERMUTATIONS))], axis=1)
    scores = np.empty_like(permuted)
    for number in range(FOLDS):
        out, rest = fold == number, fold != number
        squares = x[rest].T @ x[rest]
        penalty = RIDGE * np.trace(squares) / len(squares) * np.eye(len(squares))
        centred = permuted[rest] - permuted[rest].mean(axis=0)
        scores[out] = x[out] @ np.linalg.solve(squares + penalty, x[rest].T @ centred)
    found = _areas(scores, permuted)
    return Drift(float(found[0]), float((1 + (found[1:] >= found[0]).sum()) / (1 + PERMUTATIONS)))


def _areas(scores: Floats, labels: Floats) -> Floats:
    """Return the area under the curve of each column."""
    ranks = scores.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") + 1.0
    ones = labels.sum(axis=0)
    return ((ranks * labels).sum(axis=0) - ones * (ones + 1) / 2) / (ones * (len(labels) - ones))


def shares(classes: Sequence[str], then: NDArray[np.int64], now: NDArray[np.int64]) -> list[ShareOfClass]:
    """Return the shares of K classes among images then and now, by the class numbers of each image.

    The p-values are of Fisher's exact test, corrected by Holm (1979).
    """
    from scipy import stats

    exact: Any = stats.fisher_exact  # its result has the type of a plain tuple
    totals = [max(len(side), 1) for side in (then, now)]
    counts = [np.bincount(side, minlength=len(classes)).tolist() for side in (then, now)]
    both = list(zip(counts[0], counts[1], strict=True))
    plain = [float(exact([[a, totals[0] - a], [b, totals[1] - b]])[1]) for a, b in both]

    def share(count: int, side: int) -> tuple[float, Interval]:
        return count / totals[side], wilson(count / totals[side], totals[side])

    rows = zip(classes, both, holm(plain), strict=True)
    return [ShareOfClass(name, *share(a, 0), *share(b, 1), p) for name, (a, b), p in rows]
