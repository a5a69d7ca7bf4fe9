"""The arms of a comparison: what each of them learns from, on the same images, seeds and steps.

Controls see no more than the arm they control: only described images take part in their alignment, and where labels
are scarce or wrong, controls that need classes use the labels that are left, and images without one take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.config import ARMS
from gpt4image.data.image_set import NO_LABEL
from gpt4image.labelling.text_vectors import Texts, named, side_by_side
from gpt4image.training.training_data import TextTargets, TrainingData

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """What an arm is made from.

    Attributes:
        data: images, pixels, the labels left to train on, and the text targets of the descriptions.
        true_labels: (N,) labels before any were taken away or flipped; for the oracle alone.
        class_names: (K, D) text embeddings of the class names, or None where no arm needs them.
        text_labels: returns soft targets (N, K) read off the descriptions by the labels left; given class
            probabilities (N, K) by a model, those of both.
        teacher: returns class probabilities (n, K) for images by the finished run that the arm comes after.
        seed: of the run.
    """

    data: TrainingData
    true_labels: NDArray[np.int64]
    class_names: NDArray[np.float32] | None
    text_labels: Callable[[NDArray[np.float32] | None], NDArray[np.float32]]
    teacher: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        about: one line for tables and reports.
        prepare: gives the data that the arm trains on.
        text: whether the arm needs embeddings of the descriptions.
        aligns: whether features are aligned to texts, its own or others.
        names: whether it needs embeddings of the class names: to align to them, or else as labels.
        text_labels: whether labels of its seed are read off the texts, by the labels that are left.
        scarce_only: whether it means something only where labels are missing or wrong.
        known_only: whether it means something only where they are all known and right.
        known_texts: whether it needs described images with a label.
        after: the arm whose finished run of the same seed it needs.
        options: options of train that it has of its own.
    """

    about: str
    prepare: Callable[[Situation], TrainingData]
    text: bool = True
    aligns: bool = False
    names: bool = False
    text_labels: bool = False
    scarce_only: bool = False
    known_only: bool = False
    known_texts: bool = False
    after: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """Whether it needs images without a target: without a label and, where it reads texts, without a text."""
        return "consistency" in self.options

    @property
    def labels_alone(self) -> bool:
        """Whether class targets are given labels: none is read off texts, found by class names or made by a run."""
        by_name = self.names and not self.aligns
        return not (self.text_labels or by_name or self.after is not None)


def _baseline(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=None)


def _aligned(given: Situation) -> TrainingData:
    return given.data


def _text_labels(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=given.text_labels(None))


def _text_labels_aligned(given: Situation) -> TrainingData:
    return replace(given.data, soft=given.text_labels(None))


def _text_labels_cotrained(given: Situation) -> TrainingData:
    train = given.data.indices("train")
    vision = np.zeros((len(given.data.labels), len(given.data.classes)), np.float32)
    vision[train] = given.teacher(train)
    return replace(given.data, text=None, soft=given.text_labels(vision))


def _zero_shot(given: Situation) -> TrainingData:
    vectors, described, _ = _text(given).take(np.arange(len(given.data.labels)))
    texts = Texts.one(vectors.numpy(), described.numpy(), given.class_names)
    names = named(texts)
    if names is None:
        raise ValueError("the zero-shot arm needs embeddings of the class names")
    nearest = (side_by_side(texts, _described(given)) @ names.T).argmax(axis=1)
    soft = one_hot(np.where(texts.described, nearest, NO_LABEL), len(given.data.classes))
    return replace(given.data, text=None, soft=soft)


def _self_training(given: Situation) -> TrainingData:
    train = given.data.indices("train")
    soft = np.zeros((len(given.data.labels), len(given.data.classes)), np.float32)
    soft[train] = given.teacher(train)
    own = one_hot(given.data.labels, len(given.data.classes))
    has_label = given.data.labels != NO_LABEL
    # Given labels keep half of the target, as in bootstrapping (Reed et al. 2015), for they may be wrong.
    soft[has_label] = 0.5 * soft[has_label] + 0.5 * own[has_label]
    return replace(given.data, text=None, soft=soft)


def _oracle(given: Situation) -> TrainingData:
    return replace(given.data, text=None, soft=None, labels=given.true_labels)


def _shuffled(given: Situation) -> TrainingData:
    return replace(given.data, text=_text(given).of_others(*_partners(given, [_described(given)])))


def _shuffled_within_class(given: Situation) -> TrainingData:
    return replace(given.data, text=_text(given).of_others(*_partners(given, _labelled_by_class(given))))


