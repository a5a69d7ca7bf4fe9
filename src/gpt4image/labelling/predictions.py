"""Class probabilities of images, predicted from their texts by the labels of some; and the noise of those labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import built, chosen, mapped, scattered
from gpt4image.base.errors import TableError
from gpt4image.config.training import Evidence
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.experts import Fusion, Sources, by_answers, by_names, combine, taught_by_answers
from gpt4image.labelling.label_noise import find_noise, find_transition, raise_to
from gpt4image.labelling.text_classifier import Classification, classify
from gpt4image.labelling.text_vectors import Texts, smooth
from gpt4image.training.targets import Noise

Labels = NDArray[Any]
Bools = NDArray[np.bool_]

ROUNDS = 10  # of fitting classifier and noise in turn
SETTLED = 0.02  # change of a transition matrix at which they agree
MISSING: dict[Evidence, str] = {
    "fused": "There is no label, no answer and no class name to learn from. Label a few images of each class, or ask a "
    "describer for their classes (`gpt4image describe --ask class`) and give its store as --answers.",
    "texts": "--evidence texts needs labels, or answers of at least two classes: label a few images of each class, or "
    "give --answers.",
    "answers": "--evidence answers needs the answers of a describer: give its store as --answers.",
    "names": "--evidence names compares descriptions with class names: give an embedding table whose text encoder can "
    "be loaded as --embeddings.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Fusion):
    """What is predicted of N images, by one model, or by one per class.

    As of ``Fusion``, with a row of zeros where there is no evidence. Of several labels per image, ``probabilities`` are
    those of each class, NaN where there is no evidence, ``out_of_fold`` is (N, K), ``c`` the geometric mean, and no
    noise is looked for.

    Attributes:
        agreement: part of the out-of-fold predictions that agree with the given label; None where there are none.
    """

    agreement: float | None

    @property
    def known(self) -> Bools:
        """(N,) which images have evidence."""
        return mapped(self.probabilities, lambda found, _: np.nan_to_num(found).any(axis=1))


def require_learnable(described: Bools, labels: Labels) -> None:
    """Refuse images of whose texts nothing can be learned: no two that are described, (N,), have different labels.

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
    texts: Texts,
    labels: Labels,
    n_classes: int,
    seed: int,
    *,
    reference: Bools | None = None,
    answers: Answers | None = None,
    evidence: Evidence = "fused",
    groups: NDArray[np.int64] | None = None,
) -> Predictions:
    """Predict class probabilities from text embeddings, answers and labels.

    Args:
        texts: of N images.
        labels: (N,) classes to learn from, negative where there is none; or (N, K) 1 present, 0 absent, -1 not known.
        n_classes: K.
        seed: seed of the folds.
        reference: (N,) images whose texts, not labels, may shape those of others (train, say); all without it.
        answers: about the N images; where images have several labels, those of each class of them.
        evidence: what is read: all there is (fused), or one source of it.
        groups: (N,) where texts alone are read, those of a group are predicted by labels of others.

    Raises:
        TableError: the evidence is not there, or no two described images have different labels where texts alone are
            to be learned from.
    """
    answers = None if evidence == "names" else answers
    only_texts = evidence == "texts" or (answers is None and evidence == "fused")
    known = texts.described | (False if answers is None or evidence == "texts" else answers.given)
    if only_texts:
        own = labels if answers is None else labels[texts.described]  # without their labels, texts learn from answers
        if labels.ndim == 2 or (own >= 0).any():
            require_learnable(texts.described, labels)
    rows, total = np.flatnonzero(known), len(labels)
    texts, labels = texts.take(rows), labels[rows]
    shaping = np.arange(len(rows)) if reference is None else np.flatnonzero(reference[rows])
    sources = Sources(texts.centred(shaping), texts.described, texts.centred_names(), answers and answers.take(rows))
    if labels.ndim == 2:
        sources = sources._replace(vectors=sources.vectors[:])
        found, nothing = _several_labels(sources, labels, seed, evidence), np.nan
    else:
        described = np.flatnonzero(texts.described[shaping])
        sources = sources._replace(vectors=smooth(sources.vectors, shaping[described], seed))
        groups = None if groups is None else groups[rows]
        found, nothing = _one_label(sources, labels, n_classes, seed, evidence, groups), 0.0
    probabilities = scattered(found.probabilities, rows, total, nothing)
    out_of_fold = np.zeros((total, *labels.shape[1:]), bool)
    out_of_fold[rows] = found.out_of_fold
    said = {name: np.full(total, -1) for name in found.said}
    for name, classes in found.said.items():
        said[name][rows] = classes
    return replace(found, probabilities=probabilities, out_of_fold=out_of_fold, said=said)


