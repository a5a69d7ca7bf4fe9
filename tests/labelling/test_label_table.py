"""Text labels as a table for people."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.labelling.label_table import write_table


def labels_of(given: np.ndarray, probabilities: list[list[float]], task: str) -> TextLabels:
    rows = len(given)
    facts = Facts(
        classes=("cat", "=dog", "owl"), noise=0.0, agreement=1.0, c=1.0, folds=2, seed=0, encoders=(), embeddings=(),
        names=0.0, transition=(), task=task,
    )  # fmt: skip
    return TextLabels(
        keys=tuple(f"{row}.jpg" for row in range(rows)),
        digests=tuple(f"{row:064x}" for row in range(rows)),
        splits=np.array(["train"] * rows),
        labels=given,
        probabilities=np.array(probabilities, np.float32),
        out_of_fold=np.zeros_like(given, dtype=bool),
        facts=facts,
    )


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_one_class_per_image_has_the_first_and_the_second(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", labels_of(np.array([0, -1]), [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], "classification"))
    assert read(tmp_path / "t.csv") == [
        ["key", "split", "given", "predicted", "probability", "second", "its_probability"],
        ["0.jpg", "train", "cat", "cat", "0.7000", "'=dog", "0.2000"],
        ["1.jpg", "train", "", "owl", "0.6000", "'=dog", "0.3000"],
    ]


def test_of_several_classes_the_likely_ones_are_listed(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", labels_of(np.array([[1, 0, -1]], np.int8), [[0.9, 0.1, 0.8]], "multilabel"))
    assert read(tmp_path / "t.csv")[1] == ["0.jpg", "train", "cat", "cat|owl", "0.9000|0.8000"]
