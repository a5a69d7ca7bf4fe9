"""The experts of ``fusion``, made of answers, texts and labels; what they say together, and the noise they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gpt4image.artifacts.class_shares import Probabilities, blocks, built, chosen
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.fusion import FLOOR, Evidence, Expert, fuse
from gpt4image.labelling.label_noise import find_transition, noise_by_evidence
from gpt4image.labelling.text_classifier import MAX_CELLS, Classification, classify
from gpt4image.labelling.text_vectors import Vectors
from gpt4image.training.targets import Noise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Weights without labels. Answers are taken at their word. Texts that they teach repeat some of their mistakes: 0.1
# gains on photographs and costs nothing on pictograms. Only labels give weight to what learns from labels.
ANSWER_PRIOR, TAUGHT_PRIOR, TEXT_PRIOR = 1.0, 0.1, 0.0
NAME_SCALE = 8.0  # of cosines between texts and class names; log loss is flat around it on both sets
MAX_TAUGHT = 20_000  # answers that teach a text classifier


class Sources(NamedTuple):
    """What is known of N images before a label is read.

    Attributes:
        vectors: (N, D) embeddings, as ``text_vectors.smooth`` returns them.
        described: (N,) which of them come from a text.
        names: (K, D) embeddings of class names; None where they cannot be had.
        answers: about the images; None where none were asked for.
    """

    vectors: Vectors
    described: Bools
    names: Floats | None
    answers: Answers | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion(Classification):
    """Predictions of several experts: as of ``Classification``, a row of zeros where no expert knows the image.

    Attributes:
        noise: how given labels are wrong, by evidence that has read none of them.
        weights: of each expert.
        said: (N,) the class that each expert finds most probable, -1 where it does not know the image.
    """

    noise: Noise
    weights: dict[str, float]
    said: dict[str, Ints]


def by_names(sources: Sources) -> list[Expert]:
    """Return the expert that compares texts with class names; none where there are no names."""
    if sources.names is None:
        return []
    vectors, names = sources.vectors, sources.names.T

    def likeness(rows: slice) -> Floats:
        return softmax(np.float32(NAME_SCALE) * (vectors[rows] @ names), axis=1)

    alike = built(len(vectors), names.shape[1], likeness)
    return [Expert(name="names", probabilities=alike, known=sources.described, prior=1.0)]


def by_answers(answers: Answers, n_classes: int) -> list[Expert]:
    """Return the expert of the describer's own answers."""
    stated = answers.probabilities(n_classes)
    return [Expert(name="answers", probabilities=stated, known=answers.given, prior=ANSWER_PRIOR, first=answers.first)]


def taught_by_answers(sources: Sources, n_classes: int, seed: int) -> list[Expert]:
    """Return a text classifier whose labels are the answers; none where answers name one class.

    It needs no human label. Each image is predicted by folds that have not seen its answer, so that what it says of the
    image is not the answer again: texts of similar images correct answers that are wrong.
    """
    if sources.answers is None:
        return []
    usable = np.flatnonzero(sources.described & sources.answers.given)
    if len(usable) > MAX_TAUGHT:
        usable = np.random.default_rng(seed).choice(usable, MAX_TAUGHT, replace=False)
    taught = np.full(len(sources.described), -1)
    taught[usable] = sources.answers.first[usable]
    if len(np.unique(taught[usable])) < 2:
        return []
    fit = classify(sources.vectors, taught, n_classes, seed=seed, names=sources.names)
    # Classes that were never answered are possible all the same.
    predicted = _filled(fit.probabilities, taught, 1e-3 / n_classes)
    said = predicted.argmax(axis=1)
    return [
        Expert(
            name="taught", probabilities=predicted, known=sources.described, prior=TAUGHT_PRIOR, held=True, first=said
        )
    ]


