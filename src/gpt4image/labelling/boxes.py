"""The teacher of detection: which of the boxes that were answered the annotators would draw, and of which class.

A multimodal LLM finds nearly every object, and more than annotators draw: packages that are cut off, small ones behind.
What annotators skip is their convention. It is learned on the few images that are annotated, by logistic regression on
eight features of an answered box (docs/research/log/box-convention.md says what each is worth). A prior stands for
PRIOR_BOXES more boxes: answered boxes as they are, drawn as often as PRIOR_WHOLE and PRIOR_TRUNCATED say, times the
share of the answers that have the box. So the teacher works from zero annotated images on.

Boxes of annotated images are predicted by folds of images that have not seen their image. Corners stay as answered: a
regression of their offsets gained nothing.

Legend: N images, M answered boxes, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.box_formats import overlap
from gpt4image.artifacts.class_shares import chosen
from gpt4image.data.image_set import NO_LABEL
from gpt4image.data.regions import Boxes
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.box_answers import AnsweredBoxes
from gpt4image.labelling.predictions import predict_labels
from gpt4image.labelling.text_classifier import FOLDS
from gpt4image.labelling.text_vectors import Texts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BoxEvidence = Literal["fused", "texts", "answers"]

FEATURES = (
    "votes",
    "truncated",
    "area",
    "area beside the largest",
    "aspect",
    "inside another",
    "off centre",
    "borders",
)
PRIOR_WHOLE, PRIOR_TRUNCATED = 0.9, 0.6
PRIOR_BOXES = 10.0
MAX_PRIOR = 5_000  # answered boxes among which the prior is spread
SAME = 0.5
"""IoU from which on two boxes are of one object."""
LEAST = 0.5
"""Probability from which on a box is an object; regions of others count neither as objects nor as background."""
_BORDER = 0.02  # of a side: a box that near to the border touches it


@dataclass(frozen=True, kw_only=True, eq=False)
class TaughtBoxes:
    """What the teacher says of N images.

    Attributes:
        boxes: the answered boxes, M in all; weights are probabilities that annotators draw them, and of this class.
        probable: (M,) probability that annotators draw them, of whatever class.
        drawn: (M,) which of them match a human box, 1, or none, 0; -1 where no human box can tell.
        weights: of each source of evidence of the classes.
    """

    boxes: Boxes
    probable: Floats
    drawn: NDArray[np.int8]
    weights: dict[str, float]

    @property
    def likely(self) -> NDArray[np.bool_]:
        """(M,) which boxes count as objects."""
        return np.asarray(self.probable >= LEAST)

    def targets(self, human: Boxes) -> Boxes:
        """Return what a detector learns from: human boxes where there are some, else those of the teacher.

        Boxes that are not likely become regions that count for nothing.
        """
        sure = np.where(self.likely, self.boxes.weights, 0).astype(np.float32)
        unknown = np.flatnonzero(~human.known)
        return human.replaced(unknown, replace(self.boxes, weights=sure)[unknown])


def teach(
    answered: AnsweredBoxes,
    human: Boxes,
    texts: Texts | None,
    n_classes: int,
    *,
    seed: int,
    evidence: BoxEvidence = "fused",
    groups: Ints | None = None,
    reference: NDArray[np.bool_] | None = None,
) -> TaughtBoxes:
    """Return the answered boxes as these annotators would draw them.

    Args:
        answered: about N images.
        human: boxes of the same images, where they are annotated.
        texts: of the images; None without.
        n_classes: K.
        seed: of the folds.
        evidence: answers are boxes as they were answered. Otherwise the convention is learned; the class is that of
            answers and texts together (fused), or of the texts.
        groups: (N,) images of a group, such as copies, are in one fold; each is its own without it.
        reference: (N,) images whose answers and texts may shape those of others (train, say); all without it.

    Raises:
        TableError: texts are to tell the class, and no two described images have different ones.
    """
    matched = match(answered.boxes, human)
    drawn = _drawn(answered.boxes, human, matched)
    if evidence == "answers" or not len(drawn):
        share = answered.boxes.weights.astype(np.float64)
        return TaughtBoxes(boxes=answered.boxes, probable=share, drawn=drawn, weights={"answers": 1.0})
    groups = np.arange(len(human)) if groups is None else groups
    reference = np.ones(len(human), bool) if reference is None else reference
    image_of = answered.boxes.image_of
    probable = convention(
        features(answered), prior(answered), drawn, groups[image_of], seed, reference=reference[image_of]
    )
    given = np.where(matched >= 0, human.labels[matched] if len(human.labels) else NO_LABEL, NO_LABEL)
    labels, sure, weights = _classes(answered.boxes, given, texts, n_classes, seed, evidence, reference)
    boxes = replace(answered.boxes, labels=labels, weights=(probable * sure).astype(np.float32))
    return TaughtBoxes(boxes=boxes, probable=probable, drawn=drawn, weights=weights)


def match(boxes: Boxes, human: Boxes, least: float = SAME) -> Ints:
    """Return (M,) the human box that each box is of, by its position; -1 for none.

    Boxes are paired one to one within their image, whatever their classes, so that as many as possible have an IoU of
    ``least``.
    """
    from scipy.optimize import linear_sum_assignment

    found = np.full(len(boxes.labels), -1)
    for image in np.flatnonzero(np.diff(boxes.starts) * np.diff(human.starts)).tolist():
        shared = overlap(boxes.image(image)[0], human.image(image)[0])
        own, other = linear_sum_assignment(np.where(shared >= least, 1 + shared, 0), maximize=True)
        near = shared[own, other] >= least
        found[boxes.starts[image] + own[near]] = human.starts[image] + other[near]
    return found


def features(answered: AnsweredBoxes) -> Floats:
    """Return (M, 8) what may tell whether annotators draw an answered box; see FEATURES. No label is read."""
    boxes = answered.boxes
    corners = boxes.corners.astype(np.float64)
    wide, high = np.maximum(corners[:, 2:] - corners[:, :2], 1e-4).T
    area = np.log(wide * high)
    largest, inside = np.zeros(len(area)), np.zeros(len(area))
    for image in np.flatnonzero(np.diff(boxes.starts)):
        own = slice(boxes.starts[image], boxes.starts[image + 1])
        largest[own], inside[own] = area[own].max(), _inside_another(corners[own])
    centre = (corners[:, :2] + corners[:, 2:]) / 2 - 0.5
    borders = (corners[:, :2] < _BORDER).sum(axis=1) + (corners[:, 2:] > 1 - _BORDER).sum(axis=1)
    aspect = np.abs(np.log(wide / high))
    off_centre = np.linalg.norm(centre, axis=1)
    columns = (boxes.weights, answered.truncated, area, area - largest, aspect, inside, off_centre, borders)
    return np.stack(columns, axis=1).astype(np.float64)


def prior(answered: AnsweredBoxes) -> Floats:
    """Return (M,) probability that annotators draw a box, before anything is known of them."""
    whole = PRIOR_WHOLE + (PRIOR_TRUNCATED - PRIOR_WHOLE) * answered.truncated
    return np.clip(answered.boxes.weights, 0, 1) * whole.astype(np.float64)


def convention(
    inputs: Floats, before: Floats, drawn: NDArray[np.int8], groups: Ints, seed: int, *, reference: NDArray[np.bool_]
) -> Floats:
    """Return (M,) probability that annotators draw a box.

    Args:
        inputs: (M, F) features.
        before: (M,) the same without labels.
        drawn: (M,) 1 drawn, 0 not, -1 not known.
        groups: (M,) boxes of a group are predicted by labels of others.
        seed: of the folds, and of the boxes that stand for the prior.
        reference: (M,) boxes that may stand for it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    typical = np.flatnonzero(reference) if reference.any() else np.arange(len(inputs))
    inputs = np.asarray(StandardScaler().fit(inputs[typical]).transform(inputs))
    if len(typical) > MAX_PRIOR:
        typical = rng.choice(typical, MAX_PRIOR, replace=False)
    share = PRIOR_BOXES / len(typical)
    expected = before[typical]
    known = drawn >= 0

    def predicted(rows: Ints, wanted: NDArray[np.bool_]) -> Floats:
        model = LogisticRegression(max_iter=1_000)
        model.fit(
            np.concatenate([inputs[rows], inputs[typical], inputs[typical]]),
            np.concatenate([drawn[rows], np.ones(len(typical)), np.zeros(len(typical))]),
            sample_weight=np.concatenate([np.ones(len(rows)), share * expected, share * (1 - expected)]),
        )
        return model.predict_proba(inputs[wanted])[:, 1]

    found = np.zeros(len(inputs))
    found[~known] = predicted(np.flatnonzero(known), ~known) if (~known).any() else 0.0
    names, own = np.unique(groups[known], return_inverse=True)
    folds = np.full(len(inputs), -1)
    folds[known] = (rng.permutation(len(names)) % FOLDS)[own]
    for fold in np.unique(folds[known]):
        found[folds == fold] = predicted(np.flatnonzero(known & (folds != fold)), folds == fold)
    return found


