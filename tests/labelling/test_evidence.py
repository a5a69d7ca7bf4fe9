from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import ClassOption, Prompt
from gpt4image.base.errors import TableError
from gpt4image.labelling.evidence import (
    Answers,
    answered_classes,
    read_answers,
    read_by_describer,
    read_tags,
    with_answered,
)
from tables import write_store

DIGESTS = tuple(f"{number:064x}" for number in range(5))
CLASSES = ("cat", "polar_bear", "owl")


def store_of(
    path: Path,
    rows: Sequence[tuple[int, Answer]],
    classes: Sequence[str] = CLASSES,
    describer: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Path:
    """A store of answers about DIGESTS; several about one image are samples."""
    prompt = Prompt(
        name="class",
        version=1,
        text="Which class?",
        **{"class_conditioned": False, "ask": ("class",), "classes": tuple(map(ClassOption, classes)), **facts},
    )
    samples = [[number for number, _ in rows[:place]].count(number) for place, (number, _) in enumerate(rows)]
    found = ({"digest": DIGESTS[number], "answer": answer, "sample": sample}
             for (number, answer), sample in zip(rows, samples, strict=True))  # fmt: skip
    return write_store(path, found, prompt=prompt, describer=describer or {})


def test_answers_are_read_by_the_name_of_the_class(tmp_path: Path):
    rows = [
        (0, Answer(class_name="cat", second="owl", confidence=0.7)),
        (1, Answer(class_name="Polar Bears", probability=0.9)),
        (2, Answer(said="dragon", confidence=0.4)),
        (3, Answer(confidence=0.9)),
        (4, Answer()),
        (4, Answer(class_name="owl")),
    ]
    found = read_answers(store_of(tmp_path / "a.db", rows), DIGESTS, CLASSES)
    assert found.answers.first.tolist() == [0, 1, -1, -1, 2]
    assert found.answers.second.tolist() == [2, -1, -1, -1, -1]
    assert found.answers.confidence[:2] == pytest.approx([0.7, 0.9])
    assert found.strange == {"dragon": 1}
    assert found.answers.none is not None and found.answers.none.tolist() == [False, False, False, True, False]
    assert found.answers.take([3, 0]).none.tolist() == [True, False]


def test_several_answers_are_votes(tmp_path: Path):
    rows = [
        (0, Answer(class_name="cat", confidence=0.9)),
        (0, Answer(class_name="owl", confidence=0.6)),
        (0, Answer(class_name="owl", confidence=0.6)),
        (1, Answer(class_name="owl", confidence=0.8)),
        (1, Answer(said="dragon")),
    ]
    found = read_answers(store_of(tmp_path / "a.db", rows), DIGESTS, CLASSES).answers
    assert (found.first[0], found.second[0]) == (2, 0)
    assert found.confidence[0] == pytest.approx(0.4)
    assert found.confidence[1] == pytest.approx(0.4), "half of its answers are none of the classes"


def test_each_describer_of_a_store_is_read_by_itself(tmp_path: Path):
    path = store_of(tmp_path / "a.db", [(0, Answer(class_name="cat")), (1, Answer(class_name="cat"))])
    for model, name in (("small", "owl"), ("large", "polar bear")):
        who = {"kind": "openai", "model": model, "max_tokens": 9}
        store_of(path, [(0, Answer(class_name=name))], describer=who)
    found = read_by_describer(path, DIGESTS, CLASSES)
    assert {name: read.answers.first[0] for name, read in found.items()} == {
        "{}": 0,
        "openai:large": 1,
        "openai:small": 2,
    }
    assert found["openai:small"].answers.given.tolist() == [True, False, False, False, False]
    with pytest.raises(TableError, match="holds no answer about these images"):
        read_by_describer(path, ["9" * 64], CLASSES)


def test_an_answer_about_equal_images_is_about_each_of_them(tmp_path: Path):
    store = store_of(tmp_path / "a.db", [(0, Answer(class_name="cat", tags=("cat",)))])
    twice = (DIGESTS[0], DIGESTS[1], DIGESTS[0])
    assert read_answers(store, twice, CLASSES).answers.first.tolist() == [0, -1, 0]
    assert read_tags(store, twice, CLASSES).answers.first[:, 0].tolist() == [1, -1, 1]


def test_tags_are_classes_that_are_seen_or_not(tmp_path: Path):
    rows = [(0, Answer(tags=("cat", "hat"))), (1, Answer(tags=())), (2, Answer(class_name="cat"))]
    found = read_tags(store_of(tmp_path / "a.db", rows), DIGESTS, CLASSES)
    assert found.answers.first[:3].tolist() == [[1, 0, 0], [0, 0, 0], [-1, -1, -1]]
    assert found.strange == {"hat": 1}
    with pytest.raises(TableError, match="--ask tags"):
        read_tags(store_of(tmp_path / "b.db", [(0, Answer(class_name="cat"))]), DIGESTS, CLASSES)


def test_what_cannot_be_read_is_refused(tmp_path: Path):
    path = store_of(tmp_path / "a.db", [(0, Answer(class_name="cat"))])
    assert answered_classes(path) == CLASSES
    with pytest.raises(TableError, match="names one of the classes 'dog'; answered were 'cat'"):
        read_answers(path, DIGESTS, ("dog",))
    store_of(path, [(1, Answer(class_name="dog"))], classes=("dog",))
    with pytest.raises(TableError, match=r"2 class lists.*--classes"):
        answered_classes(path)
    told = store_of(tmp_path / "b.db", [(0, Answer(class_name="cat"))], class_conditioned=True)
    with pytest.raises(TableError, match="were told the class"):
        read_answers(told, DIGESTS, CLASSES)


@given(
    st.integers(2, 40),
    st.lists(st.tuples(st.integers(-1, 39), st.integers(-1, 39), st.floats(0, 1) | st.just(np.nan)), min_size=1),
)
def test_stated_probabilities_sum_to_one_and_the_answer_is_the_most_probable(n_classes: int, rows: list[Any]):
    first, second = (np.array([row[place] for row in rows]) for place in (0, 1))
    first, second = np.where(first < n_classes, first, -1), np.where(second < n_classes, second, -1)
    second = np.where(second == first, -1, second)
    found = Answers(first, second, np.array([row[2] for row in rows], np.float32)).probabilities(n_classes)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found > 0).all()
    answered = first >= 0
    assert (found.argmax(axis=1) == first)[answered].all()
    assert np.allclose(found[~answered], 1 / n_classes)


def test_an_answer_from_a_shorter_list_stands_for_itself_where_there_is_no_other(tmp_path: Path):
    path = store_of(tmp_path / "a.db", [(0, Answer(class_name="cat", confidence=0.9))])
    store_of(path, [(0, Answer(class_name="owl")), (1, Answer(class_name="owl", confidence=0.7))], ("cat", "owl"))
    found = read_answers(path, DIGESTS, CLASSES)
    assert found.answers.first[:2].tolist() == [0, 2] and found.answers.confidence[:2] == pytest.approx([0.9, 0.7])
    assert answered_classes(path) == CLASSES, "a shorter list does not hide which classes there are"
    for labelled, classes in (((), CLASSES), (("Cat",), ("Cat", *CLASSES[1:])), (("ant", "owl"), (*CLASSES, "ant"))):
        assert with_answered(labelled, path) == classes, "nor do labels"
