"""What each arm of a comparison learns from, on the same images, seeds and steps; the arms are in config/arms.py.

Controls get no more than the arm they control: only described images take part in their alignment. Where labels are
scarce or wrong, controls that need classes use the labels that are left, and images without one take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import Probabilities, built, chosen, mapped, scattered
from gpt4image.config.arms import ARMS, Arm
from gpt4image.data.image_set import NO_LABEL
from gpt4image.labelling.pseudo_boxes import best_threshold, pseudo_boxes
from gpt4image.labelling.text_vectors import Texts
from gpt4image.tasks.base import Labels, Task
from gpt4image.tasks.classification import Classification, one_hot
from gpt4image.training.targets import with_targets
from gpt4image.training.teacher import with_teacher
from gpt4image.training.text_targets import TextTargets
from gpt4image.training.training_data import TrainingData

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """What an arm is made from.

    Attributes:
        data: images, pixels, the labels left to train on, and the text targets of the descriptions.
        true_labels: (N, ...) labels before any were taken away or flipped; only for the oracle.
        class_names: (K, D) text embeddings of the class names, or None where no arm needs them.
        text_labels: returns targets predicted from the evidence of the arm by the labels left: (N, K), or boxes.
        teacher: returns predictions (n, ...) for images by the finished run that the arm comes after.
        seed: of the run.
        teacher_run: folder of that run; None where it comes after none.
        tagged: (N, ...) the labels left, with what is known of images without an annotation; only for the arm tags.
    """

    data: TrainingData
    true_labels: Labels
    class_names: NDArray[np.float32] | None
    text_labels: Callable[[], Labels]
    teacher: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    seed: int
    teacher_run: Path | None = None
    tagged: Labels = None


def _baseline(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=None)


def _aligned(given: Situation) -> TrainingData:
    return given.data


def _text_labels(given: Situation) -> TrainingData:
    return with_targets(replace(given.data, text=None), given.text_labels())


def _text_labels_aligned(given: Situation) -> TrainingData:
    return with_targets(given.data, given.text_labels())


def _zero_shot(given: Situation) -> TrainingData:
    vectors, described, _ = _text(given).take(np.arange(len(given.data.labels)))
    texts = Texts(vectors.numpy(), described.numpy(), given.class_names)
    names = texts.centred_names()
    if names is None:
        raise ValueError("the zero-shot arm needs embeddings of the class names")
    nearest = (texts.centred(_described(given))[:] @ names.T).argmax(axis=1)
    guess, n_classes = np.where(texts.described, nearest, NO_LABEL), len(given.data.classes)
    soft = built(len(guess), n_classes, lambda rows: one_hot(guess[rows], n_classes))
    return replace(given.data, text=None, soft=soft)


def _self_training(given: Situation) -> TrainingData:
    data, train = given.data, given.data.indices("train")
    if data.task.output == "mask":
        return _taught(replace(data, text=None), given)
    predicted = given.teacher(train)
    if data.task.boxes:
        val = data.indices("val")
        threshold = best_threshold(given.teacher(val), data.labels[val], len(data.classes)) if len(val) else None
        unknown = ~data.labels.known[train]
        boxes = pseudo_boxes(predicted[unknown], threshold)
        return with_targets(replace(data, text=None), data.labels.replaced(train[unknown], boxes))
    # Given labels keep half of the target, as in bootstrapping (Reed et al. 2015), for they may be wrong.
    soft = data.task.with_labels(predicted, data.labels[train], trust=0.5)
    return replace(data, text=None, soft=scattered(soft, train, len(data.labels), data.task.no_target))


def _text_labels_self_training(given: Situation) -> TrainingData:
    return _taught(_text_labels(given), given)


def _taught(data: TrainingData, given: Situation) -> TrainingData:
    if given.teacher_run is None:
        raise ValueError("this arm comes after another one")
    return with_teacher(data, given.teacher_run)


def _oracle(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=None, labels=given.true_labels)


def _shuffled(given: Situation) -> TrainingData:
    return replace(given.data, text=_text(given).of_others(*_partners(given, [_described(given)])))


def _shuffled_within_class(given: Situation) -> TrainingData:
    return replace(given.data, text=_text(given).of_others(*_partners(given, _labelled_by_class(given))))


def _class_name(given: Situation) -> TrainingData:
    if given.class_names is None:
        raise ValueError("the class-name arm needs embeddings of the class names")
    rows = np.where(_text(given).described, given.data.task.groups(given.data.labels), NO_LABEL)
    return replace(given.data, text=TextTargets.one_each(given.class_names, rows))


def _fused_class_name(given: Situation) -> TrainingData:
    return _class_name(replace(given, data=_text_labels_aligned(given)))


def _text_labels_shuffled(given: Situation) -> TrainingData:
    soft = given.text_labels()
    images, partners = _partners(given, _labelled_by_class(given))
    return replace(given.data, text=None, soft=_exchanged(soft, images, partners))


def _boxes_shuffled(given: Situation) -> TrainingData:
    data, boxes = given.data, given.text_labels()
    train = data.indices("train")
    taught = train[~data.labels.known[train] & boxes.known[train]]
    classes = data.task.groups(boxes)[taught]
    images, partners = _partners(given, [taught[classes == group] for group in np.unique(classes)])
    return with_targets(replace(data, text=None), boxes.replaced(images, boxes[partners]))


def _answers_shuffled(given: Situation) -> TrainingData:
    soft, train = given.text_labels(), given.data.indices("train")
    known = given.data.task.known(given.data.labels[train])
    there = mapped(chosen(soft, train), lambda found, _: (found >= 0).any(axis=1))
    images, partners = _partners(given, [train[~known & there]])
    labels = given.data.labels
    if labels.boxes is not None:
        labels = labels.with_boxes(labels.boxes.replaced(images, labels.boxes[partners]))
    return replace(given.data, text=None, soft=_exchanged(soft, images, partners), labels=labels)


def _tags(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=None, labels=given.tagged)


def _boxes(given: Situation) -> TrainingData:
    boxes = given.true_labels.around()
    labels = given.data.labels.with_boxes(boxes).shown_by_boxes()
    return replace(given.data, text=None, soft=None, labels=labels)


def _text_labels_class_mean(given: Situation) -> TrainingData:
    soft = given.text_labels()
    for members in _labelled_by_class(given):
        soft[members] = np.repeat(soft[members].mean(axis=0)[None], len(members), axis=0)
    return replace(given.data, text=None, soft=soft)


PREPARE: dict[str, Callable[[Situation], TrainingData]] = {
    "baseline": _baseline,
    "aligned": _aligned,
    "text-labels": _text_labels,
    "asked": _text_labels,
    "fused": _text_labels,
    "fused-aligned": _text_labels_aligned,
    "text-labels-aligned": _text_labels_aligned,
    "zero-shot": _zero_shot,
    "self-training": _self_training,
    "asked-self-training": _text_labels_self_training,
    "fused-self-training": _text_labels_self_training,
    "fixmatch": _baseline,
    "oracle": _oracle,
    "shuffled": _shuffled,
    "shuffled-within-class": _shuffled_within_class,
    "class-name": _class_name,
    "fused-class-name": _fused_class_name,
    "text-labels-shuffled": _text_labels_shuffled,
    "text-labels-class-mean": _text_labels_class_mean,
    "fused-shuffled": _text_labels_shuffled,
    "fused-class-mean": _text_labels_class_mean,
    "boxes-shuffled": _boxes_shuffled,
    "asked-shuffled": _answers_shuffled,
    "tags": _tags,
    "boxes": _boxes,
}
"""By the name of an arm, what gives the data that it trains on."""


def applicable(
    *,
    described: bool,
    answered: bool = False,
    labelled: bool = True,
    scarce: bool,
    unlabelled: bool,
    untold: bool = False,
    task: Task | type[Task] = Classification,
    class_conditioned: bool = False,
) -> tuple[str, ...]:
    """Return the arms that apply.

    Args:
        described: whether there are embeddings, for arms with text.
        answered: whether there are answers of a describer that was asked for the class.
        labelled: whether a training image with a label is left.
        scarce: whether labels are missing or wrong.
        unlabelled: whether training images without a label are left, for consistency training.
        untold: whether there are some of which there is no description or answer either.
        task: what is trained for.
        class_conditioned: whether the prompt names the class, so that texts must not give labels.
    """

    boxes = task.output == "boxes"

    def applies(arm: Arm) -> bool:
        if not arm.suits(task.output):
            return False
        # A teacher of boxes always starts from answers; texts only help to tell their class.
        text, answers = arm.text, arm.answers
        if boxes:
            text, answers = text and (arm.aligns or arm.evidence == "texts"), arm.text_labels
        enough = (described or not text) and not (arm.known_only if scarce else arm.scarce_only)
        enough = enough and (task.exclusive or boxes or not arm.exclusive) and (unlabelled or not arm.consistent)
        enough = enough and (answered or not answers) and (labelled or arm.label_free) and (untold or not arm.untold)
        return enough and (not arm.text_labels or (task.text_labels and not (class_conditioned and arm.text)))

    return tuple(name for name, arm in ARMS.items() if applies(arm))


def _text(given: Situation) -> TextTargets:
    if given.data.text is None:
        raise ValueError("this arm needs text targets")
    return given.data.text


def _described(given: Situation) -> NDArray[np.int64]:
    train = given.data.indices("train")
    return train[_text(given).described[train]]


def _rng(given: Situation) -> np.random.Generator:
    return np.random.default_rng((given.seed, 7))


def _labelled_by_class(given: Situation) -> list[NDArray[np.int64]]:
    described = _described(given)
    labels = given.data.task.groups(given.data.labels)[described]
    groups = (described[labels == label] for label in range(len(given.data.classes)))
    return [group for group in groups if len(group)]


def _exchanged(soft: Probabilities, images: Array, partners: Array) -> Probabilities:
    """Return targets of which images have those of their partners."""
    rows = np.arange(len(soft))
    rows[images] = partners
    return chosen(soft, rows)


def _partners(given: Situation, groups: Sequence[Array]) -> tuple[Array, Array]:
    """Return the images of all groups and, for each, another one of its group: itself where it is alone.

    A random cycle, since a permutation leaves one image of each group in its place, on average.
    """
    rng = _rng(given)
    orders = [rng.permutation(group) for group in groups]
    return np.concatenate(orders), np.concatenate([np.roll(order, 1) for order in orders])
