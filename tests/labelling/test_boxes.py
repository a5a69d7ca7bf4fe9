"""The teacher of boxes: votes, what annotators skip, suspected errors, and boxes that a detector predicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.config import ImportDescriptionsConfig
from gpt4image.data import annotation, load_dataset
from gpt4image.data.regions import Boxes, ImageBoxes
from gpt4image.data.splits import keep_labels_per_class
from gpt4image.describing.descriptions import import_descriptions
from gpt4image.labelling.boxes import TaughtBoxes, convention, features, prior, quality, suspected_boxes, teach
from gpt4image.labelling.evidence import AnsweredBoxes, read_boxes
from gpt4image.labelling.texts import Texts
from worlds import NAMES, store_boxes

CLASSES = 3


def simulated(images: int, seed: int, each: int = 4) -> tuple[AnsweredBoxes, Boxes]:
    """Return answered boxes of images, and those that annotators drew, who skip boxes at a border."""
    rng = np.random.default_rng(seed)
    answered: list[ImageBoxes | None] = []
    human: list[ImageBoxes | None] = []
    for _ in range(images):
        corner = 0.05 + rng.random((each, 2)) * 0.5
        size = 0.1 + rng.random((each, 2)) * 0.3
        corners = np.concatenate([corner, corner + size], axis=1)
        at_border = rng.random(each) < 0.5
        corners[at_border, 0] = 0.0
        labels = np.full(each, rng.integers(len(NAMES)))
        boxes = corners.astype(np.float32)
        answered.append((boxes, labels, np.ones(each, np.float32)))
        human.append((boxes[~at_border], labels[~at_border], np.ones((~at_border).sum(), np.float32)))
    given = Boxes.of_images(answered)
    return AnsweredBoxes(boxes=given, truncated=np.zeros(len(given.labels), np.float32)), Boxes.of_images(human)


def drawn(*each: tuple[tuple[float, ...], int], weight: float = 1.0) -> Boxes:
    corners = np.array([place for place, _ in each], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in each], np.int64)
    return Boxes.of_images([(corners, labels, np.full(len(each), weight, np.float32))])


def rows(*boxes: tuple[float, ...], weight: float = 1.0) -> Boxes:
    """Boxes of one image, all of the first class."""
    return drawn(*((place, 0) for place in boxes), weight=weight)


def only_first(human: Boxes, count: int) -> Boxes:
    """The boxes of the first images; the others are not annotated."""
    return human.hidden(np.arange(len(human)) >= count)


def test_annotated_images_are_judged_by_others() -> None:
    """What is drawn at random cannot be predicted; a teacher that saw the image would do so."""
    answered, _ = simulated(60, seed=1)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 2, len(answered.boxes.labels)).astype(np.int8)
    found = convention(
        np.concatenate([features(answered), rng.random((len(drawn), 40))], axis=1),  # enough to learn each by heart
        prior(answered),
        drawn,
        answered.boxes.image_of,
        seed=0,
        reference=np.ones(len(drawn), bool),
    )
    assert abs(np.corrcoef(found, drawn)[0, 1]) < 0.15


@pytest.mark.parametrize("annotated", [0, 1, 7])
def test_targets_are_human_boxes_where_there_are_some(annotated: int) -> None:
    answered, human = simulated(12, seed=4)
    asked = np.arange(12) != 10
    truncated = answered.truncated[answered.boxes.places(asked)]
    answered = AnsweredBoxes(boxes=answered.boxes.hidden(~asked), truncated=truncated)
    left = only_first(human, annotated)
    taught = teach(answered, left, None, CLASSES, seed=0)
    targets = taught.targets(left)
    assert np.array_equal(targets.known, left.known | asked)
    for image in range(12):
        corners, labels, weights = targets.image(image)
        if left.known[image]:
            assert np.array_equal(corners, human.image(image)[0]) and (weights == 1).all()
        else:
            own = slice(taught.boxes.starts[image], taught.boxes.starts[image + 1])
            assert np.array_equal(corners, answered.boxes.image(image)[0])
            assert np.array_equal(labels, taught.boxes.labels[own])
            assert np.array_equal(weights > 0, taught.probable[own] >= 0.5)
    assert ((targets.weights >= 0) & (targets.weights <= 1)).all()


def test_classes_that_answers_confuse_are_corrected() -> None:
    answered, human = simulated(120, seed=5)
    wrong = replace(answered, boxes=replace(answered.boxes, labels=np.minimum(answered.boxes.labels, 1)))
    left = only_first(human, 100)
    taught = teach(wrong, left, None, CLASSES, seed=0)
    told = Texts(
        np.eye(CLASSES, dtype=np.float32)[answered.boxes.labels[answered.boxes.starts[:-1]]], np.ones(120, bool)
    )
    by_text = teach(wrong, left, told, CLASSES, seed=0, evidence="texts")
    assert (taught.boxes.labels == wrong.boxes.labels).all(), "answers alone cannot tell which of two classes is meant"
    assert (by_text.boxes.labels == answered.boxes.labels).all()


def test_the_text_of_an_image_does_not_carry_the_class_of_one_box_to_another() -> None:
    """Texts that say nothing: half of the classes are right by chance, nearly all if folds part boxes of an image."""
    rng = np.random.default_rng(0)
    corners, sure = np.array([[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]], np.float32), np.ones(2, np.float32)
    true = rng.integers(0, 2, 60)
    human = Boxes.of_images([(corners, np.full(2, label), sure) for label in true])
    boxes = Boxes.of_images([(corners, np.arange(2), sure)] * 60)
    vectors = rng.normal(size=(60, 64)).astype(np.float32)
    texts = Texts(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.ones(60, bool))
    answered = AnsweredBoxes(boxes=boxes, truncated=np.zeros(120, np.float32))
    taught = teach(answered, human, texts, 2, seed=0, evidence="texts")
    assert (taught.boxes.labels == np.repeat(true, 2)).mean() < 0.65


def test_regions_that_count_for_nothing_teach_nothing() -> None:
    answered = AnsweredBoxes(boxes=rows((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)), truncated=np.zeros(2, np.float32))
    ignored = rows((0, 0, 0.5, 0.5), weight=0.0)
    taught = teach(answered, ignored, None, CLASSES, seed=0)
    assert taught.drawn.tolist() == [-1, 0]
    crowd = rows((0, 0, 1, 0.6), weight=0.0)
    several = AnsweredBoxes(boxes=rows((0, 0, 0.2, 0.2), (0.4, 0, 0.6, 0.3), (0, 0.5, 0.3, 1)), truncated=np.zeros(3))
    inside = teach(several, crowd, None, CLASSES, seed=0)
    assert inside.drawn.tolist() == [-1, -1, 0] and {s.kind for s in suspected_boxes(inside, crowd)} <= {"missing"}
    assert all(suspect.corners[3] == 1 for suspect in suspected_boxes(inside, crowd)), "a crowd hides no missing box"
    assert quality(answered.boxes, ignored, np.ones(2, bool)) == {"precision": 0.0, "recall": None}


def test_quality_by_hand() -> None:
    human = rows((0, 0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0.5, 0, 0.9, 0.4))
    boxes = rows((0, 0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0, 0.6, 0.2, 0.8))
    assert quality(boxes, human, np.array([True, True, True])) == pytest.approx({"precision": 2 / 3, "recall": 2 / 3})
    assert quality(boxes, human, np.array([True, False, False])) == pytest.approx({"precision": 1.0, "recall": 1 / 3})


def test_four_photographs_per_class_teach_what_is_drawn_on_shelves(shared_data: Path, tmp_path: Path) -> None:
    """The numbers of docs/research/log/box-convention.md, of one draw."""
    images = load_dataset(f"coco:{shared_data / 'groceries' / 'train.json'}")
    images = images.select(images.indices("train"))
    rows = shared_data / "groceries" / "answers-boxes.jsonl"
    import_descriptions(ImportDescriptionsConfig(file=rows, store=tmp_path / "a.db", data=images.spec))
    answered, _ = read_boxes(tmp_path / "a.db", images.digests, images.classes)
    human = images.regions
    assert isinstance(human, Boxes)
    kept = keep_labels_per_class(annotation.groups(human), np.arange(len(human)), 4, 0) >= 0
    taught = teach(answered, human.hidden(~kept), None, len(images.classes), seed=0)
    found = quality(taught.boxes, human.hidden(kept), taught.likely)
    assert found["precision"] is not None and found["precision"] > 0.88
    assert found["recall"] is not None and found["recall"] > 0.89


DIGESTS = tuple(f"{number:064x}" for number in range(5))
WORDS = ("cat", "owl")


def said(label: str, *places: float, **more: object) -> dict[str, object]:
    return {"label": label, "box_2d": list(places), **more}


def stored(folder: Path, rows: Sequence[tuple[int, Answer]]) -> Path:
    return store_boxes(folder / "a.db", [(DIGESTS[number], answer) for number, answer in rows])


def test_answers_are_votes_and_words_that_are_no_class_are_counted(tmp_path: Path) -> None:
    first = Answer(boxes=(said("Cats", 0, 0, 500, 500, truncated=True), said("owl", 600, 600, 900, 900)))
    second = Answer(boxes=(said("cat", 6, 0, 506, 500, truncated=False), said("\x1b[31mdragon", 1, 1, 9, 9)))
    path = stored(tmp_path, [(1, first), (1, second), (2, Answer(boxes=())), (3, Answer(class_name="cat"))])
    found, strange = read_boxes(path, DIGESTS[:4], WORDS)
    assert found.given.tolist() == [False, True, True, False]
    corners, labels, shares = found.boxes.image(1)
    order = np.argsort(labels)
    assert labels[order].tolist() == [0, 1]
    assert np.allclose(corners[order], [[0.003, 0, 0.503, 0.5], [0.6, 0.6, 0.9, 0.9]]), "mean corners"
    assert shares[order].tolist() == [1.0, 0.5]
    assert found.truncated[order].tolist() == [0.5, 0.0]
    assert strange == {"\x1b[31mdragon": 1}


def test_only_words_that_are_no_class_do_not_say_that_nothing_is_there(tmp_path: Path) -> None:
    only_other, both = Answer(boxes=(said("dog", 1, 1, 9, 9),)), Answer(boxes=(said("owl", 0, 0, 9, 9),))
    path = stored(tmp_path, [(0, only_other), (1, only_other), (1, both), (2, Answer(boxes=()))])
    found, strange = read_boxes(path, DIGESTS[:3], WORDS)
    assert found.given.tolist() == [False, True, True] and found.boxes.weights.tolist() == [1.0]
    assert strange == {"dog": 2}


PLACES = ((0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9))


def taught(given: Boxes, probable: float = 0.9) -> TaughtBoxes:
    count = len(given.labels)
    return TaughtBoxes(boxes=given, probable=np.full(count, probable), drawn=np.ones(count, np.int8), weights={})


BOTH = drawn((PLACES[0], 0), (PLACES[1], 1))
MOVED = (0.1, 0.1, 0.5, 0.5)  # IoU 9 / 23 with the first place


@pytest.mark.parametrize(
    ("human", "kind", "place", "label"),
    [
        (drawn((PLACES[0], 0)), "missing", PLACES[1], 1),
        (drawn((PLACES[0], 0), (PLACES[1], 1), ((0.0, 0.7, 0.2, 0.9), 1)), "false", (0.0, 0.7, 0.2, 0.9), 1),
        (drawn((MOVED, 0), (PLACES[1], 1)), "misplaced", MOVED, 0),
        (drawn((PLACES[0], 2), (PLACES[1], 1)), "another class", PLACES[0], 2),
    ],
)
def test_each_kind_is_found(human: Boxes, kind: str, place: tuple[float, ...], label: int) -> None:
    (found,) = suspected_boxes(taught(BOTH), human)
    assert (found.kind, found.image, found.label) == (kind, 0, label)
    assert np.allclose(found.corners, place)
    assert 0 < found.doubt <= 1


RIGHT, WRONG = [0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]