def quality(boxes: Boxes, human: Boxes, chosen: NDArray[np.bool_]) -> dict[str, float | None]:
    """Return precision and recall of the chosen (M,) boxes at an IoU of SAME on annotated images; None without any."""
    images = human.known & boxes.known
    given = boxes.only(chosen & images[boxes.image_of])
    sure = human.only((human.weights > 0) & images[human.image_of])
    drawn = _drawn(given, human, match(given, human))
    right, total = int((drawn == 1).sum()), int((drawn >= 0).sum())
    objects = len(sure.labels)
    return {"precision": right / total if total else None, "recall": right / objects if objects else None}


def _drawn(boxes: Boxes, human: Boxes, matched: Ints) -> NDArray[np.int8]:
    """Return (M,) whether annotators drew a box: -1 where no human box can tell, or it lies in an ignored region."""
    drawn = np.where(human.known[boxes.image_of], matched >= 0, -1).astype(np.int8)
    if len(human.labels):
        drawn[(matched >= 0) & (human.weights[matched] == 0)] = -1
    ignored = human.only(human.weights == 0)
    for image in np.flatnonzero(np.diff(boxes.starts) * np.diff(ignored.starts)).tolist():
        own = slice(boxes.starts[image], boxes.starts[image + 1])
        covered = _inside(boxes.corners[own], ignored.image(image)[0]).max(axis=1) >= SAME
        drawn[own][covered & (matched[own] < 0)] = -1
    return drawn


