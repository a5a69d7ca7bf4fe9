from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.artifacts.answers import PROMPTS, Answer
from gpt4image.data import NO_LABEL, Dataset, load_dataset
from gpt4image.reviewing.queue import Teacher
from tables import write_store

CLASSES = ("blue", "green", "red")
ASKED = replace(PROMPTS["short"], ask=("class",), classes=tuple((name, "") for name in CLASSES))


def cells(labels: Any) -> list[str]:
    return [CLASSES[k] if k >= 0 else "" for k in labels]


@pytest.fixture
def colours(described_colours: tuple[Path, Path]) -> tuple[Dataset, Path, list[str]]:
    """Pictures of colours without a label, the table of their texts, and what they are."""
    folder, table = described_colours
    images = load_dataset(f"folder:{folder}")
    true = ["red" if key.endswith("wrong.png") else key.split("/")[0] for key in images.keys]
    return images.revised(labels=np.full(len(images), NO_LABEL)), table, true


@pytest.fixture
def answers(colours: tuple[Dataset, Path, list[str]], tmp_path: Path) -> Path:
    """Answers that are right, except about the first picture, and unsure about the second."""
    images, _, true = colours
    said = {digest: Answer(class_name=name, confidence=0.95) for digest, name in zip(images.digests, true, strict=True)}
    said[images.digests[0]] = Answer(class_name="green", second="blue", confidence=0.5)
    said[images.digests[1]] = Answer(class_name="blue", second="red", confidence=0.4)
    rows = ({"digest": digest, "answer": answer} for digest, answer in said.items())
    return write_store(tmp_path / "answers.db", rows, prompt=ASKED, describer={"kind": "openai", "model": "m"})


def test_answers_propose_before_there_is_a_label(colours: tuple[Dataset, Path, list[str]], answers: Path) -> None:
    images, _, true = colours
    ranking = Teacher(images, answers).ranking(cells(images.labels), CLASSES)
    proposed = [ranking.proposal_of(row).proposal for row in range(len(images))]
    assert proposed == ["green", *true[1:]]
    assert ranking.proposal_of(0).reason == "answer: green, 0.50"
    assert list(ranking.proposal_of(0).likely[:2]) == ["green", "blue"]
    assert set(ranking.order[:2]) == {0, 1}, "those that the answerer was least sure of"
    assert ranking.wrong is not None and 0 < ranking.wrong < 0.2
    assert (ranking.labelled, ranking.suspects) == ([], 0)


def test_a_label_against_which_answers_and_texts_agree_comes_first(
    colours: tuple[Dataset, Path, list[str]], answers: Path
) -> None:
    images, table, true = colours
    labels = np.array([CLASSES.index(name) for name in true])
    wrong = images.keys.index("red/05.png")
    labels[wrong] = CLASSES.index("blue")
    for evidence in ((answers, table), (answers, None), (None, table)):
        ranking = Teacher(images, *evidence).ranking(cells(labels), CLASSES)
        assert ranking.labelled[0] == wrong or (evidence[1] is None and wrong in ranking.labelled[:2])
        assert ranking.suspects >= 1
        assert sorted(ranking.labelled) == list(range(len(images)))
        assert list(ranking.order) == []
        assert ranking.wrong is None


def test_test_images_come_last_and_their_labels_teach_nothing(
    colours: tuple[Dataset, Path, list[str]], answers: Path
) -> None:
    images, _, _ = colours
    splits = np.where(np.arange(len(images)) < 10, "test", "train")
    teacher = Teacher(images.revised(splits=splits), answers)
    assert set(teacher.ranking(cells(images.labels), CLASSES).order[-10:]) == set(range(10))
    labels = np.where(splits == "test", 2, NO_LABEL)
    ranking = teacher.ranking(cells(labels), CLASSES)
    assert ranking.suspects == 0
    without = teacher.ranking(cells(images.labels), CLASSES)
    assert [ranking.proposal_of(row) for row in range(30)] == [without.proposal_of(row) for row in range(30)]
