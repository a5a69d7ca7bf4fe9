"""In which order to ask about images, to label or to audit them.

At random, where a simple random sample is needed. Else the unsure ones first, no two of them alike.
"""

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, two_best

Ints = NDArray[np.int64]
Vectors = Any  # (N, D), an array or what gives rows of one by position

MAX_CANDIDATES = 20_000  # clusters are sought among the heaviest images where there are more
MAX_CLUSTERS = 500
IN_FULL = 5_000_000  # images times clusters up to which k-means reads all of them in each step
LEAST_WEIGHT = 1e-3


def at_random(digests: Sequence[str], purpose: str = "look") -> Ints:
    """Return all rows in a random order that depends on their bytes alone: it stays when images come or go, so that the
    first ones of any images are a simple random sample of them."""
    return np.argsort([hashlib.sha256(f"{purpose} {one}".encode()).hexdigest() for one in digests], kind="stable")


def stratified(vectors: NDArray[np.floating], shuffled: Ints, strata: int) -> Ints:
    """Return the rows of (N, D) vectors in an order of which any first ones are a sample at random, of each cluster in
    proportion to its size; ``shuffled`` is a random order of the rows."""
    from sklearn.cluster import KMeans

    kind: Any = KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal images: fewer clusters than asked for
        own = np.asarray(kind(min(strata, len(vectors)), n_init=1, random_state=0).fit_predict(vectors))
    place, start = np.empty(len(own)), np.random.default_rng(0).random(own.max() + 1)
    for cluster in np.unique(own):
        rows = shuffled[own[shuffled] == cluster]
        place[rows] = (np.arange(len(rows)) + start[cluster]) / len(rows)
    return np.argsort(place, kind="stable")


def doubt_of(probabilities: Probabilities) -> NDArray[np.floating]:
    """Return (n,) how unsure the class of images is: 1 minus the distance of the two most probable classes."""
    two = two_best(probabilities)[1]
    return 1.0 - (two[:, 0] - two[:, 1])


def unlike(vectors: Vectors, weights: NDArray[np.floating], candidates: Ints, count: int, seed: int) -> Ints:
    """Return at most ``count`` of the ``candidates``, positions (n,) in ``vectors`` (N, D), best first.

    They are heavy and unlike each other: images are clustered by k-means, each with its weight (n,), 0 to 1, such as
    its doubt (Zhdanov 2019, arXiv 1901.05954). The image nearest to the mean of each cluster comes first, those of the
    heaviest clusters before others; then the second nearest of each, where there are fewer clusters than ``count``.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = np.sort(np.argsort(-weights, kind="stable")[: max(MAX_CANDIDATES, 4 * count)])
    heavy = weights[rows] + LEAST_WEIGHT
    if len(rows) <= count:
        return candidates[rows[np.argsort(-heavy, kind="stable")]]
    points, clusters = np.asarray(vectors[candidates[rows]], np.float32), min(count, MAX_CLUSTERS)
    kind: Any = KMeans if len(rows) * clusters <= IN_FULL else MiniBatchKMeans
    found = kind(clusters, n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal images: fewer clusters than asked for
        own = np.asarray(found.fit_predict(points, sample_weight=heavy))
    far = ((points - found.cluster_centers_[own]) ** 2).sum(axis=1)
    by_cluster = np.lexsort((far, own))
    first = np.searchsorted(own[by_cluster], own[by_cluster])
    place = np.empty(len(rows), np.int64)
    place[by_cluster] = np.arange(len(rows)) - first
    best = np.lexsort((-np.bincount(own, weights=heavy)[own], place))
    return candidates[rows[best[place[best] < -(-count // clusters)][:count]]]
