"""Class probabilities of images by labels that spread over the graph of their nearest texts.

Zhou et al. 2004, "Learning with Local and Global Consistency": F <- a S F + (1 - a) Y, with S the symmetrically
normalised graph of nearest neighbours and Y the given labels. Probabilities are calibrated out of fold, as those of
text_classifier.py are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpt4image.labelling.neighbours import nearest
from gpt4image.labelling.text_classifier import FOLDS, Classification, fit_scale, make_folds, with_held_out

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

NEIGHBOURS = 20
KEPT = 0.9  # a: how much of a label reaches the next image
STEPS = 50
MAX_NODES = 100_000
FLOOR = 1e-6  # least share of a class, where no label of it arrives


def propagate(
    vectors: NDArray[np.float32], labels: Ints, n_classes: int, *, seed: int, reference: Ints
) -> Classification:
    """Predict class probabilities of every row from the rows that have a label.

    Args:
        vectors: (N, D) embeddings of length 1.
        labels: (N,) class indices, negative where there is none; at least two classes must have one.
        n_classes: K.
        seed: seed of the folds, and of the nodes where there are too many.
        reference: ascending positions of the images that labels spread over, the labelled ones among them. The others
            are read off their neighbours and shape no image.
    """
    if len(reference) > MAX_NODES:
        known = reference[labels[reference] >= 0]
        others = np.random.default_rng(seed).permutation(reference[labels[reference] < 0])
        reference = np.sort(np.concatenate([known, others])[: max(MAX_NODES, len(known))])
    place = np.full(len(vectors), -1)
    place[reference] = np.arange(len(reference))
    weights = _similarities(vectors, reference)
    graph = _symmetric(weights[reference])
    labelled = np.flatnonzero(labels >= 0)
    present, targets = np.unique(labels[labelled], return_inverse=True)
    nodes = place[labelled]
    n_folds = min(FOLDS, int(np.bincount(targets).max()))
    scale, folds = 1.0, np.full(len(labelled), -1)
    logits = np.zeros((len(labelled), len(present)))
    held_out = folds >= 0
    if n_folds >= 2:
        folds = make_folds(targets, n_folds, seed)
        held_out = folds >= 0
        for fold in range(n_folds):
            test = folds == fold
            logits[test] = _logits(_spread(graph, nodes[~test], targets[~test], len(present))[nodes[test]])
        scale = fit_scale(logits[held_out], targets[held_out], np.eye(len(present)))
    spread = _spread(graph, nodes, targets, len(present))
    everywhere = np.asarray(weights @ spread)
    everywhere[reference] = spread
    probabilities, out_of_fold = with_held_out(
        scale * _logits(everywhere), scale * logits[held_out], labelled[held_out], present, n_classes
    )
    return Classification(
        probabilities=probabilities, out_of_fold=out_of_fold, c=None, names=0.0, folds=n_folds if n_folds >= 2 else 0
    )


def _similarities(vectors: NDArray[np.float32], reference: Ints) -> Any:
    """Return the sparse (N, n) positive cosines of each image to its nearest reference images."""
    count = min(NEIGHBOURS, len(reference) - 1)
    columns, values = [], []
    for _, chosen, cosines in nearest(vectors, reference, count):
        columns.append(chosen.astype(np.int32).ravel())
        values.append(np.maximum(cosines, 0.0).ravel())
    starts = np.arange(0, count * len(vectors) + 1, count)
    shape = (len(vectors), len(reference))
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=shape)


def _symmetric(weights: Any) -> Any:
    """Return D^-1/2 W D^-1/2, W joining two images where either is a neighbour of the other."""
    weights = weights.maximum(weights.T)
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    root = sparse.diags_array((1.0 / np.sqrt(np.maximum(degrees, 1e-12))).astype(np.float32))
    return (root @ weights @ root).tocsr()


def _spread(graph: Any, nodes: Ints, targets: Ints, n_classes: int) -> NDArray[np.float32]:
    """Return (n, K) what arrives at each node, every class starting with the same mass."""
    start = np.zeros((graph.shape[0], n_classes), np.float32)
    start[nodes, targets] = (1.0 - KEPT) / np.maximum(np.bincount(targets, minlength=n_classes), 1)[targets]
    reached = start.copy()
    for _ in range(STEPS):
        reached = KEPT * (graph @ reached) + start
    return reached


def _logits(reached: Floats) -> Floats:
    shares = reached / np.maximum(reached.sum(axis=1, keepdims=True), 1e-30)
    return np.log(np.maximum(shares, FLOOR))
