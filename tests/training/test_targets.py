"""Targets made of text labels and given labels: half and half, the label alone, or the posterior of the class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.tasks.classification import Classification
from gpt4image.training.targets import Noise, blend, class_targets, targets_for

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
