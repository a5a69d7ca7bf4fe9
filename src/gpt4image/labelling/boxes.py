"""The teacher of detection: which of the boxes that were answered the annotators would draw, and of which class.

A multimodal LLM finds nearly every object, and more than annotators draw: packages that are cut off, small ones behind.
What annotators skip is their convention. It is learned on the few images that are annotated, by logistic regression on
eight features of an answered box (docs/research/log/box-convention.md says what each is worth). A prior stands for
PRIOR_BOXES more boxes: answered boxes as they are, drawn as often as PRIOR_WHOLE and PRIOR_TRUNCATED say, times the
share of the answers that have the box. So the teacher works from zero annotated images on.

Boxes of annotated images are predicted by folds of images that have not seen their image, so human boxes that look
wrong can be named. Corners stay as answered: a regression of their offsets gained nothing.

Legend: N images, M answered boxes, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.answers import overlap
from gpt4image.artifacts.probabilities import take
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.regions import Boxes
from gpt4image.labelling.evidence import SAME_OBJECT, AnsweredBoxes, Answers
from gpt4image.labelling.sources import predict_labels
from gpt4image.labelling.texts import FOLDS, Texts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
BoxEvidence = Literal["fused", "texts", "answers"]

PRIOR_WHOLE, PRIOR_TRUNCATED = 0.9, 0.6
PRIOR_BOXES = 10.0
MAX_PRIOR = 5_000  # answered boxes among which the prior is spread
LEAST = 0.5  # probability from which on a box is an object; others count neither as objects nor as background
_BORDER = 0.02  # of a side: a box that near to the border touches it
NEAR, ALIKE = 0.3, 0.6  # IoU from which on boxes are near, and from which on they are in the same place

Kind = Literal["missing", "false", "misplaced", "another class"]
KINDS: dict[Kind, str] = {
    "missing": "The teacher is confident of a box, and no human box is near.",
    "false": "No answered box is near the human box.",
    "misplaced": "The nearest answered box overlaps the human box only in part.",
    "another class": "Place and size agree; the teacher is confident of another class.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TaughtBoxes:
    """What the teacher says of N images: M answered boxes, whose weights are probabilities that annotators draw them,
    and of this class; (M,) the probability of any class; (M,) whether they match a human box: 1, 0, -1 if not known;
    and the weights of the sources of classes."""

    boxes: Boxes
    probable: Floats
    drawn: NDArray[np.int8]
    weights: dict[str, float]

    @property
    def likely(self) -> Bools:
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
    reference: Bools | None = None,
) -> TaughtBoxes:
    """Return the answered boxes of N images as these annotators would draw them.

    With ``evidence`` answers, boxes are as they were answered. Otherwise the convention is learned from ``human``
    boxes; the class is that of answers and texts together (fused), or of the texts. Images of a group (N,) are in one
    fold. Only answers and texts of the images of ``reference`` (N,) shape those of others.
    """
    matched = match(answered.boxes, human)
    drawn = _drawn(answered.boxes, human, matched)
    if evidence == "answers" or not len(drawn):
        share = answered.boxes.weights.astype(np.float64)
        return TaughtBoxes(boxes=answered.boxes, probable=share, drawn=drawn, weights={"answers": 1.0})
    groups = np.arange(len(human)) if groups is None else groups
    reference = np.ones(len(human), bool) if reference is None else reference
    of = answered.boxes.image_of
    probable = convention(features(answered), prior(answered), drawn, groups[of], seed, reference=reference[of])
    given = np.where(matched >= 0, human.labels[matched] if len(human.labels) else NO_LABEL, NO_LABEL)
    labels, sure, weights = _classes(answered.boxes, given, texts, n_classes, seed, evidence, reference)
    boxes = replace(answered.boxes, labels=labels, weights=(probable * sure).astype(np.float32))
    return TaughtBoxes(boxes=boxes, probable=probable, drawn=drawn, weights=weights)


def match(boxes: Boxes, human: Boxes) -> Ints:
    """Return (M,) the human box that each box is of, by its position; -1 for none.

    Boxes are paired one to one within their image, whatever their classes, so that as many as possible have an IoU of
    SAME_OBJECT.
    """
    from scipy.optimize import linear_sum_assignment

    found = np.full(len(boxes.labels), -1)
    for image in np.flatnonzero(np.diff(boxes.starts) * np.diff(human.starts)).tolist():
        shared = overlap(boxes.image(image)[0], human.image(image)[0])
        own, other = linear_sum_assignment(np.where(shared >= SAME_OBJECT, 1 + shared, 0), maximize=True)
        near = shared[own, other] >= SAME_OBJECT
        found[boxes.starts[image] + own[near]] = human.starts[image] + other[near]
    return found


def features(answered: AnsweredBoxes) -> Floats:
    """Return (M, 8) what may tell whether annotators draw an answered box; no label is read: votes, truncated, area,
    area beside the largest, aspect, share inside another box, distance from the centre, borders touched."""
    boxes = answered.boxes
    corners = boxes.corners.astype(np.float64)
    wide, high = np.maximum(corners[:, 2:] - corners[:, :2], 1e-4).T
    area = np.log(wide * high)
    largest, inside = np.zeros(len(area)), np.zeros(len(area))
    for image in np.flatnonzero(np.diff(boxes.starts)):
        own = slice(boxes.starts[image], boxes.starts[image + 1])
        shared = _inside(corners[own], corners[own])
        np.fill_diagonal(shared, 0.0)
        largest[own], inside[own] = area[own].max(), shared.max(axis=1)
    off_centre = np.linalg.norm((corners[:, :2] + corners[:, 2:]) / 2 - 0.5, axis=1)
    borders = (corners[:, :2] < _BORDER).sum(axis=1) + (corners[:, 2:] > 1 - _BORDER).sum(axis=1)
    aspect = np.abs(np.log(wide / high))
    columns = (boxes.weights, answered.truncated, area, area - largest, aspect, inside, off_centre, borders)
    return np.stack(columns, axis=1).astype(np.float64)


def prior(answered: AnsweredBoxes) -> Floats:
    """Return (M,) probability that annotators draw a box, before anything is known of them."""
    whole = PRIOR_WHOLE + (PRIOR_TRUNCATED - PRIOR_WHOLE) * answered.truncated
    return np.clip(answered.boxes.weights, 0, 1) * whole.astype(np.float64)


def convention(
    inputs: Floats, before: Floats, drawn: NDArray[np.int8], groups: Ints, seed: int, *, reference: Bools
) -> Floats:
    """Return (M,) probability that annotators draw a box, by (M, F) features and (M,) probabilities ``before`` labels.

    ``drawn`` (M,) is 1 drawn, 0 not, -1 not known; boxes of a group (M,) are predicted by labels of others; boxes of
    ``reference`` (M,) may stand for the prior.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    typical = np.flatnonzero(reference) if reference.any() else np.arange(len(inputs))
    inputs = np.asarray(StandardScaler().fit(inputs[typical]).transform(inputs))
    if len(typical) > MAX_PRIOR:
        typical = rng.choice(typical, MAX_PRIOR, replace=False)
    share, expected, known = PRIOR_BOXES / len(typical), before[typical], drawn >= 0
    names, own = np.unique(groups[known], return_inverse=True)
    folds = np.full(len(inputs), -1)
    folds[known] = (rng.permutation(len(names)) % FOLDS)[own]
    found = np.zeros(len(inputs))
    for fold in np.unique(folds):  # -1: boxes that no human box tells anything of
        rows = np.flatnonzero(known & (folds != fold))
        model = LogisticRegression(max_iter=1_000)
        model.fit(
            np.concatenate([inputs[rows], inputs[typical], inputs[typical]]),
            np.concatenate([drawn[rows], np.ones(len(typical)), np.zeros(len(typical))]),
            sample_weight=np.concatenate([np.ones(len(rows)), share * expected, share * (1 - expected)]),
        )
        found[folds == fold] = model.predict_proba(inputs[folds == fold])[:, 1]
    return found


