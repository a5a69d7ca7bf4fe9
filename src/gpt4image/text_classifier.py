"""Class probabilities of images, read off the embeddings of their descriptions by logistic regression.

Two ideas beyond the plain classifier, both without knobs:

* Embeddings are averaged with those of their nearest neighbours among all described images, labelled or not (one hop
  of simple graph convolution, Wu et al. 2019, arXiv 1902.07153). Few labels then reach further; no label is read for
  it, so out-of-fold predictions stay out-of-fold.
* Logits are scaled by one factor fitted to out-of-fold predictions (temperature scaling, Guo et al. 2017,
  arXiv 1706.04599), because the probabilities serve as soft targets.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

C_PATH = (0.01, 0.1, 1.0, 10.0, 100.0)
DEFAULT_C = 10.0  # where no class has two labels, nothing can be cross-validated
FOLDS = 5
NEIGHBOURS = 20
MAX_REFERENCES = 20_000  # neighbours are sought among at most this many images: bounded time at a million images
MAX_SEARCH_LABELS = 5_000  # C is chosen on at most this many labels
MAX_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """What the classifier says of N images.

    Attributes:
        probabilities: (N, K) float32; zero for classes without a labelled image.
        out_of_fold: (N,) bool, true where the image has a label and its prediction comes from a model that has not
            seen it. An image that is the only one of its class is predicted by the model of all labels instead.
        c: inverse strength of the L2 penalty.
        scale: factor of the logits (1 / temperature).
        folds: number of folds; 0 where no class has two labels, and ``c`` and ``scale`` are the defaults.
    """

    probabilities: NDArray[np.float32]
    out_of_fold: NDArray[np.bool_]
    c: float
    scale: float
    folds: int


def smooth(vectors: Floats, reference: Ints, seed: int) -> NDArray[np.float32]:
    """Centre embeddings and average each with its nearest neighbours; rows of the result have length 1.

    Args:
        vectors: (N, D) embeddings.
        reference: positions of the images that may be neighbours and that define the centre.
        seed: draws the references where there are too many.

    Returns:
        (N, D) float32.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    centred = _unit(vectors - vectors[reference].mean(axis=0))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return centred
    pool = centred[reference]
    smoothed = np.empty_like(centred)
    for start in range(0, len(centred), 1024):
        rows = centred[start : start + 1024]
        similarity = rows @ pool.T
        own = np.searchsorted(reference, np.arange(start, start + len(rows))).clip(max=len(reference) - 1)
        is_reference = reference[own] == np.arange(start, start + len(rows))
        similarity[np.flatnonzero(is_reference), own[is_reference]] = -np.inf
        nearest = np.argpartition(similarity, -neighbours, axis=1)[:, -neighbours:]
        smoothed[start : start + len(rows)] = rows + pool[nearest].mean(axis=1)
    return _unit(smoothed)