def _inside_another(corners: Floats) -> Floats:
    """Return (n,) how much of each box lies inside of another one."""
    shared = _inside(corners, corners)
    np.fill_diagonal(shared, 0.0)
    return shared.max(axis=1)


def _inside(corners: NDArray[Any], others: NDArray[Any]) -> Floats:
    """Return (n, m) how much of each box lies inside of each of the others."""
    low = np.maximum(corners[:, None, :2], others[None, :, :2])
    high = np.minimum(corners[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    return common / np.maximum(np.prod(corners[:, 2:] - corners[:, :2], axis=1), 1e-8)[:, None]


def _classes(
    boxes: Boxes,
    given: Ints,
    texts: Texts | None,
    n_classes: int,
    seed: int,
    evidence: BoxEvidence,
    reference: NDArray[np.bool_],
) -> tuple[Ints, Floats, dict[str, float]]:
    """Return the class of each box (M,), its probability, and the weights of what was read.

    Boxes of one image that were answered with one class are one question: they have one text and one answer. Others of
    the image have its text too; in another fold they would tell its label.
    """
    if n_classes == 1:
        return boxes.labels, np.ones(len(boxes.labels)), {}
    pairs, of_box = np.unique(np.stack([boxes.image_of, boxes.labels], axis=1), axis=0, return_inverse=True)
    labels = np.full(len(pairs), NO_LABEL)
    labels[of_box[given >= 0]] = given[given >= 0]
    nothing = np.full(len(pairs), NO_LABEL)
    said = Answers(pairs[:, 1], nothing, np.full(len(pairs), np.nan, np.float32))
    if texts is None:
        texts = Texts(np.zeros((len(boxes), 1), np.float32), np.zeros(len(boxes), bool))
    found = predict_labels(
        texts.take(pairs[:, 0]),
        labels,
        n_classes,
        seed,
        reference=reference[pairs[:, 0]],
        answers=said if evidence == "fused" else None,
        evidence=evidence,
        groups=pairs[:, 0],
    )
    probabilities = chosen(found.probabilities, of_box)
    known = probabilities.any(axis=1)
    sure = np.where(known, probabilities.max(axis=1).astype(np.float64), 1.0)
    return np.where(known, probabilities.argmax(axis=1), boxes.labels), sure, found.weights
