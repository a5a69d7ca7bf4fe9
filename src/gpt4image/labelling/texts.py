"""Class probabilities of images, predicted from the embeddings of their descriptions by logistic regression.

Ideas beyond the plain classifier, all without options:

* Embeddings are averaged with those of their nearest neighbours among all described images, labelled or not (one hop
  of simple graph convolution, Wu et al. 2019, arXiv 1902.07153). Few labels then reach further; no label is read for
  it, so out-of-fold predictions stay out-of-fold.
* The penalty pulls the weights of a class to the embedding of its name as well as to zero (as Silva-Rodriguez et al.
  2024, arXiv 2312.12730, pull a linear probe to zero-shot prototypes).
* How strong the penalty is, and whether names help, is not chosen but averaged over, by weights exp(-n loss) of the
  cross-validated log loss of n labels (pseudo-BMA, Yao et al. 2018, arXiv 1704.02030). Few labels cannot choose; many
  give one model all the weight. An image is predicted by weights and scale that its own fold had no part in.
* Logits are scaled by one factor fitted to out-of-fold predictions (temperature scaling, Guo et al. 2017,
  arXiv 1706.04599), because the probabilities serve as soft targets. Intercepts are not scaled: they know how many
  labels each class has, and under a strong penalty, where the factor is large, that would drown the texts.
* Class weights have add-5 smoothing: how few labels are spread over classes says little of how common these are.

Inputs are embeddings minus their mean. Legend: N images, n labelled rows of D numbers, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from gpt4image.artifacts.probabilities import AT_ONCE, BLOCK_CELLS, Probabilities, allocate, blocks, from_blocks
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import TableError
from gpt4image.base.interrupts import stop_here

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

C_PATH = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
DEFAULT_C = 3.0  # where no class has two labels, nothing can be cross-validated
NAME_STRENGTH = 3.0  # length of the weights that the name of a class stands for
FOLDS = 5
FEW = 5.0  # labels that each class counts as if it had them besides its own
MAX_SEARCH_LABELS = 5_000  # models are weighed on at most this many labels
MAX_SEARCH_CLASSES = 200  # with all their labels: on these it is searched how strong a penalty is good
MAX_CELLS = 20_000_000  # labels times classes that are learned from: bounded time and memory at any number of labels
MIN_WEIGHT = 0.01  # models of less weight are left out
MAX_ITERATIONS = 200
_ROWS = 8_192  # rows whose logits are in memory at once
# Multiplications of a product from which several threads are worth it. Below, those of numpy and of scipy, which take
# turns in a fit, keep each other waiting: on 2 idle cores a fit of 1,000 texts and 18 classes took five times as long.
_SEVERAL_THREADS = 1e9


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """Predictions of the classifier for N images.

    ``probabilities`` (N, K) are zero for classes without a label. ``out_of_fold`` (N,) is true where the image has a
    label that its model has not seen: not the only one of its class, nor a label beyond MAX_CELLS. ``c`` is the inverse
    strength of the L2 penalty of the model with the most weight, None where texts learned no label; ``names`` the
    weight of models that were pulled to class names; ``folds`` 0 where nothing was cross-validated.
    """

    probabilities: Probabilities
    out_of_fold: NDArray[np.bool_]
    c: float | None
    names: float
    folds: int


class _Logits(NamedTuple):
    """Logits of n rows: (n, K) by the texts, which are scaled, and (K,) or (n, K) intercepts, which are not."""

    by_text: Floats
    intercepts: Floats

    def scaled(self, factor: float) -> Floats:
        return factor * self.by_text + self.intercepts


class _Fit(NamedTuple):
    """What was fitted: (D, K) weights and (K,) intercepts, of inputs less their (D,) mean."""

    weights: Floats
    intercepts: Floats
    mean: Floats

    def logits(self, inputs: Floats) -> _Logits:
        return _Logits(inputs @ self.weights - self.mean @ self.weights, self.intercepts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Model:
    """One way to fit: penalty, (D, K) weights that it pulls to, (K, K) noise if any; scale of its logits; weight, and
    its weight in predictions of each fold, by the labels of the others."""

    c: float
    pull: Floats
    transition: Floats | None
    scale: float = 1.0
    weight: float = 1.0
    in_fold: tuple[float, ...] = ()


def classify(
    vectors: Vectors,
    labels: Ints,
    n_classes: int,
    *,
    seed: int,
    names: Floats | None = None,
    transition: Floats | None = None,
    weigh: bool = True,
    groups: Ints | None = None,
) -> Classification:
    """Predict class probabilities of N rows (N, D), as ``smooth`` returns them, from the rows that have a label (N,).

    At least two classes must have one; negative is none. ``names`` (K, D) are of length 1, minus their mean. With a
    ``transition`` (K, K), probabilities of each given label by true class, predictions are those of the true class
    (forward correction, Patrini et al. 2017, arXiv 1609.03683). Without ``weigh``, nothing is cross-validated. Rows of
    a group (N,) are in one fold. The same seed gives the same result.
    """
    labelled = np.flatnonzero(labels >= 0)
    present, targets = np.unique(labels[labelled], return_inverse=True)
    if len(labelled) * len(present) > MAX_CELLS:
        read = _stratified_sample(targets, MAX_CELLS // len(present), seed)  # every class is still there
        labelled, targets = labelled[read], targets[read]
    inputs: Floats = np.asarray(vectors[labelled], np.float32)
    noise = None if transition is None else _among(transition, present)
    models = [_Model(c=DEFAULT_C, pull=np.zeros((vectors.shape[1], len(present)), np.float32), transition=noise)]
    if names is not None:
        models.append(replace(models[0], pull=np.asarray(NAME_STRENGTH * names[present].T, np.float32)))
    folds = _folds(targets, None if groups is None else groups[labelled], weigh, seed)
    n_folds, held_out = int(folds.max()) + 1, np.flatnonzero(folds >= 0)
    few = min(len(vectors), _ROWS) * vectors.shape[1] * n_classes < _SEVERAL_THREADS
    with threadpool_limits(1 if few else None, user_api="blas"):
        even = [replace(model, weight=1 / len(models)) for model in models]
        models = _weigh(inputs, targets, folds, seed, models) if n_folds else even
        by_fold = [_fits(inputs[folds != fold], targets[folds != fold], models) for fold in range(n_folds)]
        some = held_out[:: 1 + len(held_out) * len(present) // (AT_ONCE + 1)]
        known = _held_out(inputs[some], folds[some], models, by_fold)
        scale, scales = _scales(known, folds[some], targets[some], noise, n_folds)
        everywhere = _fits(inputs, targets, models)

        def predicted(logits: _Logits, scale: Any) -> Floats:
            found = np.zeros((len(logits.by_text), n_classes), np.float32)
            found[:, present] = softmax(logits.scaled(scale), axis=1)
            return found

        def by_all(rows: slice) -> Floats:
            own = np.asarray(vectors[rows], np.float32)
            return predicted(_mixed(models, [fit.logits(own) for fit in everywhere]), scale)

        probabilities = from_blocks(len(vectors), n_classes, by_all)
        for rows in blocks(len(held_out), n_classes):
            some = held_out[rows]
            held = _held_out(inputs[some], folds[some], models, by_fold)
            probabilities[labelled[some]] = predicted(held, scales[folds[some]])
    out_of_fold = labels >= 0
    out_of_fold[labelled[folds < 0]] = False
    best, of_names = max(models, key=lambda model: model.weight), (model.weight for model in models if model.pull.any())
    return Classification(
        probabilities=probabilities, out_of_fold=out_of_fold, c=best.c, names=sum(of_names), folds=n_folds
    )


def _fits(inputs: Floats, targets: Ints, models: Sequence[_Model]) -> list[_Fit]:
    return [_fit(inputs, targets, model) for model in models]


def _scales(
    logits: _Logits, folds: Ints, targets: Ints, transition: Floats | None, n_folds: int
) -> tuple[float, Floats]:
    """Return the factor of logits, and (n_folds, 1) those by the labels of other folds."""
    scales = np.ones((n_folds, 1), np.float32)
    for fold in range(n_folds):
        if (rest := folds != fold).any():
            scales[fold] = _fit_scale(_Logits(*(part[rest] for part in logits)), targets[rest], transition)
    return _fit_scale(logits, targets, transition) if n_folds else 1.0, scales


def _folds(targets: Ints, groups: Ints | None, weigh: bool, seed: int) -> Ints:
    """Return (n,) folds, all -1 where nothing can be cross-validated; whole ``groups`` are in one."""
    n_folds = min(FOLDS, int(np.bincount(targets).max())) if weigh else 0
    if n_folds < 2:
        return np.full(len(targets), -1)
    if groups is None:
        return make_folds(targets, n_folds, seed)
    names, of_row = np.unique(groups, return_inverse=True)
    folds = (np.random.default_rng(seed).permutation(len(names)) % min(n_folds, len(names)))[of_row]
    for target in range(targets.max() + 1):
        if len(np.unique(of_row[targets == target])) < 2:  # a class in one group only
            folds[targets == target] = -1
    return folds


def make_folds(targets: Ints, n_folds: int, seed: int) -> Ints:
    """Stratified folds; -1, in no fold, where an image is the only one of its class (no model could know the class)."""
    rng = np.random.default_rng(seed)
    folds = np.full(len(targets), -1)
    for target in range(targets.max() + 1):
        members = rng.permutation(np.flatnonzero(targets == target))
        if len(members) > 1:
            folds[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    return folds


def _weigh(inputs: Floats, targets: Ints, folds: Ints, seed: int, kinds: Sequence[_Model]) -> list[_Model]:
    """Return the models that deserve weight: each kind, with C up and down the path until it is surely worse."""
    n_folds, searched, asked_folds = int(folds.max()) + 1, list(kinds), folds
    if kinds[0].pull.shape[1] > MAX_SEARCH_CLASSES:
        inputs, targets, searched = _few_classes(inputs, targets, kinds, seed)
        folds = make_folds(targets, n_folds, seed)
    if len(targets) > MAX_SEARCH_LABELS:
        chosen = _stratified_sample(targets, MAX_SEARCH_LABELS, seed)
        inputs, targets = inputs[chosen], targets[chosen]  # every class is still there
        folds = make_folds(targets, n_folds, seed)
    held_out = folds >= 0
    surely = -np.log(MIN_WEIGHT) / held_out.sum()
    losses: list[NDArray[np.float64]] = []  # of each fold, in nats
    models: list[_Model] = []
    for kind, asked in zip(searched, kinds, strict=True):
        own: dict[int, float] = {}
        for step in (1, -1):
            fits: list[_Fit] = []
            place = C_PATH.index(DEFAULT_C) + min(step, 0)
            while 0 <= place < len(C_PATH) and (not own or own[place - step] <= min(own.values()) + surely):
                model = replace(kind, c=C_PATH[place])
                fits = [
                    _fit(inputs[folds != fold], targets[folds != fold], model, fits[fold] if fits else None)
                    for fold in range(folds.max() + 1)
                ]
                alone = replace(model, in_fold=(1.0,) * n_folds)
                logits = _held_out(inputs[held_out], folds[held_out], [alone], [[fit] for fit in fits])
                scale = _fit_scale(logits, targets[held_out], model.transition)
                loss = _log_losses(logits.scaled(scale), targets[held_out], model.transition)
                own[place] = float(loss.mean())
                losses.append(np.asarray(np.bincount(folds[held_out], loss, n_folds), np.float64))
                models.append(replace(asked, c=model.c, scale=scale))
                place += step
    table = np.array(losses)
    own_folds = table if folds is asked_folds else np.zeros_like(table)  # of a sample, no fold is that of an image
    nats = np.column_stack([table.sum(axis=1), table.sum(axis=1, keepdims=True) - own_folds])
    weights = softmax(-nats, axis=0)
    weights = np.where((weights < MIN_WEIGHT).all(axis=1, keepdims=True), 0.0, weights)
    weights /= weights.sum(axis=0)
    return [
        replace(model, weight=float(each[0]), in_fold=tuple(each[1:].tolist()))
        for model, each in zip(models, weights, strict=True)
        if each.any()
    ]


def _mixed(models: Sequence[_Model], logits: Sequence[_Logits], fold: int | None = None) -> _Logits:
    """Return the weighted sum of the scaled logits of models, for all images or for those of a fold."""
    weights = [model.weight if fold is None else model.in_fold[fold] for model in models]
    parts = list(zip(weights, models, logits, strict=True))
    return _Logits(
        np.add.reduce([weight * model.scale * own.by_text for weight, model, own in parts]),
        np.add.reduce([weight * own.intercepts for weight, _, own in parts]),
    )


def _stratified_sample(targets: Ints, size: int, seed: int) -> Ints:
    """Return about ``size`` positions, at least two of each class that has two."""
    rng, kept = np.random.default_rng(seed), list[Ints]()
    for target in range(targets.max() + 1):
        members = rng.permutation(np.flatnonzero(targets == target))
        kept.append(members[: max(2, round(len(members) * size / len(targets)))])
    return np.sort(np.concatenate(kept))


def _few_classes(
    inputs: Floats, targets: Ints, kinds: Sequence[_Model], seed: int
) -> tuple[Floats, Ints, list[_Model]]:
    """Return the labels of a sample of the classes, with two labels if possible, and what to fit for these."""
    counts = np.bincount(targets)
    order = np.random.default_rng(seed).permutation(len(counts))
    some = np.sort(order[np.argsort(counts[order] < 2, kind="stable")][:MAX_SEARCH_CLASSES])
    rows = np.flatnonzero(np.isin(targets, some))
    noise = None if kinds[0].transition is None else _among(kinds[0].transition, some)
    fewer = [replace(kind, pull=kind.pull[:, some], transition=noise) for kind in kinds]
    return inputs[rows], np.searchsorted(some, targets[rows]), fewer


def _among(transition: Floats, classes: Ints) -> Floats:
    """Return the transition matrix among some of the classes."""
    some = transition[np.ix_(classes, classes)]
    return some / some.sum(axis=1, keepdims=True)


def _held_out(inputs: Floats, folds: Ints, models: Sequence[_Model], by_fold: Sequence[Sequence[_Fit]]) -> _Logits:
    """Return the mixed logits of n inputs, each by the fits of ``models`` to the other folds."""
    found = _Logits(*np.zeros((2, len(inputs), models[0].pull.shape[1]), dtype=np.float32))
    for fold in np.unique(folds):
        test = folds == fold
        mixed = _mixed(models, [fit.logits(inputs[test]) for fit in by_fold[fold]], fold)
        found.by_text[test], found.intercepts[test] = mixed
    return found


def _fit(inputs: Floats, targets: Ints, model: _Model, start: _Fit | None = None) -> _Fit:
    """Return a multinomial logistic regression: mean log loss of the labels plus |W - pull|^2 / (2 n C), intercepts
    free."""
    count, width = inputs.shape
    sizes = np.bincount(targets, minlength=model.pull.shape[1])
    shares = ((sizes + FEW) / np.maximum(sizes, 1))[targets]
    shares = (shares / shares.sum()).astype(np.float32)[:, None]
    mean = shares[:, 0] @ inputs
    pull = np.vstack([model.pull, np.zeros_like(model.pull[:1])])
    penalty = np.full((width + 1, 1), 1.0 / (count * model.c), np.float32)
    penalty[-1] = 0.0
    at_once = max(1, min(_ROWS, BLOCK_CELLS // pull.shape[1]))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        stop_here()
        weights = flat.reshape(pull.shape).astype(np.float32)
        drawn = penalty * (weights - pull)
        value, gradient = 0.5 * float(np.vdot(weights - pull, drawn)), drawn
        for first in range(0, count, at_once):
            rows, own = inputs[first : first + at_once] - mean, targets[first : first + at_once]
            share = shares[first : first + at_once]
            errors = softmax(rows @ weights[:-1] + weights[-1], axis=1)
            if model.transition is None:
                at = np.arange(len(own))
                given = errors[at, own]
                likelihood = np.maximum(given, 1e-30)[:, None]
                errors[at, own] -= given / likelihood[:, 0]
            else:
                given = errors * model.transition.T[own]
                likelihood = np.maximum(given.sum(axis=1, keepdims=True), 1e-30)
                errors -= given / likelihood
            value -= float((share * np.log(likelihood)).sum(dtype=np.float64))
            errors *= share
            gradient[:-1] += rows.T @ errors
            gradient[-1] += errors.sum(axis=0)
        return value, gradient.ravel().astype(np.float64)

    # The gradient of the mean loss shrinks with the number of classes.
    options = {"maxiter": MAX_ITERATIONS, "gtol": 1e-3 / pull.shape[1]}
    first_guess = pull if start is None else np.vstack([start.weights, start.intercepts])
    result = minimize(loss, first_guess.ravel(), jac=True, method="L-BFGS-B", options=options)
    found = result.x.reshape(pull.shape).astype(np.float32)
    return _Fit(found[:-1], found[-1], mean)


def _log_losses(logits: Floats, targets: Ints, transition: Floats | None) -> NDArray[np.float64]:
    """Return the (n,) log losses of given labels."""
    likely = softmax(logits, axis=1)
    if transition is None:
        given = likely[np.arange(len(targets)), targets]
    else:
        given = (likely * transition.T[targets]).sum(axis=1)
    return -np.log(np.maximum(given, 1e-30))


def _fit_scale(logits: _Logits, targets: Ints, transition: Floats | None) -> float:
    """Return the factor of the logits with the least log loss of given labels, with one pseudo-observation that is
    spread over all classes, as in Platt (1999), so that it grows without bound nowhere."""
    weight = 1.0 / (len(targets) + 1)

    def loss(log_scale: float) -> float:
        scaled = logits.scaled(np.exp(log_scale))  # a scalar of NumPy makes them float64
        return (1.0 - weight) * float(_log_losses(scaled, targets, transition).mean()) - weight * float(
            log_softmax(scaled, 1).mean()
        )

    result: Any = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
    return float(np.exp(result.x))


Floats32 = NDArray[np.float32]
Bools = NDArray[np.bool_]

NEIGHBOURS = 20
MAX_REFERENCES = 20_000  # neighbours are sought among at most this many images: bounded time at a million images
_BLOCK = 20_000_000  # similarities that are in memory at once


class Vectors(Protocol):
    """(N, D) float32 that are indexed by images: an array, or what computes or reads some rows of it."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def open_table(path: Path) -> EmbeddingTable:
    """Open an embedding table whose texts are not class-conditioned. Raises TableError for one whose texts are."""
    table = EmbeddingTable.open(path)
    if table.manifest.class_conditioned:
        raise TableError(
            f"{path}: these descriptions are class-conditioned: the describer was told the class, so they repeat the "
            "given label, and nothing can be learned about labels that are missing or wrong. Describe the images with "
            "a prompt that does not name the class (--prompt paper), or encode only those (`gpt4image encode "
            "--prompt`)."
        )
    return table


