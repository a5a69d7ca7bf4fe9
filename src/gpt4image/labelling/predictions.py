"""Class probabilities of images, predicted from their texts by the labels of some; and the noise of those labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import TableError
from gpt4image.labelling.label_noise import find_noise, find_transition, raise_to
from gpt4image.labelling.text_classifier import Classification, classify
from gpt4image.labelling.text_vectors import Texts, smooth
from gpt4image.training.targets import Noise

Labels = NDArray[Any]
Bools = NDArray[np.bool_]

ROUNDS = 10  # of fitting classifier and noise in turn
SETTLED = 0.02  # change of a transition matrix at which they agree


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Classification):
    """What is predicted from the texts of N images, by one classifier, or by one per class.

    As of ``Classification``, with a row of zeros where there is no description. Of several labels per image,
    ``probabilities`` are those of each class, NaN where there is no description or no label of the class,
    ``out_of_fold`` is (N, K), and ``c`` the geometric mean.

    Attributes:
        noise: which part of the given labels is wrong, and how; none is looked for in several labels per image.
        agreement: part of the out-of-fold predictions that agree with the given label; None where there are none.
    """

    noise: Noise
    agreement: float | None


def require_learnable(described: Bools, labels: Labels) -> None:
    """Refuse images of whose texts nothing can be learned: no two that are described have different labels.

    Args:
        described: (N,) whether an image has a text.
        labels: (N,) classes, or (N, K) presence of each, as of a dataset.

    Raises:
        TableError: they are refused.
    """
    known = labels[described]
    if labels.ndim == 2:
        enough = ((known == 1).any(axis=0) & (known == 0).any(axis=0)).any()
        need, have = "of which some have a class and some have not", "labels that do not differ"
    else:
        count = len(np.unique(known[known >= 0]))
        enough, need, have = count >= 2, "of at least 2 classes", f"labels of {count} class(es)"
    if not enough:
        raise TableError(
            f"Text labels need described images with labels {need}; {int(described.sum())} of {len(labels)} images are "
            f"described and have {have}. Describe labelled images or label more."
        )


def predict_labels(
    texts: Texts, labels: Labels, n_classes: int, seed: int, *, reference: Bools | None = None
) -> Predictions:
    """Predict class probabilities from text embeddings.

    Args:
        texts: of N images.
        labels: (N,) classes to learn from, negative where there is none; or (N, K) 1 present, 0 absent, -1 not known.
        n_classes: K.
        seed: seed of the folds.
        reference: (N,) images whose texts, not labels, may shape those of others (train, say); all without it.

    Raises:
        TableError: no two described images have different labels.
    """
    require_learnable(texts.described, labels)
    rows, total = np.flatnonzero(texts.described), len(labels)
    texts, labels = texts.take(rows), labels[rows]
    shaping = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    vectors = texts.centred(shaping)
    if labels.ndim == 2:
        found, nothing = _several_labels(vectors, labels, texts.centred_names(), seed), np.nan
    else:
        vectors = smooth(vectors, shaping, seed)
        fit = partial(classify, vectors, labels, n_classes, seed=seed, names=texts.centred_names())
        found, nothing = _one_label(fit, labels, seed), 0.0
    probabilities = np.full((total, n_classes), nothing, np.float32)
    probabilities[rows] = found.probabilities
    out_of_fold = np.zeros((total, *labels.shape[1:]), bool)
    out_of_fold[rows] = found.out_of_fold
    return replace(found, probabilities=probabilities, out_of_fold=out_of_fold)


def _several_labels(vectors: NDArray[np.float32], labels: Labels, names: Any, seed: int) -> Predictions:
    """Return predictions by one classifier per class, of whether it is absent or present.

    Texts are not averaged with their neighbours here: that blurs which of many things a picture shows (mAP .673 with,
    .694 without, at 20 labels per class of street photographs). A class of which all known labels are the same has the
    probability of Laplace's rule of succession.
    """
    probabilities = np.full(labels.shape, np.nan, np.float32)
    out_of_fold = np.zeros(labels.shape, bool)
    fits: list[Classification] = []
    for k, own in enumerate(labels.T.astype(np.int64)):
        counts = np.bincount(own[own >= 0], minlength=2)
        if counts.all():
            pull = None if names is None else np.stack([-names[k], names[k]])
            fit = classify(vectors, own, 2, seed=seed, names=pull, weigh=bool(counts.min() > 1))
            probabilities[:, k], out_of_fold[:, k] = fit.probabilities[:, 1], fit.out_of_fold
            fits.append(fit)
        elif counts.any():
            probabilities[:, k] = (counts[1] + 1) / (counts.sum() + 2)
    right = ((probabilities >= 0.5) == labels)[out_of_fold]
    return Predictions(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        noise=Noise(),
        agreement=float(right.mean()) if len(right) else None,
        c=float(np.exp(np.mean([np.log(fit.c) for fit in fits]))),
        names=float(np.mean([fit.names for fit in fits])),
        folds=max(fit.folds for fit in fits),
    )


def _one_label(fit: Callable[..., Classification], labels: Labels, seed: int) -> Predictions:
    """Return predictions of one class per image, and the noise of the labels that they show."""
    result, noise, agreement = fit(), Noise(), None
    held_out = result.out_of_fold
    if held_out.any():
        clean = result.probabilities[held_out]
        agreement = float((clean.argmax(axis=1) == labels[held_out]).mean())
        noise, power = find_noise(clean, labels[held_out])
        if noise.rate > 0.0:
            result = replace(result, probabilities=raise_to(result.probabilities, power))
            result, noise = _clean(result, labels, noise, fit, seed)
    return Predictions(**vars(result), noise=noise, agreement=agreement)


def _clean(
    result: Classification, labels: Labels, uniform: Noise, fit: Callable[..., Classification], seed: int
) -> tuple[Classification, Noise]:
    """Return predictions of the clean class, and the noise, where labels are wrong.

    Where classes are wrong in ways of their own, classifier and noise are fitted in turn.

    Args:
        result: first guess, of n images.
        labels: (n,) given labels.
        uniform: first guess of the noise.
        fit: fits the classifier given ``transition``.
        seed: of the parts that noise is judged on.
    """
    held_out = result.out_of_fold
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
