"""What several experts say of the classes of images, combined: a product of experts with weights learned from labels.

An expert is a source of class probabilities that has not seen the label of the image: the describer's answers, the text
classifier, class names. Their log-probabilities are added, each with a weight >= 0 (Hinton 2002, training products of
experts). Two things are learned from the labelled images, both with a prior, so that no label is needed:

* the weights, by the log loss of the labels. The prior holds that of the answers near ``Expert.prior`` with
  PRIOR_STRENGTH. Those of the texts are held: a prior with a peak and long tails (Cauchy times normal) makes the first
  steps away cost much and further ones little, so that labels that happen to agree move nothing, and labels that say it
  clearly move much. These numbers were chosen on photographs of CIFAR-10 and pictograms of OpenMoji together
  (benchmarks/teacher.py);
* systematic confusions of the answerer, and of the texts that it taught: P(answer | true class) is counted on labelled
  images, on top of PSEUDO_ANSWERS per class that are as the stated confidences have it. An answer then counts by how
  much more or less often than stated it is given to labelled images of a class, so that labels may be chosen where
  answers are unsure.
  How common classes are follows from both: a class that is never answered, though images have it, is taken for more
  common than the answers state (Saerens et al. 2002).

A labelled image is predicted with weights and confusions from the other folds. Where labels may be wrong, both are
learned under the noise model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import softmax

from gpt4image.artifacts.class_shares import ClassShares, Probabilities, blocks, chosen, zeros
from gpt4image.labelling.text_classifier import FOLDS

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PRIOR_STRENGTH = 30.0  # a weight costs half of this, in nats, where it is 1 away from its prior
HELD_STRENGTH = 10.0  # the same of a held weight, which costs more near its prior:
HELD, HELD_WIDTH = 1.5, 0.1  # HELD * log(1 + (distance / HELD_WIDTH)^2), in nats
PSEUDO_ANSWERS = 10.0  # answers per class that count as if they were as stated
MAX_WEIGHT = 4.0
MAX_LABELS, LEAST_LABELS = 5_000, 500  # labelled images that weights are fitted to; the fewer the more classes
MAX_CELLS = 5_000_000  # these images times classes
FLOOR = 1e-9
_STEPS = 20
MAX_CONFUSED = 3_000  # classes up to which confusions are learned: they are numbers of each class and each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Expert:
    """One source of class probabilities of N images.

    Attributes:
        name: of the evidence.
        probabilities: (N, K), none of which has seen the label of its image.
        known: (N,) which images it says something of.
        prior: weight that it has without labels, where all experts know the image.
        held: whether its weight leaves the prior only where labels say so clearly.
        first: (N,) class that was answered, for an expert whose confusions are to be learned.
    """

    name: str
    probabilities: Probabilities
    known: Bools
    prior: float
    held: bool = False
    first: Ints | None = None

    def of(self, rows: Ints) -> Expert:
        """Return what it says of some images."""
        first = None if self.first is None else self.first[rows]
        return replace(self, probabilities=chosen(self.probabilities, rows), known=self.known[rows], first=first)


class Evidence(NamedTuple):
    """What the labels say: ``rows`` (n,) of labelled images, ``given`` (n,) labels, ``true`` (n, K) probabilities of
    their true classes, and the (K, K) transition from true to given, None where labels are taken at their word."""

    rows: Ints
    given: Ints
    true: Floats
    transition: Floats | None

    def among(self, chosen: Any) -> Evidence:
        """Return that of some of the labelled images."""
        return Evidence(self.rows[chosen], self.given[chosen], self.true[chosen], self.transition)


def fuse(experts: Sequence[Expert], labels: Evidence, seed: int) -> tuple[Probabilities, dict[str, float]]:
    """Return (N, K) probabilities and the weights of experts; a row of zeros where no expert knows the image.

    Images that different experts know are combined with different weights; returned are those of the most images.

    Args:
        experts: their number is at least one.
        labels: of images that some expert knows.
        seed: of the folds.
    """
    total, n_classes = experts[0].probabilities.shape
    found = zeros(total, n_classes)
    weights = {expert.name: 0.0 for expert in experts}
    folds = np.random.default_rng(seed).permutation(len(labels.rows)) % FOLDS  # no label decides of its own fold
    known = np.stack([expert.known for expert in experts], axis=1)
    patterns, pattern_of, sizes = np.unique(known, axis=0, return_inverse=True, return_counts=True)
    pattern_of = pattern_of.reshape(-1)
    for number in np.argsort(sizes, kind="stable"):
        chosen = [expert for expert, there in zip(experts, patterns[number], strict=True) if there]
        if not chosen:
            continue
        usable = known[labels.rows][:, patterns[number]].all(axis=1)
        own, own_folds = labels.among(usable), folds[usable]
        model = _Product.fit(chosen, own, seed)
        rows, mine = np.flatnonzero(pattern_of == number), pattern_of[own.rows] == number
        held_out = np.zeros(total, bool)
        held_out[own.rows[mine]] = True
        model.predict(chosen, rows[~held_out[rows]], found)
        for fold in np.unique(own_folds[mine]):
            of_others = _Product.fit(chosen, own.among(own_folds != fold), seed)
            of_others.predict(chosen, own.rows[mine & (own_folds == fold)], found)
        weights = dict.fromkeys(weights, 0.0) | dict(zip((each.name for each in chosen), model.weights, strict=True))
    return found, {name: float(weight) for name, weight in weights.items()}


def priors(experts: Sequence[Expert]) -> NDArray[np.float64]:
    """Return the weights of experts without labels.

    Experts that read the same texts count for less than one, since they repeat each other's mistakes and those of the
    answers. Where there is no answer, they count for one in all.
    """
    weights = np.array([expert.prior for expert in experts])
    return weights / max(weights.sum(), FLOOR) if weights.sum() < 1.0 else weights


class _Product(NamedTuple):
    """A fitted product: (E,) weights, and of each expert (K, K) log ratios of how often classes are answered."""

    weights: NDArray[np.float64]
    ratios: list[Floats | None]

    @classmethod
    def fit(cls, experts: Sequence[Expert], labels: Evidence, seed: int) -> _Product:
        """Learn from labels; nothing but priors without them."""
        prior = priors(experts)
        ratios: list[Floats | None] = [None] * len(experts)
        if not len(labels.rows):
            return cls(prior, ratios)
        chosen = np.arange(len(labels.rows))
        most = min(MAX_LABELS, max(LEAST_LABELS, MAX_CELLS // labels.true.shape[1]))
        if len(chosen) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
        some = labels.among(chosen)
        logs = np.stack([_log(expert.probabilities[some.rows]) for expert in experts])
        for number, expert in enumerate(experts):
            if expert.first is not None and expert.probabilities.shape[1] <= MAX_CONFUSED:
                confusions = _Confusions.of(expert, expert.first, labels)
                ratios[number] = confusions.ratios()
                logs[number] += confusions.without(expert.first[some.rows], some.true, expert.probabilities[some.rows])
        held = np.array([expert.held for expert in experts])
        return cls(_fit_weights(logs, some, prior, held), ratios)

    def predict(self, experts: Sequence[Expert], rows: Ints, into: Probabilities) -> None:
        """Write the probabilities of some images."""
        for part in blocks(len(rows), into.shape[1]):
            block = rows[part]
            total = np.zeros((len(block), into.shape[1]), np.float32)
            for weight, ratios, expert in zip(self.weights, self.ratios, experts, strict=True):
                logs = _log(expert.probabilities[block])
                if expert.first is not None and ratios is not None:
                    logs += ratios.T[expert.first[block]]
                total += np.float32(weight) * logs
            into[block] = softmax(total, axis=1)


class _Confusions(NamedTuple):
    """How often class j is answered to images of class k, (K, K) each.

    Attributes:
        stated: shares among all images of class k, as the stated confidences have it.
        expected: numbers among labelled images, as stated: labels may have been chosen where answers are unsure.
        counted: numbers among labelled images, by their labels.
        answered: (K,) shares of the answers.
        common: (K,) shares of the classes as stated.
        shift: (K,) how much more common they are among labelled images; as many labels of each class, say.
    """

    stated: NDArray[np.float64]
    expected: NDArray[np.float64]
    counted: NDArray[np.float64]
    answered: NDArray[np.float64]
    common: NDArray[np.float64]
    shift: NDArray[np.float64]

    @classmethod
    def of(cls, expert: Expert, first: Ints, labels: Evidence) -> _Confusions:
        """Count them. Answers as stated are each of the classes that their confidence says."""
        n_classes = expert.probabilities.shape[1]
        rows = np.flatnonzero(expert.known)
        stated = _stated(first, expert.probabilities, rows) + 1e-3 / n_classes
        counted = _by_class(first[labels.rows], labels.true, n_classes)
        common, answered = stated.sum(axis=1), stated.sum(axis=0)
        common, answered = common / common.sum(), answered / answered.sum()
        shift = _smoothed(common, counted) / common
        expected = np.zeros_like(counted)
        for part in blocks(len(labels.rows), n_classes):
            rows = labels.rows[part]
            expected += _by_class(first[rows], _shifted(expert.probabilities[rows], shift), n_classes)
        return cls(stated / stated.sum(axis=1, keepdims=True), expected, counted, answered, common, shift)

    def ratios(self) -> Floats:
        """Return (K, K) logarithms of how much more often class j is answered to images of class k than stated."""
        ratio = _share(self.stated, self.counted) / _share(self.stated, self.expected)
        return (np.log(ratio) + self._commoner(ratio)[:, None]).astype(np.float32)

    def without(self, first: Ints, true: Floats, stated: Floats) -> Floats:
        """Return (n, K) the same of counted answers ``first``, each as if its own label were not known."""
        shares = []
        for counts, own in ((self.counted, true), (self.expected, _shifted(stated, self.shift))):
            totals = PSEUDO_ANSWERS + np.maximum(counts.sum(axis=1) - own, 0.0)
            shares.append((PSEUDO_ANSWERS * self.stated.T[first] + np.maximum(counts.T[first] - own, 0.0)) / totals)
        ratio = _share(self.stated, self.counted) / _share(self.stated, self.expected)
        return (np.log(shares[0] / shares[1]) + self._commoner(ratio)).astype(np.float32)

    def _commoner(self, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (K,) logarithms of how much more common classes are than stated, by expectation maximisation.

        It begins with the labels, which decide where the answers leave it open.
        """
        likely, share = self.stated * ratio, _smoothed(self.common, self.counted)
        likely /= likely.sum(axis=1, keepdims=True)
        for _ in range(_STEPS):
            share = share * (likely @ (self.answered / np.maximum(share @ likely, 1e-12)))
        return np.log(np.maximum(share, 1e-12) / self.common)