class Texts(NamedTuple):
    """Embeddings (N, D) of the descriptions of N images, which of them have one, and (K, D) embedded class names, None
    where the encoder cannot be had."""

    vectors: Vectors
    described: Bools
    names: Floats32 | None = None

    @classmethod
    def none(cls, total: int) -> Texts:
        """Return those of images without descriptions."""
        return cls(np.zeros((total, 1), np.float32), np.zeros(total, bool))

    def take(self, rows: Ints) -> Texts:
        """Return the texts of some images."""
        if np.array_equal(rows, np.arange(len(self.described))):
            return self
        own: Any = self.vectors
        return Texts(own[rows] if isinstance(own, np.ndarray) else own.take(rows), self.described[rows], self.names)

    def centred(self, reference: Ints) -> Vectors:
        """Return (N, D) embeddings of length 1, minus the mean of the images at ``reference``; zeros without a text."""
        among = reference[self.described[reference]]
        total = np.zeros((0, self.vectors.shape[1]), np.float32)
        for rows in blocks(len(among), total.shape[1]):  # in the order of rows, as NumPy adds them
            total = np.concatenate([total, self.vectors[among[rows]]]).sum(axis=0, keepdims=True)
        return _Centred(self, np.float32(0) if not len(among) else (total[0] / len(among)).astype(np.float32))

    def centred_names(self) -> Floats32 | None:
        """Return (K, D) class names of length 1, minus their own mean; None where there are none."""
        return None if self.names is None else unit(self.names - self.names.mean(axis=0))


