"""What a comparison says of its own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.comparing.results import notes, recorded, small_classes
from gpt4image.config import CompareConfig
from gpt4image.data import load_image_set


@pytest.mark.parametrize("copies", [0, 2])
def test_test_images_that_are_in_train_too_are_named(tmp_path: Path, copies: int) -> None:
    for number in range(8):
        split = "train" if number < 4 else "test"
        colour = number - 4 if 4 <= number < 4 + copies else number
        path = tmp_path / split / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)
    spec = f"folder:{tmp_path}"
    said = " ".join(notes(CompareConfig(data=spec, out=tmp_path / "cmp", arms="baseline"), load_image_set(spec)))
    assert ("2 of 4 test images are byte for byte in train too" in said) == bool(copies)
    assert ("in train too" in said) == bool(copies)


def test_classes_too_small_for_the_labels_asked_for_are_named() -> None:
    labels, classes = np.array([0] * 5 + [1] * 2 + [-1] * 9), ("bird", "cat", "not in train")
    assert small_classes(labels, classes, 3) == [
        "Classes with fewer than 3 labels in train keep all that they have: 'cat'."
    ]
    assert small_classes(labels, classes, 2) == small_classes(labels, classes, None) == []


def test_options_of_a_variant_are_recorded_as_text() -> None:
    options = {"label_embeddings": (Path("a.emb"), Path("b.emb")), "init": Path("weights"), "lr": 0.1}
    assert recorded(options) == {"label_embeddings": ["a.emb", "b.emb"], "init": "weights", "lr": 0.1}