def quality(boxes: Boxes, human: Boxes, chosen: Bools) -> dict[str, float | None]:
    """Return precision and recall of the chosen (M,) boxes at an IoU of 0.5 on annotated images; None without any."""
    images = human.known & boxes.known
    given = boxes.only(chosen & images[boxes.image_of])
    objects = int(((human.weights > 0) & images[human.image_of]).sum())
    drawn = _drawn(given, human, match(given, human))
    right, total = int((drawn == 1).sum()), int((drawn >= 0).sum())
    return {"precision": right / total if total else None, "recall": right / objects if objects else None}


def _drawn(boxes: Boxes, human: Boxes, matched: Ints) -> NDArray[np.int8]:
    """Return (M,) whether annotators drew a box: -1 where no human box can tell, or it lies in an ignored region."""
    drawn = np.where(human.known[boxes.image_of], matched >= 0, -1).astype(np.int8)
    if len(human.labels):
        drawn[(matched >= 0) & (human.weights[matched] == 0)] = -1
    ignored = human.only(human.weights == 0)
    for image in np.flatnonzero(np.diff(boxes.starts) * np.diff(ignored.starts)).tolist():
        own = slice(boxes.starts[image], boxes.starts[image + 1])
        covered = _inside(boxes.corners[own], ignored.image(image)[0]).max(axis=1) >= SAME_OBJECT
        drawn[own][covered & (matched[own] < 0)] = -1
    return drawn


