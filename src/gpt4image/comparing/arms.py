"""Training data of each arm of the table in config/arms.py: the same images, seeds and steps.

Controls get no more than the arm they control: only described images take part in their alignment. Where labels are
scarce or wrong, the class-name control uses the labels that are left, and images without one take no part.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import from_blocks
from gpt4image.config.arms import ARMS, Arm
from gpt4image.data import annotation
from gpt4image.data.dataset import NO_LABEL
from gpt4image.labelling.texts import Texts
from gpt4image.tasks.base import Labels, Task
from gpt4image.tasks.classification import Classification, one_hot
from gpt4image.training.targets import with_targets
from gpt4image.training.training_data import TextTargets, TrainingData


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmInputs:
    """The data, labels and predictions that an arm is made from.

    ``data`` has the labels left to train on, ``true_labels`` are for the oracle alone, ``class_names`` are (K, D) text
    embeddings. ``targets`` predicts targets from the evidence of the arm, (N, K) or boxes.
    """

    data: TrainingData
    true_labels: Labels
    class_names: Any
    targets: Callable[[], Labels]
    seed: int

    @property
    def text(self) -> TextTargets:
        """The text targets of an arm that needs some: the plan refuses it without."""
        text: Any = self.data.text
        return text

    @property
    def described(self) -> NDArray[np.int64]:
        """The training images with a description."""
        train = self.data.indices("train")
        return train[self.text.described[train]]


def training_data(arm: Arm, given: ArmInputs) -> TrainingData:
    """Return what an arm trains on."""
    data = given.data
    if arm.bound == "reference":
        data = replace(data, soft=None, labels=given.true_labels)
    elif arm.evidence == "names":
        data = _zero_shot(given)
    elif arm.evidence:
        data = with_targets(data, given.targets())
    else:
        data = replace(data, soft=None)
    return replace(data, text=_aligned_to(arm, given))


def _aligned_to(arm: Arm, given: ArmInputs) -> TextTargets | None:
    if arm.aligned_to == "names":
        rows = np.where(given.text.described, annotation.groups(given.data.labels), NO_LABEL)
        return TextTargets.one_each(given.class_names, rows)
    if arm.aligned_to == "shuffled":
        # A random cycle, since a permutation leaves one image in its place, on average.
        order = np.random.default_rng((given.seed, 7)).permutation(given.described)
        return given.text.of_others(order, np.roll(order, 1))
    return given.text if arm.aligned_to else None


def _zero_shot(given: ArmInputs) -> TrainingData:
    vectors, described, _ = given.text.take(np.arange(len(given.data.labels)))
    texts = Texts(vectors.numpy(), described.numpy(), given.class_names)
    names: Any = texts.centred_names()  # there are embeddings of the class names
    nearest = (texts.centred(given.described)[:] @ names.T).argmax(axis=1)
    guess, n_classes = np.where(texts.described, nearest, NO_LABEL), len(given.data.classes)
    soft = from_blocks(len(guess), n_classes, lambda rows: one_hot(guess[rows], n_classes))
    return replace(given.data, soft=soft)


def lacking(
    arm: Arm,
    *,
    described: bool,
    answered: bool = False,
    labelled: bool = True,
    scarce: bool,
    unlabelled: bool,
    task: Task | type[Task] = Classification,
    class_conditioned: bool = False,
) -> str:
    """Return what an arm would need, or nothing where it applies; ``scarce``: labels are missing or wrong."""
    boxes, masks = task.output == "boxes", task.output == "mask"
    text, answers, part = arm.text, arm.answers, "boxes" if boxes else "class"
    if boxes:  # a teacher of boxes always starts from answers; texts only help to tell their class
        text, answers = arm.aligns or arm.evidence == "texts", arm.predicts_targets
    targets = arm.predicts_targets and (not task.learns_targets or (class_conditioned and arm.text))
    needs = {
        "--task detection" if arm.boxes_only else "a task of classes": not arm.suits(task.output),
        "--embeddings DIR, made by `gpt4image encode`": text and not described,
        f"--answers STORE, made by `gpt4image describe --ask {part}`": answers and not answered,
        "labels": not labelled and not arm.label_free,
        "training images without a label": arm.consistent and not unlabelled,
        "--labelled-images" if boxes or masks else "--labels-per-class or --label-noise": arm.scarce_only
        and not scarce,
        "one class per image": arm.exclusive and not (task.exclusive or boxes),
        "texts that do not name the class": targets,
    }
    return next((need for need, missing in needs.items() if missing), "")


def applicable(**there: Any) -> tuple[str, ...]:
    """Return the arms that apply; see ``lacking``."""
    return tuple(name for name, arm in ARMS.items() if not lacking(arm, **there))
