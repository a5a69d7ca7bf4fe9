"""Arms: each differs from the baseline in what it says, and no control sees more than the labels that are left."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt4image.comparing.arms import ArmInputs, applicable, training_data
from gpt4image.config.arms import ARMS, TEXT_ARMS
from gpt4image.data import NO_LABEL, Dataset, MemorySource
from gpt4image.data.regions import Boxes
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training.training_data import TextTargets, TrainingData

CLASSES = ("a", "b", "c")
TRUE = np.array([0, 1, 2] * 6)
LEFT = np.where(np.arange(18) < 9, TRUE, NO_LABEL)
TRAIN = np.arange(18) < 15


def arm_inputs(labels: np.ndarray = LEFT, described: np.ndarray | None = None) -> ArmInputs:
    images = Dataset(
        spec="made",
        classes=CLASSES,
        keys=tuple(f"k{i}" for i in range(18)),
        labels=TRUE,
        splits=np.where(TRAIN, "train", "test"),
        source=MemorySource([bytes([i]) for i in range(18)]),
        rows=np.arange(18),
    )
    described = np.ones(18, bool) if described is None else described
    matrix = np.eye(18, 20, dtype=np.float32)
    rows = np.where(described, np.arange(18), -1)
    data = TrainingData(
        image_set=images,
        pixels=None,  # type: ignore[arg-type]
        usable=np.ones(18, bool),
        task=Classification(),
        labels=labels,
        text=TextTargets.one_each(matrix, rows),
    )
    names = np.zeros((3, 20), np.float32)
    names[[0, 1, 2], [0, 1, 2]] = 1.0
    return ArmInputs(
        data=data, true_labels=TRUE, class_names=names, targets=lambda: np.full((18, 3), 1 / 3, np.float32), seed=0
    )


def texts(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    assert data.text is not None
    vectors, described, _ = data.text.take(np.arange(18))
    return vectors.numpy(), described.numpy()


def prepared(name: str, given: ArmInputs | None = None) -> TrainingData:
    return training_data(ARMS[name], given or arm_inputs())


def test_the_table_is_whole() -> None:
    named = {name for arm in ARMS.values() for name in arm.against}
    assert named <= ARMS.keys() and all(arm.about and arm.phrase for arm in ARMS.values())
    assert TEXT_ARMS == ("fused", "asked", "text-labels", "aligned", "zero-shot", "fused-aligned")


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if not arm.boxes_only])
def test_every_arm_prepares_and_leaves_images_and_splits_alone(name: str) -> None:
    given, arm = arm_inputs(), ARMS[name]
    data = prepared(name, given)
    assert data.image_set is given.data.image_set
    assert (data.text is not None) == arm.aligns
    assert (data.soft is None) == (not arm.evidence)
    assert np.array_equal(data.labels, TRUE if name == "oracle" else LEFT), "only the oracle has the true ones"


def test_shuffled_gives_every_described_training_image_the_text_of_one_of_them() -> None:
    vectors, described = texts(prepared("shuffled"))
    assert described.tolist() == TRAIN.tolist()
    partners = vectors.argmax(1)[TRAIN]
    assert sorted(partners) == list(range(15)) and (partners != np.arange(15)).all()
    given = arm_inputs()
    same = TextTargets.one_each(np.eye(18, 20, dtype=np.float32), np.array([0, 0, *range(2, 18)]))
    text = prepared("shuffled", replace(given, data=replace(given.data, text=same))).text
    assert text is not None and sorted(text.identity[:15]) == [0, 0, *range(2, 15)], "equal texts stay equal"


@pytest.mark.parametrize("name", ["class-name", "shuffled", "aligned"])
def test_controls_align_the_described_images_alone(name: str) -> None:
    some = np.arange(18) % 2 == 0
    _, described = texts(prepared(name, arm_inputs(labels=TRUE, described=some)))
    assert described[TRAIN].tolist() == some[TRAIN].tolist()


def test_zero_shot_takes_the_nearest_class_name_and_no_label() -> None:
    data = prepared("zero-shot", arm_inputs(labels=np.full(18, NO_LABEL)))
    assert data.soft is not None
    assert data.soft[:3].argmax(1).tolist() == [0, 1, 2]
    assert (data.soft.sum(1) == 1).all()
    given = arm_inputs()
    lopsided = replace(given.text, matrix=given.text.matrix + 5 * np.eye(1, 20, 2, dtype=np.float32))
    data = prepared("zero-shot", replace(given, data=replace(given.data, text=lopsided)))
    assert data.soft is not None and data.soft[:3].argmax(1).tolist() == [0, 1, 2], "what all texts share says nothing"


OF_TEXT = {"aligned", "text-labels", "shuffled", "class-name"}


@pytest.mark.parametrize(
    ("there", "arms"),
    [
        ({}, {"baseline"}),
        (
            {"described": True, "answered": True, "class_conditioned": True},
            {"baseline", "asked", *OF_TEXT} - {"text-labels"},
        ),
        ({"described": True, "answered": True, "scarce": True, "unlabelled": True}, set(ARMS) - {"fused-aligned"}),
        (
            {"described": True, "answered": True, "labelled": False, "scarce": True, "unlabelled": True},
            {"asked", "fused", "zero-shot", "oracle"},
        ),
        ({"task": Detection, "described": True}, {"baseline", "aligned", "shuffled", "class-name"}),
        (
            {"task": Detection, "scarce": True, "answered": True, "described": True},
            {"baseline", "oracle", "asked", "fused", "fused-aligned", *OF_TEXT},
        ),
        ({"task": Detection, "scarce": True, "answered": True, "labelled": False}, {"asked", "fused", "oracle"}),
        (
            {"task": Segmentation, "scarce": True, "unlabelled": True, "answered": True, "described": True},
            {"baseline", "asked", "oracle", "aligned", "text-labels", "fused", "shuffled"},
        ),
    ],
)
def test_arms_that_do_not_apply_are_left_out(there: dict[str, Any], arms: set[str]) -> None:
    found = applicable(**{"described": False, "scarce": False, "unlabelled": False} | there)
    assert set(found) == arms
    assert list(found) == [name for name in ARMS if name in arms]


def of_boxes() -> tuple[ArmInputs, Boxes]:
    """Six images of two classes, two of them annotated; the teacher has a box of its own for each."""
    corners = np.array([[0.1 * i, 0, 0.1 * i + 0.3, 0.5] for i in range(6)], np.float32)
    images = [(corners[i : i + 1], np.array([i % 2]), np.ones(1, np.float32)) for i in range(6)]
    human = Boxes.of_images(images)
    left = human.hidden(np.arange(6) >= 2)
    plain = arm_inputs()
    data = replace(
        plain.data,
        image_set=replace(plain.data.image_set.select(np.arange(6)), regions=human, splits=np.array(["train"] * 6)),
        usable=np.ones(6, bool),
        task=Detection(),
        labels=left,
        text=None,
    )
    return replace(plain, data=data, true_labels=human, targets=lambda: human), human


def test_boxes_of_a_teacher_stand_in_for_labels_and_features_are_aligned_beside_them() -> None:
    given, human = of_boxes()
    for arm in ("text-labels", "asked", "fused", "oracle"):
        data = prepared(arm, given)
        assert data.labels.content() == human.content() and data.soft is None
    assert prepared("baseline", given).labels is given.data.labels
    text = arm_inputs().data.text
    assert text is not None and given.class_names is not None
    given = replace(given, data=replace(given.data, text=replace(text, offsets=text.offsets[:7])))
    aligned = prepared("fused-aligned", given)
    assert aligned.labels.content() == human.content() and aligned.text is given.data.text
    alone = prepared("class-name", given)
    assert alone.text is not None and alone.text.described.tolist() == [True, True, False, False, False, False]
    vectors, _, _ = alone.text.take(np.arange(2))
    assert np.allclose(vectors, given.class_names[[0, 1]]), "the name of the rarest class"