def classify(vectors: Floats, labels: Ints, n_classes: int, *, seed: int) -> Classification:
    """Predict class probabilities of every row from the rows that have a label.

    Args:
        vectors: (N, D) embeddings, as ``smooth`` returns them.
        labels: (N,) class indices, negative where there is none; at least two classes must have one.
        n_classes: K.
        seed: seed of the folds; the same seed gives the same result.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    labelled = np.flatnonzero(labels >= 0)
    present, targets = np.unique(labels[labelled], return_inverse=True)
    inputs = vectors[labelled]
    n_folds = min(FOLDS, int(np.bincount(targets).max()))
    if n_folds < 2:
        c, scale, n_folds = DEFAULT_C, 1.0, 0
        held_out = np.zeros(len(labelled), dtype=bool)
        logits = np.zeros((len(labelled), len(present)), dtype=np.float32)
    else:
        folds = _folds(targets, n_folds, seed)
        c = _choose_c(inputs, targets, folds, seed)
        held_out = folds >= 0
        logits = _out_of_fold_logits(inputs, targets, folds, c)
        scale = _fit_scale(logits[held_out], targets[held_out])
    seen = softmax(scale * _logits(_fit(inputs, targets, c), vectors), axis=1)
    seen[labelled[held_out]] = softmax(scale * logits[held_out], axis=1)
    probabilities = np.zeros((len(vectors), n_classes), dtype=np.float32)
    probabilities[:, present] = seen
    out_of_fold = np.zeros(len(vectors), dtype=bool)
    out_of_fold[labelled[held_out]] = True
    return Classification(probabilities=probabilities, out_of_fold=out_of_fold, c=c, scale=scale, folds=n_folds)


def _unit(vectors: Floats) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _folds(targets: Ints, n_folds: int, seed: int) -> Ints:
    """Stratified folds; -1, in no fold, where an image is the only one of its class (no model could know the class)."""
    rng = np.random.default_rng(seed)
    folds = np.full(len(targets), -1)
    for target in range(targets.max() + 1):
        members = rng.permutation(np.flatnonzero(targets == target))
        if len(members) > 1:
            folds[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    return folds


def _choose_c(inputs: Floats, targets: Ints, folds: Ints, seed: int) -> float:
    """Return the C of the least cross-validated log loss after scaling, going up the path while it falls."""
    if len(targets) > MAX_SEARCH_LABELS:
        chosen = _stratified_sample(targets, MAX_SEARCH_LABELS, seed)
        inputs, targets = inputs[chosen], np.unique(targets[chosen], return_inverse=True)[1]
        folds = _folds(targets, int(folds.max()) + 1, seed)
    held_out = folds >= 0
    models: dict[int, LogisticRegression] = {}
    best_loss, best_c = np.inf, C_PATH[0]
    for c in C_PATH:
        logits = _out_of_fold_logits(inputs, targets, folds, c, models)[held_out]
        loss = _log_loss(_fit_scale(logits, targets[held_out]) * logits, targets[held_out])
        if loss >= best_loss:
            break
        best_loss, best_c = loss, c
    return best_c


def _stratified_sample(targets: Ints, size: int, seed: int) -> Ints:
    """Return about ``size`` positions, at least two of each class that has two."""
    rng = np.random.default_rng(seed)
    kept = []
    for target in range(targets.max() + 1):
        members = rng.permutation(np.flatnonzero(targets == target))
        kept.append(members[: max(2, round(len(members) * size / len(targets)))])
    return np.sort(np.concatenate(kept))


def _out_of_fold_logits(
    inputs: Floats, targets: Ints, folds: Ints, c: float, models: dict[int, LogisticRegression] | None = None
) -> NDArray[np.float32]:
    """Return (n, K) logits, each row from the model of the other folds; ``models`` carries warm starts."""
    logits = np.zeros((len(targets), int(targets.max()) + 1), dtype=np.float32)
    models = {} if models is None else models
    for fold in range(folds.max() + 1):
        test = folds == fold
        models[fold] = _fit(inputs[~test], targets[~test], c, models.get(fold))
        logits[test] = _logits(models[fold], inputs[test])
    return logits


def _fit(inputs: Floats, targets: Ints, c: float, model: LogisticRegression | None = None) -> LogisticRegression:
    # scikit-learn stops at an absolute gradient of the mean loss, which shrinks with the number of classes.
    tolerance = 1e-3 / (int(targets.max()) + 1)
    model = model or LogisticRegression(max_iter=MAX_ITERATIONS, tol=tolerance, warm_start=True)
    model.set_params(C=c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early only regularises a little more
        return model.fit(inputs, targets)


def _logits(model: LogisticRegression, inputs: Floats) -> Floats:
    scores = model.decision_function(inputs)
    return np.column_stack([np.zeros_like(scores), scores]) if scores.ndim == 1 else scores


def _log_loss(logits: Floats, targets: Ints) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean())


def _fit_scale(logits: Floats, targets: Ints) -> float:
    """Return the factor of the logits with the least log loss.

    One pseudo-observation is spread over all classes, as in Platt (1999): where every prediction is right, the factor
    grows with the number of labels instead of without bound.
    """
    weight = 1.0 / (len(targets) + 1)

    def loss(log_scale: float) -> float:
        log_probabilities = log_softmax(np.exp(log_scale) * logits, axis=1)
        own = log_probabilities[np.arange(len(targets)), targets].mean()
        return float(-(1.0 - weight) * own - weight * log_probabilities.mean())

    result: Any = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
    return float(np.exp(result.x))