def _inside(corners: NDArray[Any], others: NDArray[Any]) -> Floats:
    """Return (n, m) how much of each box lies inside of each of the others."""
    low = np.maximum(corners[:, None, :2], others[None, :, :2])
    high = np.minimum(corners[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    return common / np.maximum(np.prod(corners[:, 2:] - corners[:, :2], axis=1), 1e-8)[:, None]


def _classes(
    boxes: Boxes, given: Ints, texts: Texts | None, n_classes: int, seed: int, evidence: BoxEvidence, reference: Bools
) -> tuple[Ints, Floats, dict[str, float]]:
    """Return the class of each box (M,), its probability, and the weights of what was read; boxes of one image that
    were answered with one class are one question."""
    if n_classes == 1:
        return boxes.labels, np.ones(len(boxes.labels)), {}
    pairs, of_box = np.unique(np.stack([boxes.image_of, boxes.labels], axis=1), axis=0, return_inverse=True)
    labels = np.full(len(pairs), NO_LABEL)
    labels[of_box[given >= 0]] = given[given >= 0]
    said = Answers(pairs[:, 1], np.full(len(pairs), NO_LABEL), np.full(len(pairs), np.nan, np.float32))
    found = predict_labels(
        (Texts.none(len(boxes)) if texts is None else texts).take(pairs[:, 0]),
        labels,
        n_classes,
        seed,
        reference=reference[pairs[:, 0]],
        answers=said if evidence == "fused" else None,
        evidence=evidence,
        groups=pairs[:, 0],
    )
    probabilities = take(found.probabilities, of_box)
    known = probabilities.any(axis=1)
    sure = np.where(known, probabilities.max(axis=1).astype(np.float64), 1.0)
    return np.where(known, probabilities.argmax(axis=1), boxes.labels), sure, found.weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspect:
    """One suspected error in an image: its kind, of KINDS; how sure the evidence is, 0 to 1; corners and class of the
    human box, or of the teacher's where one is missing; and the teacher's box beside it, where it says something else.
    """

    kind: Kind
    image: int
    doubt: float
    corners: NDArray[np.float32]
    label: int
    taught: tuple[NDArray[np.float32], int] | None = None


def suspected_boxes(taught: TaughtBoxes, human: Boxes) -> list[Suspect]:
    """Return suspected errors of human boxes, the surest first; images without an answer or annotation have none."""
    images = np.flatnonzero(taught.boxes.known & human.known).tolist()
    found = [suspect for image in images for suspect in _suspected_in(taught, human, image)]
    return sorted(found, key=lambda suspect: -suspect.doubt)


def _suspected_in(taught: TaughtBoxes, human: Boxes, image: int) -> Iterator[Suspect]:
    own = slice(taught.boxes.starts[image], taught.boxes.starts[image + 1])
    (answered, classes, sure), probable = taught.boxes.image(image), taught.probable[own]
    given, labels, weights = human.image(image)
    shared = overlap(answered, given)
    counts = taught.likely[own] & (taught.drawn[own] >= 0)  # not in an ignored region
    for i in np.flatnonzero(counts & (shared.max(axis=1, initial=0.0) < NEAR)):
        yield Suspect(kind="missing", image=image, doubt=float(probable[i]), corners=answered[i], label=int(classes[i]))
    judged = np.flatnonzero(weights > 0)
    # Where the answers know none of the other boxes of the image, they may have missed this one too.
    alike = (shared.max(axis=0, initial=0.0)[judged] >= ALIKE).sum()
    trusted = min(1.0, (1 + alike) / (2 + len(judged) - 1))
    for j in judged:
        best = int(shared[:, j].argmax()) if len(answered) else -1
        same = float(shared[best, j]) if len(answered) else 0.0
        kind: Kind
        if same < NEAR:
            kind, doubt = "false", trusted * (1.0 - same)
        elif same < ALIKE:
            kind, doubt = "misplaced", float(probable[best]) * (1.0 - same)
        elif classes[best] != labels[j]:
            kind, doubt = "another class", float(sure[best])
        else:
            continue
        beside = None if kind == "false" else (answered[best], int(classes[best]))
        yield Suspect(kind=kind, image=image, doubt=doubt, corners=given[j], label=int(labels[j]), taught=beside)
