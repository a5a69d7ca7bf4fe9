"""The one model that joins sources: a product with weights that are learned from labels.

A source gives class probabilities of images that have not seen the label of the image: the describer's answers, the
text classifier, class names. Their log-probabilities are added, each with a weight >= 0 (a product of experts, Hinton
2002). Two things are learned from the labelled images, both with a prior, so that no label is needed:

* the weights, by the log loss of the labels. The prior holds that of the answers near ``Source.prior`` with
  PRIOR_STRENGTH. Those of the texts are shrunk: a prior with a peak and long tails (Cauchy times normal) makes the
  first steps away cost much and further ones little, so that labels that happen to agree move nothing, and labels that
  say it clearly move much. These numbers were chosen on photographs of CIFAR-10 and pictograms of OpenMoji together
  (benchmarks/teacher.py);
* systematic confusions of the answerer, and of the texts that it taught: P(word | class), how often each word is said
  of images of each class, counted on images whose class is known, surely or by probability, on top of a prior.

A labelled image is predicted with weights and confusions from the other folds. Where labels may be wrong, both are
learned under the noise model.

**Answers that are not about their image** are found without a label (``find_cases``). A describer may be surer than it
should be: its answer may be of another class at random, or answer and text may be of another image. What its texts and
a classifier on the pictures say, both taught by the answers of other images, tells: a wrong answer at random is not
explained by them. Each image is one of several cases:

* sound: answer and text are about the image;
* the answer alone is not about it, or the text alone, or neither, each for itself;
* answer and text are of one other image, which only the picture shows.

The shares of the cases are fitted to how likely the answers are in each (maximum likelihood), together with one power
per classifier: what is taught by wrong answers is less sure than it should be. They count only where they explain the
answers clearly better than that all are sound (BIC, Schwarz 1978). Stated confidences are taken at their word in sound
answers, so that an answer that is wrong where the describer was unsure is no sign of anything.

Legend: N images, n labelled ones, K classes, S sources, C cases; matrices (K, K) have a row per true class and a column
per word.
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

from gpt4image.artifacts.probabilities import Probabilities, allocate, blocks, from_blocks, take
from gpt4image.labelling.texts import FOLDS

Floats = NDArray[np.float32]
AnyFloats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Weights = NDArray[np.float64]

PRIOR_STRENGTH = 30.0  # a weight costs half of this, in nats, where it is 1 away from its prior
SHRUNK_STRENGTH = 10.0  # the same of a shrunk weight, which costs more near its prior:
SHRUNK, SHRUNK_WIDTH = 1.5, 0.1  # SHRUNK * log(1 + (distance / SHRUNK_WIDTH)^2), in nats
MAX_WEIGHT = 4.0
MOST_IN_ALL = 1.2  # prior weights of one image
MAX_LABELS, LEAST_LABELS = 5_000, 500  # labelled images that weights are fitted to; the fewer the more classes
MAX_CELLS = 5_000_000  # these images times classes
FLOOR = 1e-9
MAX_CONFUSED = 3_000  # classes up to which confusions are learned: they are numbers of each class and each other
PSEUDO_ANSWERS = 10.0  # answers per class that count as if they were as stated
_STEPS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One source of class probabilities of N images, (N, K), none of which has seen the label of its image.

    It knows some images (N,), and has the weight ``prior`` without labels, which it leaves, if ``shrunk``, only where
    labels say so clearly. Confusions are learned of classes ``first`` (N,) that were answered; answers about images of
    ``shaping`` (N,) say how often classes are answered, None: all that are known.
    """

    name: str
    probabilities: Probabilities
    known: Bools
    prior: float
    shrunk: bool = False
    first: Ints | None = None
    shaping: Bools | None = None

    def of(self, rows: Ints) -> Source:
        """Return what it says of some images."""
        first = None if self.first is None else self.first[rows]
        shaping = None if self.shaping is None else self.shaping[rows]
        found = take(self.probabilities, rows)
        return replace(self, probabilities=found, known=self.known[rows], first=first, shaping=shaping)


