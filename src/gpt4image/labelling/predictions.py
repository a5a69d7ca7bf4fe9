"""What the texts of images say of their classes, by the labels of some; and the noise of those labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import TableError
from gpt4image.labelling.label_noise import Noise, find_noise, find_transition, raise_to
from gpt4image.labelling.text_classifier import Classification, classify
from gpt4image.labelling.text_vectors import Texts, smooth

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROUNDS = 10  # of fitting classifier and noise in turn
SETTLED = 0.02  # change of a transition matrix at which they agree


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the texts of N images say.

    Attributes:
        probabilities: (N, K) float32 of the clean class; zeros where there is no description.
        out_of_fold: (N,) bool, the image has a label that its own prediction has not seen.
        noise: which part of the given labels is wrong, and how.
        agreement: part of the out-of-fold predictions that agree with the given label; None where there are none.
        c: inverse strength of the classifier's penalty.
        names: part that class names have in the classifier, 0 to 1.
        folds: folds of its cross-validation; 0 where there was none.
    """

    probabilities: NDArray[np.float32]
    out_of_fold: Bools
    noise: Noise
    agreement: float | None
    c: float
    names: float
    folds: int


def require_two_classes(described: Bools, labels: NDArray[np.int64]) -> None:
    """Refuse images of which no two classes have one with a text and a label: nothing can be read off their texts.

    Args:
        described: (N,) whether an image has a text.
        labels: (N,) class indices, negative where there is none.

    Raises:
        TableError: they are refused.
    """
    classes = np.unique(labels[described & (labels >= 0)])
    if len(classes) < 2:
        raise TableError(
            f"Text labels need described images with labels of at least 2 classes; {int(described.sum())} of "
            f"{len(labels)} images are described and have labels of {len(classes)} class(es). Describe labelled images "
            "or label more."
        )


def predict_labels(
    texts: Texts, labels: Ints, n_classes: int, seed: int, *, reference: Bools | None = None
) -> Predictions:
    """Read class probabilities off text embeddings.

    Args:
        texts: of N images.
        labels: (N,) class indices to learn from, negative where there is none.
        n_classes: K.
        seed: seed of the folds.
        reference: (N,) images whose texts, not labels, may shape those of others (train, say); all without it.

    Raises:
        TableError: fewer than two classes have a described image with a label.
    """
    rows = np.flatnonzero(texts.described)
    given = labels[rows]
    require_two_classes(texts.described, labels)
    texts = texts.take(rows)
    shaping = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    vectors = smooth(texts.centred(shaping), shaping, seed)
    fit = partial(classify, vectors, given, n_classes, seed=seed, names=texts.centred_names())
    result = fit()
    clean, held_out, noise, agreement = result.probabilities, result.out_of_fold, Noise(), None
    if held_out.any():
        agreement = float((clean[held_out].argmax(axis=1) == given[held_out]).mean())
        noise, power = find_noise(clean[held_out], given[held_out])
        if noise.rate > 0.0:
            result = replace(result, probabilities=raise_to(clean, power))
            result, noise = _mend(result, given, held_out, noise, fit, seed)
    probabilities = np.zeros((len(labels), n_classes), dtype=np.float32)
    probabilities[rows] = result.probabilities
    out_of_fold = np.zeros(len(labels), dtype=bool)
    out_of_fold[rows] = held_out
    return Predictions(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        noise=noise,
        agreement=agreement,
        c=result.c,
        names=result.names,
        folds=result.folds,
    )


def _mend(
    result: Classification,
    labels: Ints,
    held_out: Bools,
    uniform: Noise,
    fit: Callable[..., Classification],
    seed: int,
) -> tuple[Classification, Noise]:
    """Return what is said of the clean class, and the noise, where labels are wrong.

    Where classes are wrong in ways of their own, classifier and noise are fitted in turn.

    Args:
        result: first guess, of n images.
        labels: (n,) given labels.
        held_out: (n,) rows that have not seen their label.
        uniform: first guess of the noise.
        fit: fits the classifier given ``transition``.
        seed: of the parts that noise is judged on.
    """
    noise = find_transition(result.probabilities[held_out], labels[held_out], uniform, seed)
    for _ in range(ROUNDS):
        before = noise.transition
        if before is None:
            break
        result = fit(transition=before)
        noise = find_transition(result.probabilities[held_out], labels[held_out], uniform, seed)
        if noise.transition is not None and np.abs(noise.transition - before).max() < SETTLED:
            break
    return result, noise