class _Centred:
    """Embeddings of ``texts`` minus their mean, of length 1, computed where they are indexed."""

    def __init__(self, texts: Texts, mean: Any) -> None:
        self._texts, self._mean, self.shape = texts, mean, texts.vectors.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Floats32:
        own = unit(self._texts.vectors[rows] - self._mean)
        return np.where(self._texts.described[rows][:, None], own, np.float32(0))


def smooth(vectors: Vectors, reference: Ints, seed: int) -> Vectors:
    """Average embeddings (N, D) of length 1 with those of their nearest neighbours; rows of the result have length 1.

    Neighbours are among the images at ``reference``, ascending; of too many, among a sample of them.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return vectors
    among, smoothed = vectors[reference], allocate(len(vectors), vectors.shape[1])
    size = max(1, _BLOCK // len(reference))
    for start in range(0, len(vectors), size):
        block = slice(start, min(start + size, len(vectors)))
        own = vectors[block]
        cosines = own @ among.T
        first, last = np.searchsorted(reference, (block.start, block.stop))
        cosines[reference[first:last] - block.start, np.arange(first, last)] = -np.inf  # none is its own neighbour
        nearest = np.argpartition(cosines, -neighbours, axis=1)[:, -neighbours:]
        smoothed[block] = unit(own + among[nearest].mean(axis=1))
    return smoothed


def unit(vectors: NDArray[np.floating]) -> Floats32:
    """Return rows brought to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