class Labels(NamedTuple):
    """What the labels say: ``rows`` (n,) of labelled images, ``given`` (n,) labels, ``true`` (n, K) probabilities of
    their true classes, and the (K, K) transition from true to given, None where labels are taken at their word."""

    rows: Ints
    given: Ints
    true: Floats
    transition: Floats | None = None

    @classmethod
    def none(cls, n_classes: int) -> Labels:
        """Return no labels."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, n_classes), np.float32))

    def among(self, some: Any) -> Labels:
        """Return some of the labelled images."""
        return Labels(self.rows[some], self.given[some], self.true[some], self.transition)


def combine(
    sources: Sequence[Source], labels: Labels, seed: int, groups: Ints | None = None, shaping: Bools | None = None
) -> tuple[Probabilities, dict[str, float]]:
    """Return (N, K) probabilities and the weights of sources; a row of zeros where no source knows the image.

    Images that different sources know are combined with different weights; returned are those of most sources.
    Images of a group (N,) are in one fold. Only answers about images of ``shaping`` (N,) shape what is said of others.
    """
    if shaping is not None:
        sources = [replace(source, shaping=source.known & shaping) for source in sources]
    total, n_classes = sources[0].probabilities.shape
    found = allocate(total, n_classes)
    weights = {source.name: 0.0 for source in sources}
    own_groups = labels.rows if groups is None else groups[labels.rows]
    distinct, group_of = np.unique(own_groups, return_inverse=True)
    folds = (np.random.default_rng(seed).permutation(len(distinct)) % FOLDS)[group_of]  # no label decides of its own
    known = np.stack([source.known for source in sources], axis=1)
    patterns, pattern_of, sizes = np.unique(known, axis=0, return_inverse=True, return_counts=True)
    pattern_of = pattern_of.reshape(-1)
    for number in np.lexsort((sizes, patterns.sum(axis=1))):
        there = patterns[number]
        if not there.any():
            continue
        able = [source for source, knows in zip(sources, there, strict=True) if knows]
        usable = known[labels.rows][:, there].all(axis=1)
        own, own_folds = labels.among(usable), folds[usable]
        mine = pattern_of[own.rows] == number
        model = _Product.fit(able, own, seed)
        model.predict(able, np.setdiff1d(np.flatnonzero(pattern_of == number), own.rows[mine]), found)
        for fold in np.unique(own_folds[mine]):
            of_others = _Product.fit(able, own.among(own_folds != fold), seed)
            of_others.predict(able, own.rows[mine & (own_folds == fold)], found)
        fitted = {source.name: float(weight) for source, weight in zip(able, model.weights, strict=True)}
        weights = dict.fromkeys(weights, 0.0) | fitted
    return found, weights


class _Product(NamedTuple):
    """A fitted product: (S,) weights, and of each source (K, K) log ratios of how often classes are answered."""

    weights: Weights
    ratios: list[Floats | None]

    @classmethod
    def fit(cls, sources: Sequence[Source], labels: Labels, seed: int) -> _Product:
        """Learn from labels; nothing but priors without them.

        Where there is no answer, sources count for one in all: they read the same texts, and repeat each other's
        mistakes. Where there is one, what answers taught repeats theirs: together they count for MOST_IN_ALL at most.
        """
        prior = np.array([source.prior for source in sources])
        if prior.sum() < 1.0:
            prior = prior / prior.sum() if prior.any() else np.full(len(prior), 1.0 / len(prior))
        prior *= min(1.0, MOST_IN_ALL / prior.sum())
        ratios: list[Floats | None] = [None] * len(sources)
        if not len(labels.rows):
            return cls(prior, ratios)
        some, most = labels, min(MAX_LABELS, max(LEAST_LABELS, MAX_CELLS // labels.true.shape[1]))
        if len(labels.rows) > most:
            rng = np.random.default_rng(seed)
            some = labels.among(np.sort(rng.choice(len(labels.rows), most, replace=False)))
        logs = np.stack([_log(source.probabilities[some.rows]) for source in sources])
        for number, source in enumerate(sources):
            first, found = source.first, source.probabilities
            if first is not None and found.shape[1] <= MAX_CONFUSED:
                among = source.known if source.shaping is None else source.shaping
                confusions = Confusions.of(first, found, among, labels.rows, labels.true)
                ratios[number] = confusions.ratios()
                logs[number] += confusions.without(first[some.rows], some.true, found[some.rows])
        shrunk = np.array([source.shrunk for source in sources])
        return cls(_fit_weights(logs, some, prior, shrunk), ratios)

    def predict(self, sources: Sequence[Source], rows: Ints, into: Probabilities) -> None:
        """Write the probabilities of some images."""
        for part in blocks(len(rows), into.shape[1]):
            block = rows[part]
            total = np.zeros((len(block), into.shape[1]), np.float32)
            for weight, ratios, source in zip(self.weights, self.ratios, sources, strict=True):
                logs = _log(source.probabilities[block])
                if source.first is not None and ratios is not None:
                    logs += ratios.T[source.first[block]]
                total += np.float32(weight) * logs
            into[block] = softmax(total, axis=1)


def _log(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, np.float32(FLOOR)))


def _fit_weights(logs: Floats, labels: Labels, prior: Weights, shrunk: Bools) -> Weights:
    """Return the (S,) weights with the least log loss of labels, (S, n, K) log-probabilities being given."""
    rows, transition = np.arange(len(labels.given)), labels.transition
    strength = np.where(shrunk, SHRUNK_STRENGTH, PRIOR_STRENGTH)
    seen = None if transition is None else transition.T[labels.given]

    def loss(weights: Weights) -> tuple[float, Weights]:
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
        cost = 0.5 * strength * away**2 + shrunk * SHRUNK * np.log1p((away / SHRUNK_WIDTH) ** 2)
        rise = strength * away + shrunk * SHRUNK * 2.0 * away / (SHRUNK_WIDTH**2 + away**2)
        return value + float(cost.sum()), slope + rise

    # With such a prior there may be two minima: one near the prior, and one where the labels want it.
    starts = (prior, np.full_like(prior, 0.5)) if shrunk.any() else (prior,)
    bounds = [(0.0, MAX_WEIGHT)] * len(prior)
    fits: list[Any] = [minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B") for start in starts]
    return fits[int(np.argmin([fit.fun for fit in fits]))].x


def counted(words: NDArray[np.integer], true: AnyFloats, n_classes: int) -> NDArray[np.float64]:
    """Return (K, K) numbers of words (n,) by the probabilities (n, K) of their true classes."""
    said = csr_matrix((np.ones(len(words)), (words, np.arange(len(words)))), shape=(n_classes, len(words)))
    return np.asarray(said @ true.astype(np.float64)).T


def smoothed(counts: AnyFloats, prior: AnyFloats, strength: float) -> NDArray[np.float64]:
    """Return P(word | class), (K, K), of counts, on top of so many words per class that follow the prior."""
    return (strength * prior + counts) / (strength + counts.sum(axis=1, keepdims=True))


class Confusions(NamedTuple):
    """How often answers are given to images of each class, beside how often they should be, as stated.

    How common classes are follows too: a class that is never answered, though images have it, is taken for more common
    than the answers state (Saerens et al. 2002).

    Attributes:
        stated: (K, K) P(answer | class) among all images, as the stated confidences have it.
        expected: (K, K) numbers among labelled images, as stated: labels may have been chosen where answers are unsure.
        counted: (K, K) numbers among labelled images, by their labels.
        shift: (K,) how much more common classes are among labelled images; as many labels of each class, say.
        commoner: (K,) logarithms of how much more common classes are than stated.
    """

    stated: NDArray[np.float64]
    expected: NDArray[np.float64]
    counted: NDArray[np.float64]
    shift: NDArray[np.float64]
    commoner: NDArray[np.float64]

    @classmethod
    def of(cls, first: Ints, probabilities: Probabilities, known: Bools, rows: Ints, true: Floats) -> Confusions:
        """Count answers ``first`` (N,), whose stated probabilities are (N, K), of the images that have one, ``known``
        (N,).

        ``rows`` (n,) are the labelled images, ``true`` (n, K) the probabilities of their classes.
        """
        n_classes = probabilities.shape[1]
        stated = _stated(first, probabilities, np.flatnonzero(known)) + 1e-3 / n_classes
        counts = counted(first[rows], true, n_classes)
        common, answered = stated.sum(axis=1), stated.sum(axis=0)
        common, answered = common / common.sum(), answered / answered.sum()
        among = PSEUDO_ANSWERS * n_classes * common + counts.sum(axis=1)
        share = among / among.sum()
        shift, expected = share / common, np.zeros_like(counts)
        for part in blocks(len(rows), n_classes):
            expected += counted(first[rows[part]], _shifted(probabilities[rows[part]], shift), n_classes)
        stated /= stated.sum(axis=1, keepdims=True)
        likely = stated * smoothed(counts, stated, PSEUDO_ANSWERS) / smoothed(expected, stated, PSEUDO_ANSWERS)
        likely /= likely.sum(axis=1, keepdims=True)
        for _ in range(_STEPS):  # expectation maximisation, from the labels, which decide what the answers leave open
            share = share * (likely @ (answered / np.maximum(share @ likely, 1e-12)))
        return cls(stated, expected, counts, shift, np.log(np.maximum(share, 1e-12) / common))

    def ratios(self) -> NDArray[np.float32]:
        """Return (K, K) logarithms of how much more often class j is answered to images of class k than stated."""
        more, fewer = (smoothed(counts, self.stated, PSEUDO_ANSWERS) for counts in (self.counted, self.expected))
        return (np.log(more / fewer) + self.commoner[:, None]).astype(np.float32)

    def without(self, first: Ints, true: Floats, stated: Floats) -> NDArray[np.float32]:
        """Return (n, K) the same of counted answers ``first``, each as if its own label were not known."""
        shares = []
        for counts, own in ((self.counted, true), (self.expected, _shifted(stated, self.shift))):
            totals = PSEUDO_ANSWERS + np.maximum(counts.sum(axis=1) - own, 0.0)
            shares.append((PSEUDO_ANSWERS * self.stated.T[first] + np.maximum(counts.T[first] - own, 0.0)) / totals)
        return (np.log(shares[0] / shares[1]) + self.commoner).astype(np.float32)


def _shifted(probabilities: Floats, shift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return probabilities of images that were drawn with other shares of the classes."""
    shifted = probabilities * shift
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _stated(first: Ints, probabilities: Probabilities, rows: Ints) -> NDArray[np.float64]:
    """Return ``counted`` of answers that are of each class as their confidence says, of any number of images."""
    n_classes = probabilities.shape[1]
    total = np.zeros((n_classes, n_classes))
    for part in blocks(len(rows), n_classes):
        total += counted(first[rows[part]], probabilities[rows[part]], n_classes)
    return total


