"""Pictures for the report: neighbours by text, and labels that the text doubts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpt4image.reporting.examples import DOUBTS, NEIGHBOURS, nearest_texts, write_doubts, write_examples
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.files import read_json
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.openmoji import load_openmoji
from gpt4image.reporting.extras import Doubt, Example
from gpt4image.training.text_targets import TextTargets


@given(st.integers(0, 1000), st.integers(1, 12))
def test_neighbours_are_the_pictures_of_the_most_similar_other_texts(seed: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(texts, 4)).astype(np.float32)
    row_of = rng.integers(-1, texts, 15)
    pool = np.flatnonzero(rng.random(15) < 0.7)
    found = nearest_texts(TextTargets.one_each(matrix, row_of), np.arange(15), pool)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    assert set(found) == set(np.flatnonzero(row_of >= 0).tolist())
    for image, others in found.items():
        among = [i for i in pool if row_of[i] >= 0 and row_of[i] != row_of[image]]
        best = sorted((float(unit[row_of[image]] @ unit[row_of[i]]) for i in among), reverse=True)[:NEIGHBOURS]
        assert [cosine for _, cosine in others] == pytest.approx(best, abs=1e-5)
        assert {other for other, _ in others} <= set(among)


def test_examples_have_neighbours_that_the_report_can_show(tmp_path: Path) -> None:
    images = load_openmoji().select(np.arange(0, 1500, 25))
    rows = np.arange(len(images))
    rows[:5] = -1
    text = TextTargets.one_each(np.random.default_rng(0).normal(size=(len(images), 6)), rows)
    write_examples(
        tmp_path / "x.json", images, np.ones(len(images), bool), tables=(), text=text, text_labels=None, run_dirs={}
    )
    found = [Example.model_validate(row) for row in read_json(tmp_path / "x.json")]
    train = {images.keys[i] for i in images.indices("train")}
    undescribed = set(images.keys[:5])
    for example in found:
        keys = {other.key for other in example.neighbours}
        assert len(keys) == (0 if example.key in undescribed else NEIGHBOURS)
        assert keys <= train - undescribed - {example.key}
        assert all(len(other.picture) < 4000 for other in example.neighbours)


def test_a_broken_picture_costs_no_other_example(tmp_path: Path) -> None:
    pictures = load_openmoji()
    data = [pictures.read(i) for i in range(8)] + [b"no picture"]
    n = len(data)
    images = ImageSet(
        spec="memory", source=MemorySource(data), keys=tuple(f"p{i}" for i in range(n)), classes=("a", "b"),
        labels=np.zeros(n, np.int64), splits=np.full(n, "train"), rows=np.arange(n),
    )  # fmt: skip
    text = TextTargets.one_each(np.random.default_rng(0).normal(size=(n, 4)), np.arange(n))
    path = tmp_path / "x.json"
    options = {"tables": (), "text": text, "text_labels": None, "run_dirs": {}, "comparison": "few"}
    write_examples(path, images, np.ones(n, bool), **options)
    found = [Example.model_validate(row) for row in read_json(path)]
    assert {example.key for example in found} == {f"p{i}" for i in range(n - 1)}
    assert "p8" not in {other.key for example in found for other in example.neighbours}
    assert {example.comparison for example in found} == {"few"}


def test_doubts_are_shown_as_far_as_their_pictures_can_be_decoded(tmp_path: Path) -> None:
    pictures = load_openmoji()
    count = DOUBTS + 5
    data = [b"no picture", *(pictures.read(i) for i in range(1, count))]
    images = ImageSet(
        spec="memory", source=MemorySource(data), keys=tuple(f"p{i}" for i in range(count)), classes=("a", "b", "c"),
        labels=np.full(count, 2), splits=np.full(count, "train"), rows=np.arange(count),
    )  # fmt: skip
    said = np.tile(np.array([[0.1, 0.8, 0.1]], np.float32), (count, 1))
    path = tmp_path / "doubtful-labels.json"
    write_doubts(path, images, np.arange(count), np.zeros(count, np.int64), said, tables=(), true=True)
    found = [Doubt.model_validate(row) for row in read_json(path)]
    assert [doubt.key for doubt in found] == [f"p{i}" for i in range(1, DOUBTS + 1)]
    assert {(doubt.given, doubt.text, doubt.truth) for doubt in found} == {("a", "b", "c")}
    assert found[0].probability == pytest.approx(0.8)
