"""Arms: each differs from the baseline in what it says, and no control sees more than the labels that are left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpt4image.artifacts import class_shares
from gpt4image.comparing.arms import PREPARE, Situation, applicable
from gpt4image.config.arms import ARMS, TEXT_ARMS
from gpt4image.data import NO_LABEL, ImageSet, MemorySource
from gpt4image.data.regions import Boxes
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training.text_targets import TextTargets
from gpt4image.training.training_data import TrainingData

CLASSES = ("a", "b", "c")
TRUE = np.array([0, 1, 2] * 6)
LEFT = np.where(np.arange(18) < 9, TRUE, NO_LABEL)
TRAIN = np.arange(18) < 15


def situation(labels: np.ndarray = LEFT, described: np.ndarray | None = None) -> Situation:
    images = ImageSet(
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
    return Situation(
        data=data,
        true_labels=TRUE,
        class_names=names,
        text_labels=lambda: np.full((18, 3), 1 / 3, np.float32),
        teacher=lambda indices: np.tile(np.array([0.2, 0.3, 0.5], np.float32), (len(indices), 1)),
        seed=0,
    )


def texts(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    assert data.text is not None
    vectors, described, _ = data.text.take(np.arange(18))
    return vectors.numpy(), described.numpy()


def test_every_arm_of_the_table_is_prepared_and_no_other() -> None:
    assert PREPARE.keys() == ARMS.keys()
    named = {name for arm in ARMS.values() for name in (*arm.against, arm.after or "baseline")}
    assert named <= ARMS.keys()
    assert all(arm.about and arm.phrase for arm in ARMS.values())
    assert all(ARMS[arm.after].after is None for arm in ARMS.values() if arm.after is not None)
    by_rank = ("fused", "asked", "text-labels", "aligned", "text-labels-aligned", "zero-shot", "fused-aligned")
    by_rank = (*by_rank, "asked-self-training", "fused-self-training")
    assert by_rank == TEXT_ARMS


@pytest.mark.parametrize("name", [name for name in ARMS if ARMS[name].classes and not ARMS[name].untold])
def test_every_arm_prepares_and_leaves_images_and_splits_alone(name: str) -> None:
    given = situation()
    data = PREPARE[name](given)
    assert data.image_set is given.data.image_set
    assert (data.text is not None) == ARMS[name].aligns
    assert (data.soft is None) == ARMS[name].labels_alone
    assert np.array_equal(data.labels, TRUE if name == "oracle" else LEFT), "only the oracle has the true ones"


def test_shuffled_gives_every_described_training_image_the_text_of_one_of_them() -> None:
    vectors, described = texts(PREPARE["shuffled"](situation()))
    assert described.tolist() == TRAIN.tolist()
    partners = vectors.argmax(1)[TRAIN]
    assert sorted(partners) == list(range(15)) and (partners != np.arange(15)).all()


def test_shuffled_within_class_stays_within_the_labels_that_are_left() -> None:
    vectors, described = texts(PREPARE["shuffled-within-class"](situation()))
    assert described.tolist() == (np.arange(18) < 9).tolist()
    assert (TRUE[vectors.argmax(1)[:9]] == TRUE[:9]).all()
    assert (vectors.argmax(1)[:9] != np.arange(9)).all()


def test_shuffled_texts_that_are_equal_stay_equal() -> None:
    given = situation()
    same = TextTargets.one_each(np.eye(18, 20, dtype=np.float32), np.array([0, 0, *range(2, 18)]))
    text = PREPARE["shuffled"](replace(given, data=replace(given.data, text=same))).text
    assert text is not None and sorted(text.identity[:15]) == [0, 0, *range(2, 15)]


def test_class_controls_use_wrong_labels_as_they_are() -> None:
    wrong = (TRUE + 1) % 3
    vectors, _ = texts(PREPARE["class-name"](situation(labels=wrong)))
    assert (vectors[:, :3].argmax(1) == wrong).all()


@pytest.mark.parametrize("name", ["class-name", "shuffled", "aligned"])
def test_controls_align_the_described_images_alone(name: str) -> None:
    some = np.arange(18) % 2 == 0
    _, described = texts(PREPARE[name](situation(labels=TRUE, described=some)))
    assert described[TRAIN].tolist() == some[TRAIN].tolist()


def test_shuffled_text_labels_are_those_of_another_image_of_the_class() -> None:
    soft = np.arange(54, dtype=np.float32).reshape(18, 3)
    data = PREPARE["text-labels-shuffled"](replace(situation(), text_labels=lambda: soft.copy()))
    assert data.soft is not None and data.text is None
    whose = data.soft[:, 0].astype(int) // 3
    assert sorted(whose) == list(range(18)) and (TRUE[whose] == TRUE).all()
    assert (whose[:9] != np.arange(9)).all() and (whose[9:] == np.arange(9, 18)).all()


def test_the_mean_text_label_of_a_class_is_that_of_its_labelled_images() -> None:
    soft = np.random.default_rng(0).dirichlet([1, 1, 1], 18).astype(np.float32)
    data = PREPARE["text-labels-class-mean"](replace(situation(), text_labels=lambda: soft.copy()))
    assert data.soft is not None and data.text is None
    for label in range(3):
        members = np.flatnonzero(label == LEFT)
        assert data.soft[members] == pytest.approx(np.tile(soft[members].mean(axis=0), (len(members), 1)))
    assert (data.soft[LEFT == NO_LABEL] == soft[LEFT == NO_LABEL]).all()


def test_the_mean_text_label_of_a_class_is_made_of_many_classes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_shares, "DENSE_CELLS", 0)
    dense = np.zeros((18, 100), np.float32)
    dense[np.arange(18), np.arange(18) % 4] = 1.0
    soft = class_shares.built(18, 100, lambda rows: dense[rows])
    assert isinstance(soft, class_shares.ClassShares)
    found = PREPARE["text-labels-class-mean"](replace(situation(), text_labels=lambda: soft)).soft
    members = np.flatnonzero(LEFT == 0)
    assert found is not None
    assert found[members] == pytest.approx(np.tile(dense[members].mean(axis=0), (len(members), 1)), abs=1e-3)


def test_zero_shot_takes_the_nearest_class_name_and_no_label() -> None:
    data = PREPARE["zero-shot"](situation(labels=np.full(18, NO_LABEL)))
    assert data.soft is not None
    assert data.soft[:3].argmax(1).tolist() == [0, 1, 2]
    assert (data.soft.sum(1) == 1).all()
    given = situation()
    assert given.data.text is not None
    lopsided = replace(given.data.text, matrix=given.data.text.matrix + 5 * np.eye(1, 20, 2, dtype=np.float32))
    data = PREPARE["zero-shot"](replace(given, data=replace(given.data, text=lopsided)))
    assert data.soft is not None and data.soft[:3].argmax(1).tolist() == [0, 1, 2], "what all texts share says nothing"


def test_self_training_keeps_half_of_a_given_label_and_touches_train_alone() -> None:
    data = PREPARE["self-training"](situation())
    assert data.soft is not None
    assert np.allclose(data.soft[1], [0.1, 0.65, 0.25])
    assert np.allclose(data.soft[10], [0.2, 0.3, 0.5])
    assert not data.soft[~TRAIN].any()


def test_arms_that_do_not_apply_are_left_out() -> None:
    def names(*, described: bool, scarce: bool, unlabelled: bool = False, answered: bool = False) -> tuple[str, ...]:
        return applicable(described=described, scarce=scarce, unlabelled=unlabelled, answered=answered)

    assert names(described=False, scarce=False) == ("baseline",)
    assert names(described=False, scarce=True) == ("baseline", "self-training", "oracle")
    assert names(described=False, scarce=True, unlabelled=True) == ("baseline", "self-training", "fixmatch", "oracle")
    assert names(described=False, scarce=False, answered=True) == ("baseline", "asked")
    known = names(described=True, scarce=False, answered=True)
    controls = {"text-labels-shuffled", "text-labels-class-mean", "fused-shuffled", "fused-class-mean"}
    of_regions = {"boxes-shuffled", "asked-shuffled", "tags", "boxes", "fused-aligned", "fused-class-name"}
    of_regions |= {"asked-self-training", "fused-self-training"}
    assert {"aligned", "text-labels", "text-labels-aligned", "asked", "fused", *controls} <= set(known)
    assert "self-training" not in known
    conditioned = applicable(described=True, scarce=False, unlabelled=False, answered=True, class_conditioned=True)
    assert set(known) - set(conditioned) == {"text-labels", "text-labels-aligned", "fused", *controls}
    most = names(described=True, scarce=True, unlabelled=True, answered=True)
    assert set(ARMS) - set(most) == controls | of_regions
    reading = {name for name in ARMS if ARMS[name].answers}
    assert set(ARMS) - set(names(described=True, scarce=True, unlabelled=True)) == controls | reading | of_regions


def test_without_any_label_only_arms_that_need_none_are_left() -> None:
    free = applicable(described=True, answered=True, labelled=False, scarce=True, unlabelled=True)
    assert free == ("asked", "fused", "zero-shot", "oracle")


def of_boxes(predictions: np.ndarray | None = None) -> tuple[Situation, Boxes]:
    """Six images of two classes, two of them annotated; the teacher has a box of its own for each."""
    corners = np.array([[0.1 * i, 0, 0.1 * i + 0.3, 0.5] for i in range(6)], np.float32)
    images = [(corners[i : i + 1], np.array([i % 2]), np.ones(1, np.float32)) for i in range(6)]
    human = Boxes.of_images(images)
    left = human.hidden(np.arange(6) >= 2)
    plain = situation()
    data = replace(
        plain.data,
        image_set=replace(plain.data.image_set.select(np.arange(6)), regions=human, splits=np.array(["train"] * 6)),
        usable=np.ones(6, bool),
        task=Detection(),
        labels=left,
        text=None,
    )
    rows = np.zeros((6, 4, 6), np.float32) if predictions is None else predictions
    found = replace(
        plain, data=data, true_labels=human, text_labels=lambda: human, teacher=lambda indices: rows[indices]
    )
    return found, human


def test_boxes_of_a_teacher_stand_in_for_labels() -> None:
    given, human = of_boxes()
    for arm in ("text-labels", "asked", "fused", "oracle"):
        data = PREPARE[arm](given)
        assert data.labels.content() == human.content() and data.soft is None
    assert PREPARE["baseline"](given).labels is given.data.labels


def test_features_are_aligned_beside_boxes_of_a_teacher() -> None:
    given, human = of_boxes()
    text = situation().data.text
    assert text is not None and given.class_names is not None
    given = replace(given, data=replace(given.data, text=replace(text, offsets=text.offsets[:7])))
    aligned = PREPARE["fused-aligned"](given)
    assert aligned.labels.content() == human.content() and aligned.text is given.data.text
    named = PREPARE["fused-class-name"](given)
    assert named.labels.content() == human.content() and named.text is not None
    vectors, described, _ = named.text.take(np.arange(6))
    expected = np.where(text.described[:6, None], given.class_names[[0, 1] * 3], 0)
    assert np.array_equal(described, text.described[:6]) and np.allclose(vectors, expected)
    alone = PREPARE["class-name"](given)
    assert alone.text is not None and alone.text.described.tolist() == [True, True, False, False, False, False]


def test_the_control_of_boxes_has_those_of_another_image_of_the_class() -> None:
    given, human = of_boxes()
    shuffled = PREPARE["boxes-shuffled"](given).labels
    assert np.array_equal(shuffled.labels, human.labels)
    assert np.array_equal(shuffled.corners[:2], human.corners[:2]), "annotated images keep their own"
    others = [2 + 2 * (1 - i // 2) + i % 2 for i in range(4)]
    assert np.allclose(shuffled.corners[2:], human.corners[others])


def test_self_training_takes_confident_boxes_of_the_baseline() -> None:
    predictions = np.zeros((6, 4, 6), np.float32)
    predictions[2, 0] = [0, 0, 0.5, 0.5, 0.9, 1]
    predictions[2, 1] = [0.5, 0.5, 1, 1, 0.3, 0]
    predictions[2, 2] = [0.5, 0, 1, 0.5, 0.1, 0]
    predictions[3, 0] = [0.5, 0.5, 1, 1, 0.4, 0]
    given, human = of_boxes(predictions)
    labels = PREPARE["self-training"](given).labels
    assert labels.known.tolist() == [True, True, True, False, False, False]
    assert np.array_equal(labels[:2].corners, human[:2].corners)
    corners, classes, weights = labels.image(2)
    assert classes.tolist() == [1, 0] and weights.tolist() == [1, 0], "an unsure box counts for nothing"
    assert np.allclose(corners, predictions[2, :2, :4])


def test_arms_of_boxes() -> None:
    def names(**there: bool) -> set[str]:
        kinds = {"described": False, "answered": False, "scarce": True, "unlabelled": True, **there}
        return set(applicable(task=Detection, **kinds))

    alone = {"baseline", "self-training", "oracle"}
    aligned = {"aligned", "shuffled", "shuffled-within-class", "class-name"}
    of_answers = {"asked", "fused", "boxes-shuffled"}
    assert names() == alone
    assert names(described=True) == alone | aligned, "texts without boxes give no boxes"
    assert names(answered=True) == alone | of_answers
    both = alone | aligned | of_answers | {"text-labels", "fused-aligned", "fused-class-name"}
    assert names(answered=True, described=True) == both
    assert names(described=True, scarce=False) == {"baseline"} | aligned
    assert names(answered=True, labelled=False) == {"asked", "fused", "boxes-shuffled", "oracle"}
    assert all(arm.about_task(boxes=True) for arm in map(ARMS.get, names(answered=True, described=True)) if arm)


def test_arms_of_masks_read_answers_tags_and_all_masks() -> None:
    def names(**there: bool) -> tuple[str, ...]:
        return applicable(**{"described": False, "scarce": True, "unlabelled": True} | there, task=Segmentation)

    assert names() == ("baseline", "self-training", "oracle", "tags", "boxes")
    learned = ("baseline", "asked", "self-training", "asked-self-training")
    assert names(answered=True) == (*learned, "oracle", "asked-shuffled", "tags", "boxes")
    assert set(names(answered=True, described=True)) - set(names(answered=True)) == {
        *("aligned", "text-labels", "fused", "text-labels-aligned", "shuffled"),
    }