def _smoothed(common: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (K,) shares of the classes among labelled images."""
    share = PSEUDO_ANSWERS * len(common) * common + counted.sum(axis=1)
    return share / share.sum()


def _shifted(probabilities: Floats, shift: NDArray[np.float64]) -> Floats:
    """Return probabilities of images that were drawn with other shares of the classes."""
    shifted = probabilities * shift
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _share(stated: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return (PSEUDO_ANSWERS * stated + counts) / (PSEUDO_ANSWERS + counts.sum(axis=1, keepdims=True))


def _by_class(first: Ints, true: Floats, n_classes: int) -> NDArray[np.float64]:
    """Return (K, K) sums of how much of class k was answered with class j."""
    answered = csr_matrix((np.ones(len(first)), (first, np.arange(len(first)))), shape=(n_classes, len(first)))
    return np.asarray(answered @ true.astype(np.float64)).T


def _stated(first: Ints, probabilities: Probabilities, rows: Ints) -> NDArray[np.float64]:
    """Return the same of some images, of any number."""
    n_classes = probabilities.shape[1]
    if not isinstance(probabilities, ClassShares):
        return _by_class(first[rows], probabilities[rows], n_classes)
    some, shape = probabilities.take(rows), (n_classes, len(rows))
    answered = csr_matrix((np.ones(len(rows)), (first[rows], np.arange(len(rows)))), shape=shape)
    above: Any = answered @ some.above_rest()
    return (above.toarray() + np.asarray(answered @ some.rest)[:, None]).T


def _log(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, np.float32(FLOOR)))


def _fit_weights(
    logs: Floats, labels: Evidence, prior: NDArray[np.float64], held: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the (E,) weights with the least log loss of labels, (E, n, K) log-probabilities being given."""
    rows, transition = np.arange(len(labels.given)), labels.transition
    strength = np.where(held, HELD_STRENGTH, PRIOR_STRENGTH)
    seen = None if transition is None else transition.T[labels.given]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        errors = softmax(np.tensordot(weights.astype(np.float32), logs, 1), axis=1)
        if seen is None:
            likelihood = errors[rows, labels.given]
            errors[rows, labels.given] -= 1.0
        else:
            joint = errors * seen
            likelihood = joint.sum(axis=1)
            errors -= joint / np.maximum(likelihood, 1e-30)[:, None]
        away = weights - prior
        value = -float(np.log(np.maximum(likelihood, 1e-30)).sum(dtype=np.float64))
        slope = np.array([float(np.vdot(errors, each)) for each in logs])
        cost = 0.5 * strength * away**2 + held * HELD * np.log1p((away / HELD_WIDTH) ** 2)
        rise = strength * away + held * HELD * 2.0 * away / (HELD_WIDTH**2 + away**2)
        return value + float(cost.sum()), slope + rise

    # With such a prior there may be two minima: one near the prior, and one where the labels want it.
    starts = (prior, np.full_like(prior, 0.5)) if held.any() else (prior,)
    bounds = [(0.0, MAX_WEIGHT)] * len(prior)
    fits: list[Any] = [minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B") for start in starts]
    return fits[int(np.argmin([fit.fun for fit in fits]))].x
