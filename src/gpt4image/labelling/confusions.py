"""P(word | class): how often each word is said of images of each class. The words are answers, or given labels.

It is counted on images whose class is known, surely or by probability, on top of a prior. So answers are corrected, and
wrong labels explained.

Legend: n images, K classes; matrices (K, K) have a row per true class and a column per word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpt4image.artifacts.top_k_probs import Probabilities, TopKProbs, blocks

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PSEUDO_ANSWERS = 10.0  # answers per class that count as if they were as stated
_STEPS = 20


def counted(words: NDArray[np.integer], true: Floats, n_classes: int) -> NDArray[np.float64]:
    """Return (K, K) numbers of words (n,) by the probabilities (n, K) of their true classes."""
    said = csr_matrix((np.ones(len(words)), (words, np.arange(len(words)))), shape=(n_classes, len(words)))
    return np.asarray(said @ true.astype(np.float64)).T


def smoothed(counts: Floats, prior: Floats, strength: float) -> NDArray[np.float64]:
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
    if not isinstance(probabilities, TopKProbs):
        return counted(first[rows], probabilities[rows], n_classes)
    some, shape = probabilities.take(rows), (n_classes, len(rows))
    answered = csr_matrix((np.ones(len(rows)), (first[rows], np.arange(len(rows)))), shape=shape)
    above: Any = answered @ some.above_rest()
    return (above.toarray() + np.asarray(answered @ some.rest)[:, None]).T
