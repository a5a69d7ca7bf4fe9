"""Targets made of text labels and given labels: half and half, the label alone, or the posterior of the class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.prepare import prepare
from gpt4image.training.targets import Noise, blend, class_targets, says_nothing, targets_for
from gpt4image.training.trainer import idle_options
from small_training import SMALL

CLASSES = Classification()


def test_target_of_each_kind_of_image():
    text = np.array([[0.7, 0.2, 0.1]] * 3 + [[0, 0, 0]] * 2, np.float32)
    labels = np.array([-1, 1, 0, 2, -1])
    targets = blend(text, labels, Noise(rate=0.4))
    assert targets[0] == pytest.approx([0.7, 0.2, 0.1])
    assert targets[1] == pytest.approx(np.array([0.7 * 0.2, 0.2 * 0.6, 0.1 * 0.2]) / 0.28)
    assert targets[3] == pytest.approx([0, 0, 1])
    assert not targets[4].any()
    assert blend(text, labels, Noise(rate=0.0))[1] == pytest.approx([0, 1, 0])
    assert blend(text, labels, Noise(rate=0.4), trust=0.5)[1] == pytest.approx([0.35, 0.6, 0.05])


def test_labels_that_look_right_are_half_of_their_target():
    text = np.array([[0.7, 0.2, 0.1]] * 2 + [[0, 0, 0], [1, 0, 0]], np.float32)
    labels = np.array([-1, 1, 2, 1])
    targets = class_targets(CLASSES, text, labels, Noise(), 0.8)
    assert targets[:3] == pytest.approx(np.array([[0.7, 0.2, 0.1], [0.35, 0.6, 0.05], [0, 0, 1]]))
    assert class_targets(CLASSES, text, labels, Noise(), 0.8, trust=1.0)[1].tolist() == [0, 1, 0]
    doubted = class_targets(CLASSES, text, labels, Noise(rate=0.4), 0.1)
    assert doubted == pytest.approx(blend(text, labels, Noise(rate=0.4)))


def test_texts_that_say_little_of_the_classes_leave_labels_alone():
    text = np.array([[0.7, 0.2, 0.1]] * 2, np.float32)
    labels = np.array([-1, 1])
    targets = class_targets(CLASSES, text, labels, Noise(), 0.3)
    assert targets == pytest.approx(np.array([[0.7, 0.2, 0.1], [0, 1, 0]]))
    assert class_targets(CLASSES, text, labels, Noise(), None) == pytest.approx(targets), "not known is not enough"
    assert class_targets(CLASSES, text, labels, Noise(), 0.3, trust=0.5)[1] == pytest.approx([0.35, 0.6, 0.05])


def test_texts_that_say_nothing_teach_no_image():
    text, labels = np.array([[0.4, 0.3, 0.3]] * 2, np.float32), np.array([-1, 1])
    targets = class_targets(CLASSES, text, labels, Noise(), 0.01, silent=True)
    assert targets.tolist() == [[0, 0, 0], [0, 1, 0]]


class TestSaysNothing:
    def nothing(self, sure: float, agree: int, task: Any = CLASSES, rate: float = 0.0, trust: Any = None) -> bool:
        """Of 30 held-out labels of 3 classes, texts name ``agree``, all with probability ``sure``."""
        labels = np.arange(40) % 3
        named = np.where(np.arange(40) < agree, labels, (labels + 1 + np.arange(40) // 3 % 2) % 3)
        probabilities = np.full((40, 3), (1 - sure) / 2, np.float32)
        probabilities[np.arange(40), named] = sure
        return says_nothing(task, probabilities, labels, np.arange(40) < 30, Noise(rate=rate), trust)

    def test_texts_at_chance_do(self):
        assert self.nothing(0.34, agree=10) and self.nothing(0.9, agree=10)

    def test_texts_that_explain_labels_do_not(self):
        assert not self.nothing(0.7, agree=22)

    def test_texts_that_agree_with_more_labels_than_by_chance_do_not_however_many_are_wrong(self):
        assert not self.nothing(0.95, agree=17), "of which nothing is explained: the texts are too sure"

    def test_a_share_noise_and_several_classes_leave_them_be(self):
        assert not self.nothing(0.34, agree=10, trust=1.0)
        assert not self.nothing(0.34, agree=10, rate=0.3)
        labels = np.array([[0, 1], [1, 0]] * 4)
        several = np.full((8, 2), 0.5, np.float32)
        assert not says_nothing(MultiLabel(), several, labels, labels >= 0, Noise(), None)

    def test_without_labels_nobody_knows(self):
        assert not says_nothing(CLASSES, np.full((4, 3), 1 / 3), np.full(4, -1), np.zeros(4, bool), Noise(), None)


def test_a_run_reads_no_text_labels_that_say_nothing_unless_it_is_told_to(colour_folder: Path, tmp_path: Path):
    images = load_image_set(f"folder:{colour_folder}")
    count, train = len(images), images.splits == "train"
    file = TextLabels(
        keys=images.keys,
        digests=tuple(images.digests),
        splits=images.splits,
        labels=np.where(train & (np.arange(count) % 2 == 0), images.labels, -1),
        probabilities=np.full((count, 3), 1 / 3, np.float32),
        out_of_fold=train & (np.arange(count) % 2 == 0),
        facts=Facts(classes=images.classes, noise=0.0, agreement=0.3, c=1.0, folds=2, seed=0, encoders=("minilm",)),
    )
    file.save(tmp_path / "labels.parquet")
    shared = {"data": images.spec, "out": tmp_path / "run", "text_labels": tmp_path / "labels.parquet", **SMALL}
    shared |= {"val_fraction": 0.0, "test_fraction": 0.0}
    ready = prepare(TrainConfig(**shared))
    assert ready.data.soft is None and ready.data.from_text is None
    (note,) = idle_options(ready.config, ready.data)
    assert note == "--text-labels: no effect, since its texts say next to nothing of these classes."
    told = prepare(TrainConfig(**shared, label_trust=1.0))
    assert told.data.from_text is not None and told.data.from_text.all()


def test_a_file_knows_how_much_its_texts_explain():
    vague = np.array([[0.5, 0.5], [0.5, 0.5], [0.01, 0.99]], np.float32)
    clear = np.array([[0.99, 0.01], [0.01, 0.99], [0.01, 0.99]], np.float32)
    for probabilities, expected in ((vague, [1, 0]), (clear, [0.995, 0.005])):
        file = replace(
            made(),
            labels=np.array([0, 1, -1]),
            out_of_fold=np.array([True, True, False]),
            probabilities=probabilities,
            facts=replace(made().facts, classes=("x", "y"), noise=0.0, transition=()),
        )
        targets = targets_for(CLASSES, file, file.digests, file.labels)
        assert targets[0].tolist() == pytest.approx(expected)


def made() -> TextLabels:
    return TextLabels(
        keys=("a", "b", "c"),
        digests=("0" * 64, "1" * 64, "2" * 64),
        splits=np.array(["train", "train", "test"]),
        labels=np.array([0, 1, -1]),
        probabilities=np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32),
        out_of_fold=np.array([True, True, False]),
        facts=Facts(classes=("cat", "dög"), noise=0.25, agreement=0.5, c=1.0, folds=2, seed=0, encoders=("minilm",)),
    )


def test_targets_are_found_by_digest():
    targets = targets_for(CLASSES, made(), ["2" * 64, "f" * 64, "f" * 64, "0" * 64], np.array([-1, 1, -1, 0]))
    assert targets[0] == pytest.approx([0.3, 0.7])
    assert targets[1] == pytest.approx([0, 1])
    assert targets[3].argmax() == 0
    assert targets.any(axis=1).tolist() == [True, True, False, True]
