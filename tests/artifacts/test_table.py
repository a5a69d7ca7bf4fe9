"""The embedding table: joins by digest whatever the order, and never opens what is unfinished."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.artifacts.table import EmbeddingTable, ImageVectors
from gpt4image.base.errors import Gpt4ImageError, TableError
from tables import digest, make_table


def unit_rows(count: int, width: int = 8) -> NDArray[np.float16]:
    rows = np.random.default_rng(0).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@settings(deadline=None, max_examples=30)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=30),
    asked=st.lists(st.integers(0, 12), max_size=20),
)
def test_vectors_are_the_mean_of_an_images_own_texts(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], asked: list[int]
) -> None:
    texts: dict[str, list[NDArray[np.float16]]] = {}
    for image, text in pairs:
        texts.setdefault(digest(image), []).append(unit_rows(6)[text])
    table = make_table(tmp_path_factory.mktemp("table"), texts)
    vectors, described = table.vectors([digest(image) for image in asked])
    assert vectors.dtype == np.float32 and vectors.shape == (len(asked), 8) and described.dtype == np.bool_
    for place, image in enumerate(asked):
        own = texts.get(digest(image), [])
        assert described[place] == bool(own)
        expected = np.sum(np.array(own, np.float32).reshape(-1, 8), axis=0)
        norm = np.linalg.norm(expected)
        np.testing.assert_allclose(vectors[place], expected / norm if norm else expected, atol=1e-5)


def two_texts(path: Path) -> EmbeddingTable:
    return make_table(path, {digest(n): [row] for n, row in enumerate(unit_rows(2))})


def test_arrays_are_memory_maps_and_the_manifest_comes_back(tmp_path: Path) -> None:
    table = two_texts(tmp_path)
    assert isinstance(table.embeddings, np.memmap) and table.embeddings.dtype == np.float16
    assert table.width == 8
    assert EmbeddingTable.open(tmp_path).manifest == table.manifest
    assert json.loads((tmp_path / "manifest.json").read_text())["class_conditioned"] is False


def test_missing_unfinished_and_damaged_tables_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "table"
    two_texts(place)
    whole = (place / "manifest.json").read_text()

    def refused(path: Path, message: str) -> None:
        with pytest.raises(Gpt4ImageError, match=message):
            EmbeddingTable.open(path)

    refused(tmp_path / "none", "there is no finished embedding table here")
    for wrong in (
        "{}",
        "[]",
        "not json",
        whole.replace('"encoder"', '"enc"'),
        whole.replace('"texts": 2', '"texts": 3'),
    ):
        (place / "manifest.json").write_text(wrong)
        refused(place, "manifest|damaged")
    (place / "manifest.json").write_text(whole)
    (place / "embeddings.npy").write_bytes((place / "embeddings.npy").read_bytes()[:-4])
    refused(place, "damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_where_they_are_read(value: float) -> None:
    embeddings = np.array([[1, 0], [-1, 0], [0, value]], np.float16)
    read = ImageVectors(embeddings, np.arange(3), np.array([0, 2]), np.array([2, 1]))
    assert read[np.array([0])].tolist() == [[0, 0]], "texts that cancel out give no NaN"
    with pytest.raises(TableError, match=r"NaN or infinity: make it again with `gpt4image encode`"):
        read[:]
