"""Which images to label next: those whose class is least sure, no two of them alike."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.top_k_probs import Probabilities, chosen, two_best
from gpt4image.labelling.text_vectors import Vectors

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

MAX_CANDIDATES = 20_000  # clusters are sought among the least sure images where there are more
LEAST_WEIGHT = 1e-3


def doubt_of(probabilities: Probabilities) -> Floats:
    """Return (n,) how unsure the class of images is: 1 minus the distance of the two most probable classes."""
    two = two_best(probabilities)[1]
    return 1.0 - (two[:, 0] - two[:, 1])


def to_label(vectors: Vectors, probabilities: Probabilities, candidates: Ints, count: int, seed: int) -> Ints:
    """Return at most ``count`` of the ``candidates``, positions of described images without a label, to label next.

    They are unsure and unlike each other: images are clustered by k-means, each with its doubt, 0 to 1, as weight
    (Zhdanov 2019, arXiv 1901.05954). The image nearest to the mean of each cluster is returned, those of the heaviest
    clusters first. ``vectors`` are (N, D) text embeddings, ``probabilities`` (N, K).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    doubt = doubt_of(chosen(probabilities, candidates))
    rows = np.sort(np.argsort(-doubt, kind="stable")[:MAX_CANDIDATES])
    weights = doubt[rows] + LEAST_WEIGHT
    if len(rows) <= count:
        return candidates[rows[np.argsort(-weights, kind="stable")]]
    points = np.asarray(vectors[candidates[rows]], np.float64)
    clusters = KMeans(count, n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal texts: fewer clusters than asked for
        own = np.asarray(clusters.fit_predict(points, sample_weight=weights))
    far = np.asarray(clusters.transform(points))[np.arange(len(points)), own]
    order = np.lexsort((far, own))
    nearest = order[np.unique(own[order], return_index=True)[1]]
    best = nearest[np.argsort(-np.bincount(own, weights=weights)[own[nearest]], kind="stable")]
    return candidates[rows[best]]