MAX_JUDGED, MAX_JUDGED_CELLS = 5_000, 2_000_000  # images that shares are fitted to, and these times classes
POWER_WIDTH = 0.5  # standard deviation of the prior of the logarithm of a power; a power is one at least
MAX_POWER = 1.5  # logarithm of the largest power
# Share of the images with such an answer whose text is not about them either, where no picture tells. It costs little
# where the text is right (log loss .377 to .392 of photographs), and saves much where it is wrong (1.158 to .990).
TEXT_TOO = 0.1
RAREST = -9.0  # logarithm of the least share of a case to that of sound images


class Cases(NamedTuple):
    """Shares (C,) of the cases, the sound one first, and the power of each witness: a classifier of texts or pictures
    that was taught by the answers of other images."""

    shares: AnyFloats
    powers: AnyFloats

    @property
    def rate(self) -> float:
        """Share of the answers that are not about their image."""
        return float(1.0 - self.shares[0])


def find_cases(
    stated: Probabilities, usable: NDArray[np.int64], texts: Source | None, pictures: Source | None, seed: int
) -> Cases | None:
    """Return the cases of answers; None where all seem to be about their image, or where nothing can tell.

    ``stated`` are (N, K) probabilities of the answers, ``usable`` (n,) the images that are looked at.
    """
    n_classes = stated.shape[1]
    most = min(MAX_JUDGED, MAX_JUDGED_CELLS // n_classes)
    rows = usable
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    witnesses = [witness for witness in (texts, pictures) if witness is not None]
    if not witnesses or len(rows) < 2:
        return None
    common = _common(stated[rows])
    logs = [_logs(witness, rows) for witness in witnesses]
    ratio, few = stated[rows] / common, len(witnesses)

    def loss(values: AnyFloats) -> float:
        found = _likelihoods(ratio, _said(logs, np.exp(values[:few]), common), common, texts is not None)
        shares = softmax(np.concatenate([[0.0], values[few:]]))
        prior = 0.5 * float((values[:few] ** 2).sum()) / POWER_WIDTH**2
        return prior - float(np.log(np.maximum(found @ shares, 1e-30)).sum())

    n_cases = 5 if few == 2 else 2
    power_bounds, share_bounds = [(0.0, MAX_POWER)] * few, [(RAREST, 2.0)] * (n_cases - 1)
    none = np.full(n_cases - 1, RAREST)

    def loss_if_sound(powers: AnyFloats) -> float:
        return loss(np.concatenate([powers, none]))

    sound: Any = minimize(loss_if_sound, np.zeros(few), bounds=power_bounds)
    starts = (np.concatenate([np.full(few, 0.3), np.full(n_cases - 1, start)]) for start in (-3.0, -1.0))
    fits: list[Any] = [minimize(loss, start, bounds=power_bounds + share_bounds) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    if sound.fun - best.fun <= 0.5 * np.log(len(rows)) * (n_cases - 1):
        return None
    return Cases(softmax(np.concatenate([[0.0], best.x[few:]])), np.exp(best.x[:few]))


def corrected(
    stated: Probabilities, cases: Cases, usable: NDArray[np.int64], texts: Source | None, pictures: Source | None
) -> Probabilities:
    """Return (N, K) class probabilities by answers and witnesses, each image being one of the cases.

    Arguments are as of ``find_cases``.
    """
    everyone = np.arange(len(stated))
    common = _common(stated[usable[:: 1 + len(usable) * stated.shape[1] // MAX_JUDGED_CELLS]])
    witnesses = [witness for witness in (texts, pictures) if witness is not None]

    def block(rows: slice) -> NDArray[np.float32]:
        own = stated[rows]
        said = _said([_logs(witness, everyone[rows]) for witness in witnesses], cases.powers, common)
        likely = _likelihoods(own / common, said, common, texts is not None) * cases.shares
        likely /= np.maximum(likely.sum(axis=1, keepdims=True), 1e-30)
        seen = said[-1] if pictures is not None else common
        if texts is None:
            by_case = [own, seen]
        elif pictures is None:
            by_case = [own, (1.0 - TEXT_TOO) * said[0] + TEXT_TOO * common]
        else:
            both = _normal(said[0] * seen / common)
            by_case = [own, both, _normal(own * seen / common), seen, seen]
        return np.einsum("cnk,nc->nk", np.stack(by_case), likely).astype(np.float32)

    return from_blocks(len(stated), stated.shape[1], block)


def _likelihoods(ratio: AnyFloats, said: list[AnyFloats], common: AnyFloats, has_texts: bool) -> AnyFloats:
    """Return (n, C) how likely answer and text are in each case, over how likely they are of any image."""
    ones = np.ones(len(ratio))
    if len(said) == 1:
        return np.stack([(said[0] * ratio).sum(axis=1), ones], axis=1)
    text, picture = said[0] / common, said[1]
    found = [(picture * ratio * text).sum(axis=1), (picture * text).sum(axis=1), (picture * ratio).sum(axis=1)]
    return np.stack([*found, ones, (common * ratio * text).sum(axis=1)], axis=1)


def _common(probabilities: AnyFloats) -> AnyFloats:
    """Return (K,) how common classes are."""
    total = probabilities.sum(axis=0, dtype=np.float64) + 1e-3 * len(probabilities) / probabilities.shape[1]
    return total / total.sum()


def _logs(witness: Source, rows: NDArray[np.int64]) -> tuple[AnyFloats, Bools]:
    return np.log(np.maximum(witness.probabilities[rows], np.float32(1e-6))), witness.known[rows][:, None]


def _said(logs: list[tuple[AnyFloats, Bools]], powers: AnyFloats, common: AnyFloats) -> list[AnyFloats]:
    """Return the (n, K) probabilities of each witness, raised to its power; ``common`` where it knows nothing."""
    return [
        np.where(known, softmax(power * log, axis=1), common) for power, (log, known) in zip(powers, logs, strict=True)
    ]


def _normal(values: AnyFloats) -> AnyFloats:
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-30)
