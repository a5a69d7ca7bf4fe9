"""Which images to label next, and which to describe: the most informative ones, no two of them alike."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.top_k_probs import Probabilities, chosen, two_best
from gpt4image.data.dataset import NO_LABEL
from gpt4image.labelling.text_vectors import Vectors

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

MAX_CANDIDATES = 20_000  # clusters are sought among the least sure images where there are more
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One image that is worth a label or a description.

    Attributes:
        row: its position in the dataset.
        action: label or describe.
        doubt: how unsure its class is, 0 to 1; None for one to describe.
        why: one line for people.
    """

    row: int
    action: str
    doubt: float | None
    why: str


def doubt_of(probabilities: Probabilities) -> Floats:
    """Return (n,) how unsure the class of images is: 1 minus the distance of the two most probable classes."""
    two = two_best(probabilities)[1]
    return 1.0 - (two[:, 0] - two[:, 1])


def to_label(
    vectors: Vectors, probabilities: Probabilities, candidates: Ints, count: int, seed: int
) -> list[Suggestion]:
    """Return at most ``count`` of the ``candidates``, positions of described images without a label, to label next.

    They are unsure and unlike each other: images are clustered by k-means, each with its doubt, 0 to 1, as weight
    (Zhdanov 2019, arXiv 1901.05954). The image nearest to the mean of each cluster is returned, in the order of the
    doubt of clusters.

    Args:
        vectors: (N, D) text embeddings.
        probabilities: (N, K) class probabilities.
        candidates, count, seed: which images, how many, and of the clusters.
    """
    doubt, why = doubt_of(chosen(probabilities, candidates)), "stands for others as unsure"
    rows = np.sort(np.argsort(-doubt, kind="stable")[:MAX_CANDIDATES])
    weights = doubt[rows] + LEAST_WEIGHT
    if len(rows) <= count:
        best = rows[np.argsort(-weights, kind="stable")]
    else:
        best = rows[_means(np.asarray(vectors[candidates[rows]], np.float64), weights, count, seed)]
    return [Suggestion(row=int(candidates[i]), action="label", doubt=float(doubt[i]), why=why) for i in best]


def _means(points: Floats, weights: Floats, count: int, seed: int) -> Ints:
    """Return the points nearest to the means of clusters, those of the heaviest clusters first."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters = KMeans(count, n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal texts: fewer clusters than asked for
        own = np.asarray(clusters.fit_predict(points, sample_weight=weights))
    far = np.asarray(clusters.transform(points))[np.arange(len(points)), own]
    order = np.lexsort((far, own))
    nearest = order[np.unique(own[order], return_index=True)[1]]
    return nearest[np.argsort(-np.bincount(own, weights=weights)[own[nearest]], kind="stable")]


def to_describe(described: NDArray[np.bool_], labels: Ints, candidates: Ints, count: int) -> list[Suggestion]:
    """Return at most ``count`` of the ``candidates``, ascending positions of undescribed images, to describe next.

    Labelled images come class by class, the class with the fewest described labels first: a text teaches most where its
    label is known. Others come last, in the order they are in. ``described`` and ``labels`` are (N,).
    """
    known = np.bincount(labels[described & (labels != NO_LABEL)], minlength=int(labels.max(initial=0)) + 1)
    waiting: dict[int, list[int]] = defaultdict(list)
    for row in candidates.tolist():
        waiting[int(labels[row])].append(row)
    others = waiting.pop(NO_LABEL, [])
    ranked = sorted(
        (int(known[label]) + place, label, row) for label, rows in waiting.items() for place, row in enumerate(rows)
    )
    reasons = [(row, f"its class has {before} described labels before it") for before, _, row in ranked]
    reasons += [(row, "no description") for row in others]
    return [Suggestion(row=row, action="describe", doubt=None, why=why) for row, why in reasons[:count]]
