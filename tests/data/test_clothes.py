"""The packaged photographs, their splits and the answers about them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from gpt4image.data import load_dataset
from gpt4image.data.clothes import ANSWERS
from gpt4image.data.decode import decode


def test_photographs_are_real_and_in_one_split_each() -> None:
    images = load_dataset("clothes")
    assert Counter(images.splits.tolist()) == {"train": 1200, "val": 150, "test": 372}
    assert len(images.classes) == 10 and images.labelled.all() and not images.skipped
    assert len(set(images.digests)) == len(images)
    assert all(min(decode(images.read(i)).size) in range(90, 161) for i in range(0, len(images), 100))
    without = load_dataset("clothes-unlabelled")
    assert without.digests == images.digests and without.classes == images.classes
    assert (without.labelled == (images.splits != "train")).all()


def test_each_training_photograph_has_an_answer() -> None:
    images = load_dataset("clothes")
    answers = {row["key"]: row for row in map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines())}
    train = images.indices("train")
    assert {images.keys[i] for i in train} == answers.keys()
    assert {row["class"] for row in answers.values()} == set(images.classes)
    right = [answers[images.keys[i]]["class"] == images.classes[images.labels[i]] for i in train]
    assert 0.95 < np.mean(right) < 0.96