def _random(given: Situation) -> TrainingData:
    text = _text(given)
    vectors = _rng(given).standard_normal((len(given.data.labels), text.width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.where(text.described, np.arange(len(vectors)), -1)
    return replace(given.data, text=TextTargets.one_each(vectors, rows))


def _class_name(given: Situation) -> TrainingData:
    if given.class_names is None:
        raise ValueError("the class-name arm needs embeddings of the class names")
    rows = np.where(_text(given).described, given.data.labels, -1)
    return replace(given.data, text=TextTargets.one_each(given.class_names, rows))


def _class_mean(given: Situation) -> TrainingData:
    text = _text(given)
    means = np.zeros((len(given.data.classes), text.width), np.float32)
    rows = np.full(len(given.data.labels), -1, np.int64)
    for members in _labelled_by_class(given):
        label = given.data.labels[members[0]]
        means[label] = text.take(members)[0].numpy().mean(axis=0)
        rows[text.described & (given.data.labels == label)] = label
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return replace(given.data, text=TextTargets.one_each(means, rows))


def _text_labels_shuffled(given: Situation) -> TrainingData:
    soft = given.text_labels(None)
    images, partners = _partners(given, _labelled_by_class(given))
    soft[images] = soft[partners]
    return replace(given.data, text=None, soft=soft)


def _text_labels_class_mean(given: Situation) -> TrainingData:
    soft = given.text_labels(None)
    for members in _labelled_by_class(given):
        soft[members] = soft[members].mean(axis=0)
    return replace(given.data, text=None, soft=soft)


ALL: dict[str, Arm] = {
    "baseline": Arm(about="labels only", prepare=_baseline, text=False),
    "aligned": Arm(about="labels, and features aligned to the descriptions (the paper)", prepare=_aligned, aligns=True),
    "text-labels": Arm(
        about="soft labels read off the descriptions by the labels there are", prepare=_text_labels, text_labels=True
    ),
    "text-labels-aligned": Arm(
        about="text labels and alignment together", prepare=_text_labels_aligned, aligns=True, text_labels=True
    ),
    "text-labels-cotrained": Arm(
        about="a second round: text labels and the model trained on them correct each other",
        prepare=_text_labels_cotrained,
        text_labels=True,
        scarce_only=True,
        after="text-labels",
    ),
    "zero-shot": Arm(
        about="no label at all: the class name nearest to the description, both centred",
        prepare=_zero_shot,
        names=True,
        scarce_only=True,
    ),
    "self-training": Arm(
        about="soft labels predicted by the trained baseline (vision only)",
        prepare=_self_training,
        text=False,
        scarce_only=True,
        after="baseline",
    ),
    "fixmatch": Arm(
        about="labels, and consistency training on the images without one (vision only)",
        prepare=_baseline,
        text=False,
        scarce_only=True,
        options={"consistency": 1.0, "labelled_share": 0.25},  # searched, with the threshold, on validation
    ),
    "text-labels-fixmatch": Arm(
        about="text labels, and consistency training on the images without label and description",
        prepare=_text_labels,
        text_labels=True,
        scarce_only=True,
        options={"consistency": 1.0},
    ),
    "oracle": Arm(about="all true labels: the upper bound", prepare=_oracle, text=False, scarce_only=True),
    "shuffled": Arm(about="control: aligned to the description of any other image", prepare=_shuffled, aligns=True),
    "shuffled-within-class": Arm(
        about="control: aligned to the description of another image of the class",
        prepare=_shuffled_within_class,
        aligns=True,
        known_texts=True,
    ),
    "random": Arm(about="control: aligned to random unit vectors", prepare=_random, aligns=True),
    "class-name": Arm(
        about="control: aligned to the name of the class",
        prepare=_class_name,
        aligns=True,
        names=True,
        known_texts=True,
    ),
    "class-mean": Arm(
        about="control: aligned to the mean description of the class",
        prepare=_class_mean,
        aligns=True,
        known_texts=True,
    ),
    "text-labels-shuffled": Arm(
        about="control: the text label of another image of the class",
        prepare=_text_labels_shuffled,
        text_labels=True,
        known_only=True,
    ),
    "text-labels-class-mean": Arm(
        about="control: the mean text label of the class",
        prepare=_text_labels_class_mean,
        text_labels=True,
        known_only=True,
    ),
}


def applicable(
    *, described: bool, scarce: bool, unlabelled: bool, untold: bool, class_conditioned: bool = False
) -> tuple[str, ...]:
    """Return the arms that mean something.

    Args:
        described: whether there are embeddings, for arms with text.
        scarce: whether labels are missing or wrong.
        unlabelled: whether training images without a label are left, for consistency training.
        untold: whether training images without a label and without a text are.
        class_conditioned: whether the describer was told the class, so that texts must not give labels.
    """

    def means_something(arm: Arm) -> bool:
        enough = (described or not arm.text) and not (arm.known_only if scarce else arm.scarce_only)
        enough = enough and not (class_conditioned and arm.text_labels)
        return enough and (not arm.consistent or (untold if arm.text else unlabelled))

    return tuple(name for name in ARMS if means_something(ALL[name]))


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return (N, K) float32 one-hot rows; zeros for NO_LABEL."""
    targets = np.zeros((len(labels), classes), np.float32)
    has = np.flatnonzero(labels != NO_LABEL)
    targets[has, labels[has]] = 1.0
    return targets


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
    groups = (described[given.data.labels[described] == label] for label in range(len(given.data.classes)))
    return [group for group in groups if len(group)]


def _partners(given: Situation, groups: Sequence[Array]) -> tuple[Array, Array]:
    """Return the images of all groups and, for each, another one of its group: itself where it is alone.

    A random cycle, since a permutation leaves one image of each group in its place, on average.
    """
    rng = _rng(given)
    orders = [rng.permutation(group) for group in groups]
    return np.concatenate(orders), np.concatenate([np.roll(order, 1) for order in orders])
