"""What the texts of images say of their classes, by the labels of some; and the noise of those labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.errors import TableError
from gpt4image.label_noise import clean_probabilities, estimate_noise
from gpt4image.text_vectors import Texts, named, side_by_side, smooth

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Method = Literal["classifier", "propagation"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What the texts of N images say.

    Attributes:
        probabilities: (N, K) float32 of the clean class; zeros where there is no description.
        out_of_fold: (N,) bool, the image has a label that its own prediction has not seen.
        noise: estimated part of the given labels that is wrong; 0 where they are taken at their word.
        agreement: part of the out-of-fold predictions that agree with the given label; None where there are none.
        c: inverse strength of the classifier's penalty; None for propagation.
        names: part that class names have in the classifier, 0 to 1.
        folds: folds of its cross-validation; 0 where there was none.
    """

    probabilities: NDArray[np.float32]
    out_of_fold: Bools
    noise: float
    agreement: float | None
    c: float | None
    names: float
    folds: int


def read_labels(
    texts: Texts,
    labels: Ints,
    n_classes: int,
    seed: int,
    *,
    reference: Bools | None = None,
    method: Method = "classifier",
) -> Reading:
    """Read class probabilities off text embeddings.

    Args:
        texts: of N images.
        labels: (N,) class indices to learn from, negative where there is none.
        n_classes: K.
        seed: seed of the folds.
        reference: (N,) images whose texts, not labels, may shape those of others (train, say); all without it.
        method: logistic regression, or labels spread over the graph of nearest texts.

    Raises:
        TableError: fewer than two classes have a described image with a label.
    """
    from gpt4image.propagation import propagate
    from gpt4image.text_classifier import classify

    rows = np.flatnonzero(texts.described)
    given = labels[rows]
    classes = np.unique(given[given >= 0])
    if len(classes) < 2:
        raise TableError(
            f"Text labels need described images with labels of at least 2 classes; {len(rows)} of {len(labels)} images "
            f"are described and have labels of {len(classes)} class(es). Describe labelled images or label more."
        )
    texts = texts.take(rows)
    shaping = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    vectors = side_by_side(texts, shaping)
    if method == "propagation":
        result = propagate(vectors, given, n_classes, seed=seed, reference=shaping)
    else:
        result = classify(smooth(vectors, shaping, seed), given, n_classes, seed=seed, names=named(texts))
    read, held_out = result.probabilities, result.out_of_fold
    noise, agreement = 0.0, None
    if held_out.any():
        agreement = float((read[held_out].argmax(axis=1) == given[held_out]).mean())
        noise = estimate_noise(read[held_out], given[held_out])
    if noise > 0.0:
        read = clean_probabilities(read, given, held_out, noise)
    probabilities = np.zeros((len(labels), n_classes), dtype=np.float32)
    probabilities[rows] = read
    out_of_fold = np.zeros(len(labels), dtype=bool)
    out_of_fold[rows] = held_out
    return Reading(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        noise=noise,
        agreement=agreement,
        c=result.c,
        names=result.names,
        folds=result.folds,
    )
