"""Boxes out of a store: votes, words that are no class, equal images, and stores without boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from box_cases import store_boxes
from gpt4image.artifacts.answers import Answer
from gpt4image.base.errors import TableError
from gpt4image.labelling.answers import read_boxes

DIGESTS = tuple(f"{number:064x}" for number in range(5))
CLASSES = ("cat", "owl")


def box(label: str, *places: float, **more: object) -> dict[str, object]:
    return {"label": label, "box_2d": list(places), **more}


def store(folder: Path, rows: Sequence[tuple[int, Answer]]) -> Path:
    return store_boxes(folder / "a.db", [(DIGESTS[number], answer) for number, answer in rows])


def test_answers_are_votes_and_words_that_are_no_class_are_counted(tmp_path: Path) -> None:
    first = Answer(boxes=(box("Cats", 0, 0, 500, 500, truncated=True), box("owl", 600, 600, 900, 900)))
    second = Answer(boxes=(box("cat", 0, 0, 500, 500, truncated=False), box("\x1b[31mdragon", 1, 1, 9, 9)))
    path = store(tmp_path, [(1, first), (1, second), (2, Answer(boxes=())), (3, Answer(class_name="cat"))])
    found, strange = read_boxes(path, DIGESTS[:4], CLASSES)
    assert found.given.tolist() == [False, True, True, False]
    corners, labels, shares = found.boxes.image(1)
    order = np.argsort(labels)
    assert labels[order].tolist() == [0, 1]
    assert np.allclose(corners[order], [[0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    assert shares[order].tolist() == [1.0, 0.5]
    assert found.truncated[order].tolist() == [0.5, 0.0]
    assert strange == {"\x1b[31mdragon": 1}


def test_only_words_that_are_no_class_do_not_say_that_nothing_is_there(tmp_path: Path) -> None:
    only_other, both = Answer(boxes=(box("dog", 1, 1, 9, 9),)), Answer(boxes=(box("owl", 0, 0, 9, 9),))
    path = store(tmp_path, [(0, only_other), (1, only_other), (1, both), (2, Answer(boxes=()))])
    found, strange = read_boxes(path, DIGESTS[:3], CLASSES)
    assert found.given.tolist() == [False, True, True] and found.boxes.weights.tolist() == [1.0]
    assert strange == {"dog": 2}


@pytest.mark.parametrize("answer", [Answer(class_name="cat"), Answer(boxes=(box("dog", 0, 0, 9, 9),))])
def test_a_store_without_a_box_of_these_classes_is_refused(tmp_path: Path, answer: Answer) -> None:
    path = store(tmp_path, [(0, answer)])
    with pytest.raises(TableError, match=r"no box of these images .*--ask boxes"):
        read_boxes(path, DIGESTS, CLASSES)
