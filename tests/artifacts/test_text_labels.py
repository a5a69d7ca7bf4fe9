from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt4image.artifacts.text_labels import Facts, TargetRule, TextLabels, blend
from gpt4image.base.errors import TableError
from gpt4image.labelling.label_noise import Noise


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
    targets = TargetRule().apply(text, labels, Noise(), 0.8)
    assert targets[:3] == pytest.approx(np.array([[0.7, 0.2, 0.1], [0.35, 0.6, 0.05], [0, 0, 1]]))
    assert TargetRule(trust=1.0).apply(text, labels, Noise(), 0.8)[1].tolist() == [0, 1, 0]
    doubted = TargetRule().apply(text, labels, Noise(rate=0.4), 0.1)
    assert doubted == pytest.approx(blend(text, labels, Noise(rate=0.4)))
    hard = TargetRule(targets="hard").apply(text, labels, Noise(), 0.8)
    assert hard.argmax(axis=1).tolist() == [0, 1, 2, 1], "a label is not outdone by a text that is as sure"
    sure = TargetRule(confidence=0.65).apply(text, labels, Noise(), 0.8)
    assert sure.any(axis=1).all(), "a label that looks right is sure enough"


def test_texts_that_say_little_of_the_classes_leave_labels_alone():
    text = np.array([[0.7, 0.2, 0.1]] * 2, np.float32)
    labels = np.array([-1, 1])
    targets = TargetRule().apply(text, labels, Noise(), 0.3)
    assert targets == pytest.approx(np.array([[0.7, 0.2, 0.1], [0, 1, 0]]))
    assert TargetRule().apply(text, labels, Noise(), None) == pytest.approx(targets), "not known is not enough"
    assert TargetRule(trust=0.5).apply(text, labels, Noise(), 0.3)[1] == pytest.approx([0.35, 0.6, 0.05])


def test_a_file_knows_how_much_its_texts_explain():
    vague = np.array([[0.5, 0.5], [0.5, 0.5], [0.01, 0.99]], np.float32)
    clear = np.array([[0.99, 0.01], [0.01, 0.99], [0.01, 0.99]], np.float32)
    for probabilities, expected in ((vague, [1, 0]), (clear, [0.995, 0.005])):
        file = replace(
            made(),
            labels=np.array([0, 1, -1]),
            out_of_fold=np.array([True, True, False]),
            probabilities=probabilities,
            text_probabilities=None,
            facts=replace(made().facts, classes=("x", "y"), noise=0.0, transition=(), targets="soft", confidence=0.0),
        )
        targets, _ = file.targets_for(file.digests, file.labels)
        assert targets[0].tolist() == pytest.approx(expected)


def test_hard_targets_and_targets_that_are_sure_enough():
    text = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.2, 0.3, 0.5], [0, 0, 0]], np.float32)
    labels = np.array([-1, -1, 0, 1])
    hard = TargetRule(targets="hard").apply(text, labels, Noise(), 0.8)
    assert hard.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    tied = np.array([[1.0, 0.0, 0.0]] * 2, np.float32)
    told = TargetRule(targets="hard", trust=0.5).apply(tied, np.array([2, -1]), Noise(), 0.8)
    assert told.tolist() == [[0, 0, 1], [1, 0, 0]], "a label is not outdone by a text that is as sure"
    less = TargetRule(targets="hard", trust=0.3).apply(tied, np.array([2, -1]), Noise(), 0.8)
    assert less.tolist() == [[1, 0, 0], [1, 0, 0]], "it is by one that is to count more"
    sure = TargetRule(confidence=0.6).apply(text, labels, Noise(), 0.8)
    assert sure[0] == pytest.approx([0.7, 0.2, 0.1])
    assert not sure[1].any()
    assert sure[2:] == pytest.approx(np.array([[0.6, 0.15, 0.25], [0, 1, 0]]))
    wrong = Noise(rate=0.4)
    for confidence, is_there in ((0.6, True), (0.61, False)):
        rule = TargetRule(confidence=confidence, trust=0.5)
        assert rule.apply(text, labels, Noise(), 0.8)[2] == pytest.approx([0.6, 0.15, 0.25])
        assert rule.apply(text, labels, wrong, 0.8)[2].any() == is_there
        assert replace(rule, targets="hard").apply(text, labels, wrong, 0.8)[2].any() == is_there


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


def test_a_file_is_read_as_it_was_written(tmp_path):
    written = made()
    written.save(tmp_path / "labels.parquet")
    read = TextLabels.load(tmp_path / "labels.parquet")
    assert (read.keys, read.digests, read.facts) == (written.keys, written.digests, written.facts)
    for name in ("splits", "labels", "probabilities", "out_of_fold"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    columns = pq.read_table(tmp_path / "labels.parquet").to_pydict()
    assert columns["given_label"] == ["cat", "dög", None]
    assert columns["text_label"] == ["cat", "cat", "dög"]
    assert columns["doubt"] == [pytest.approx(0.1), pytest.approx(0.8), None]


def test_labels_are_doubted_by_the_text_alone_where_a_model_had_a_say(tmp_path: Path):
    text = np.array([[0.9, 0.1], [0.95, 0.05], [0.3, 0.7]], np.float32)
    heard = replace(made(), probabilities=text[:, ::-1].copy(), text_probabilities=text)
    heard.save(tmp_path / "labels.parquet")
    read = TextLabels.load(tmp_path / "labels.parquet")
    assert np.array_equal(read.by_text, text)
    assert np.array_equal(read.probabilities, heard.probabilities)
    assert read.doubt[:2] == pytest.approx([0.1, 0.95])
    assert read.doubtful.tolist() == [1]
    assert pq.read_table(tmp_path / "labels.parquet")["doubt"].to_pylist()[1] == pytest.approx(0.95)


def test_targets_are_found_by_digest():
    targets, has_target = made().targets_for(["2" * 64, "f" * 64, "f" * 64, "0" * 64], np.array([-1, 1, -1, 0]))
    assert targets[0] == pytest.approx([0.3, 0.7])
    assert targets[1] == pytest.approx([0, 1])
    assert targets[3].argmax() == 0
    assert has_target.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: pq.write_table(pa.table({"key": ["a"]}), path),
    ],
)
def test_a_file_that_is_no_text_labels_is_refused(tmp_path, spoil: Callable[[Path], object]):
    path = tmp_path / "labels.parquet"
    made().save(path)
    spoil(path)
    with pytest.raises(TableError, match="not a file of text labels"):
        TextLabels.load(path)
    with pytest.raises(TableError, match="there are no text labels"):
        TextLabels.load(tmp_path / "none.parquet")