def _one_label(
    sources: Sources,
    labels: Labels,
    n_classes: int,
    seed: int,
    evidence: Evidence,
    groups: NDArray[np.int64] | None,
) -> Predictions:
    """Return predictions of one class per image."""
    answers = sources.answers
    nothing_else = evidence == "texts" or (answers is None and evidence == "fused")
    if nothing_else and (labels >= 0).any():
        fit = partial(classify, sources.vectors, labels, n_classes, seed=seed, names=sources.names, groups=groups)
        return _by_labels(fit, labels, seed)
    free = []
    if answers is not None and evidence in ("answers", "fused"):
        free += by_answers(answers, n_classes)
    if answers is not None and evidence in ("texts", "fused"):
        free += taught_by_answers(sources, n_classes, seed)
    if answers is None and evidence in ("names", "fused"):
        free += by_names(sources)
    if not free:
        raise TableError(MISSING[evidence])
    found = combine(free, sources, labels, seed, learn_texts=answers is not None and evidence == "fused")
    agreement = None
    if found.out_of_fold.any():
        own = labels[found.out_of_fold]
        agreement = float((found.probabilities.argmax(axis=1)[found.out_of_fold] == own).mean())
    return Predictions(**vars(found), agreement=agreement)


def _several_labels(sources: Sources, labels: Labels, seed: int, evidence: Evidence) -> Predictions:
    """Return predictions by one model per class, of whether it is absent or present.

    Texts are not averaged with their neighbours here: that blurs which of many things a picture shows (mAP .673 with,
    .694 without, at 20 labels per class of street photographs). A class that is known by labels
    alone, all alike, has the probability of Laplace's rule of succession.
    """
    if evidence == "names":
        raise TableError("--evidence names compares each description with one class name; here images have several.")
    probabilities = np.full(labels.shape, np.nan, np.float32)
    out_of_fold = np.zeros(labels.shape, bool)
    fits: list[Classification] = []
    weights: list[dict[str, float]] = []
    for k, own in enumerate(labels.T.astype(np.int64)):
        about = _of_class(sources, k)
        counts = np.bincount(own[own >= 0], minlength=2)
        fit: Classification | None = None
        if about.answers is not None and evidence != "texts":
            free = by_answers(about.answers, 2)
            if evidence == "fused":
                free += taught_by_answers(about, 2, seed)
            fit = combine(free, about, own, seed, learn_texts=evidence == "fused", judge_labels=False)
            weights.append(fit.weights)
        elif counts.all():
            names, weigh = about.names, bool(counts.min() > 1)
            fit = classify(about.vectors, own, 2, seed=seed, names=names, weigh=weigh)
            weights.append({"texts": 1.0})
        elif counts.any():
            probabilities[:, k] = (counts[1] + 1) / (counts.sum() + 2)
        if fit is not None:
            known = fit.probabilities.any(axis=1)
            probabilities[known, k], out_of_fold[:, k] = fit.probabilities[known, 1], fit.out_of_fold
            fits.append(fit)
    right = ((probabilities >= 0.5) == labels)[out_of_fold]
    searched = [fit.c for fit in fits if fit.c is not None]
    return Predictions(
        probabilities=probabilities,
        out_of_fold=out_of_fold,
        noise=Noise(),
        weights={
            name: float(np.mean([each.get(name, 0.0) for each in weights])) for name in dict.fromkeys(chain(*weights))
        },
        said={},
        agreement=float(right.mean()) if len(right) else None,
        c=float(np.exp(np.mean(np.log(searched)))) if searched else None,
        names=float(np.mean([fit.names for fit in fits])),
        folds=max(fit.folds for fit in fits),
    )


def _of_class(sources: Sources, k: int) -> Sources:
    """Return what is known of the absence (0) and presence (1) of class k."""
    names, answers = sources.names, sources.answers
    return sources._replace(
        names=None if names is None else np.stack([-names[k], names[k]]),
        answers=answers and Answers(answers.first[:, k], answers.second[:, k], answers.confidence[:, k]),
    )


def _by_labels(fit: Callable[..., Classification], labels: Labels, seed: int) -> Predictions:
    """Return predictions of a text classifier that learns from labels, and the noise of the labels that they show."""
    result, noise, agreement = fit(), Noise(), None
    held_out = result.out_of_fold
    if held_out.any():
        clean = chosen(result.probabilities, held_out)
        agreement = float((clean.argmax(axis=1) == labels[held_out]).mean())
        noise, power = find_noise(clean, labels[held_out])
        if noise.rate > 0.0:
            raw = result.probabilities
            raised = built(len(raw), raw.shape[1], lambda rows: raise_to(raw[rows], power))
            result = replace(result, probabilities=raised)
            result, noise = _clean(result, labels, noise, fit, seed)
    return Predictions(**vars(result), noise=noise, weights={"texts": 1.0}, said={}, agreement=agreement)


def _clean(
    result: Classification, labels: Labels, uniform: Noise, fit: Callable[..., Classification], seed: int
) -> tuple[Classification, Noise]:
    """Return predictions of the clean class, and the noise, where labels are wrong; ``uniform`` is a first guess of it.

    Where classes are wrong in ways of their own, classifier and noise are fitted in turn.
    """
    held_out = result.out_of_fold
    noise = find_transition(chosen(result.probabilities, held_out), labels[held_out], uniform, seed)
    for _ in range(ROUNDS):
        before = noise.transition
        if before is None:
            break
        result = fit(transition=before)
        noise = find_transition(chosen(result.probabilities, held_out), labels[held_out], uniform, seed)
        if noise.transition is not None and np.abs(noise.transition - before).max() < SETTLED:
            break
    return result, noise