def combine(
    free: list[Expert], sources: Sources, labels: Ints, seed: int, *, learn_texts: bool, judge_labels: bool = True
) -> Fusion:
    """Return what all experts say, and the noise of labels.

    Args:
        free: experts that have read no label; one at least.
        sources: of N images.
        labels: (N,) given classes, negative where there is none.
        seed: of all folds.
        learn_texts: whether a text classifier learns from the labels as well.
        judge_labels: whether labels may be wrong.
    """
    n_classes = free[0].probabilities.shape[1]
    nothing = Evidence(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, n_classes), np.float32), None)
    known = np.any([expert.known for expert in free], axis=0)
    rows = np.flatnonzero((labels >= 0) & known)
    read = rows
    if len(rows) * n_classes > MAX_CELLS:  # what the others say is predicted like that of images without a label
        read = np.sort(np.random.default_rng(seed).choice(rows, max(MAX_CELLS // n_classes, 1), replace=False))
    own, noise = labels[read], Noise()
    experts, fit = free, None
    if not len(rows):
        found, weights = fuse(free, nothing, seed)
    else:
        unread = fuse([expert.of(read) for expert in free], nothing, seed)[0]
        taught = np.where(sources.described, labels, -1)
        learn_texts = learn_texts and len(np.unique(taught[taught >= 0])) > 1
        if learn_texts:
            fit = classify(sources.vectors, taught, n_classes, seed=seed, names=sources.names)
        probable = noise
        if judge_labels:
            noise, probable = noise_by_evidence(unread, own, _text_loss(fit, taught), seed)
        matrix = probable.matrix(n_classes) if probable.rate > 0.0 else None
        if fit is not None and noise.rate > 0.0:
            fit = classify(
                sources.vectors, taught, n_classes, seed=seed, names=sources.names, transition=noise.matrix(n_classes)
            )
        evidence = Evidence(read, own, _true(unread[:], own, matrix), matrix)
        if fit is not None:
            experts = [*free, _by_texts(fit, taught, free, sources.described)]
        found, weights = fuse(experts, evidence, seed)
        if noise.rate > 0.0:
            noise = find_transition(chosen(found, read), own, Noise(rate=noise.rate), seed)
    out_of_fold = np.zeros(len(labels), bool)
    out_of_fold[rows] = True
    return Fusion(
        probabilities=found,
        out_of_fold=out_of_fold,
        c=None if fit is None else fit.c,
        names=0.0 if fit is None else fit.names,
        folds=0 if fit is None else fit.folds,
        noise=noise,
        weights=weights,
        said={each.name: np.where(each.known, each.probabilities.argmax(axis=1), -1) for each in experts},
    )


def _by_texts(fit: Classification, labels: Ints, free: list[Expert], described: Bools) -> Expert:
    """Return the text classifier as an expert.

    What it cannot know, classes without a label and images that it has learned from, is as another expert of the texts
    has it, or alike for all classes.
    """
    others = [expert.probabilities for expert in free if expert.name in ("taught", "names")]
    other = others[0] if others else 1.0 / fit.probabilities.shape[1]
    predicted = _filled(fit.probabilities, labels, other)
    seen = np.flatnonzero((labels >= 0) & ~fit.out_of_fold)
    for rows in blocks(len(seen), predicted.shape[1]):
        predicted[seen[rows]] = other if isinstance(other, (int, float)) else other[seen[rows]]
    return Expert(name="texts", probabilities=predicted, known=described, prior=TEXT_PRIOR, held=True)


def _filled(predicted: Probabilities, labels: Ints, other: Probabilities | float) -> Probabilities:
    """Return predictions, changed in place: classes without a label have what ``other`` says, or that number each."""
    absent = np.ones(predicted.shape[1], bool)
    absent[labels[labels >= 0]] = False

    for rows in blocks(len(predicted), predicted.shape[1]):
        own = predicted[rows]
        another = np.full_like(own, other) if isinstance(other, (int, float)) else other[rows]
        found = np.where(absent, another, own * (1.0 - another[:, absent].sum(axis=1, keepdims=True)))
        predicted[rows] = found / np.maximum(found.sum(axis=1, keepdims=True), FLOOR)
    return predicted


def _text_loss(fit: Classification | None, labels: Ints) -> float | None:
    """Return the log loss of labels that the text classifier has not seen; None without such labels."""
    if fit is None or not fit.out_of_fold.any():
        return None
    rows = np.flatnonzero(fit.out_of_fold)
    return float(-np.log(np.maximum(fit.probabilities[rows, labels[rows]], FLOOR)).mean())


def _true(free: Floats, labels: Ints, transition: Floats | None) -> Floats:
    """Return (n, K) probabilities of the true classes, given label-free evidence and labels."""
    if transition is None:
        return np.eye(free.shape[1], dtype=np.float32)[labels]
    joint = np.maximum(free, np.float32(FLOOR)) * transition.T[labels]
    return joint / joint.sum(axis=1, keepdims=True)
