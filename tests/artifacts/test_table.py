"""The embedding table: joins by digest whatever the order, and never opens what is unfinished."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.artifacts import table as module
from gpt4image.artifacts.table import (
    EmbeddingTable,
    ImageVectors,
    Index,
    find_digests,
    most_similar,
    open_index,
    up_to_date,
)
from gpt4image.base.errors import DataError, TableError
from gpt4image.base.files import read_json, write_json
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
        with pytest.raises(TableError, match=message):
            EmbeddingTable.open(path)

    refused(tmp_path / "none", "there is no finished embedding table here")
    (tmp_path / "s.db").write_bytes(b"a store")
    refused(tmp_path / "s.db", r"s\.db is a file.*encode --store \S+s\.db --out \S+s\.emb`")
    (tmp_path / "encoding" / ".partial").mkdir(parents=True)
    refused(tmp_path / "encoding", "goes on where it stopped")
    (place / "manifest.json").unlink()
    (place / "manifest.json").write_text(whole.replace('"texts": 2', '"texts": 3'))
    refused(place, "its content does not match its checksum")
    (place / "manifest.json").write_text(whole)
    write_json(place / "manifest.json", {**read_json(place / "manifest.json"), "texts": 3})
    refused(place, "but the manifest says")
    for wrong in ("{}", "[]", "not json"):
        (place / "manifest.json").write_text(wrong)
        refused(place, "manifest")
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


WIDTH = 8
IDENTITY = {"run": "a", "data": "folder:photos"}


def digests_of(*numbers: int) -> NDArray[np.uint8]:
    """Sorted digests, one for each number."""
    digests = sorted(hashlib.sha256(bytes([number])).digest() for number in numbers)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def vector_of(digest: NDArray[np.uint8]) -> NDArray[np.float32]:
    vector = np.random.default_rng(digest[:4].astype(int)).standard_normal(WIDTH).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Reader:
    """Stands in for a model: gives each image a vector of its own, and counts what it was asked."""

    def __init__(self, digests: NDArray[np.uint8], broken: tuple[int, ...] = ()) -> None:
        self.digests, self.broken = digests, broken
        self.read: list[int] = []

    def __call__(self, images: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self.read += images.tolist()
        return np.stack([vector_of(self.digests[i]) for i in images]), ~np.isin(images, self.broken)


def indexed(
    folder: Path, digests: NDArray[np.uint8], broken: tuple[int, ...] = (), **changes: Any
) -> tuple[Index, Reader]:
    reader = Reader(digests, broken)
    order = np.random.default_rng(1).permutation(len(digests))
    index, added = up_to_date(folder, IDENTITY | changes, digests, order, WIDTH, reader)
    assert added <= len(reader.read)
    return index, reader


def holds(index: Index, digests: NDArray[np.uint8]) -> bool:
    """Say whether an index holds these images, each with its own vector."""
    expected = np.stack([vector_of(digest) for digest in digests]).astype(np.float16)
    return np.array_equal(index.digests, digests) and np.array_equal(index.embeddings, expected)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60), queries=st.integers(1, 4), count=st.integers(1, 70), block=st.integers(1, 40),
    values=st.integers(2, 5), seed=st.integers(0, 999),
)  # fmt: skip
def test_the_most_similar_are_those_of_a_plain_sort(
    n: int, queries: int, count: int, block: int, values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, values, (n, 3)).astype(np.float16)  # with ties
    asked = rng.integers(0, values, (queries, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INDEX_BLOCK", block)
        rows, cosines = most_similar(Index(embeddings=vectors, digests=np.empty((n, 32), np.uint8)), asked, count)
    plain = asked @ vectors.astype(np.float32).T
    expected = np.argsort(-plain, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(cosines, np.take_along_axis(plain, expected, axis=1))


def test_only_new_images_are_read_and_those_that_are_gone_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INDEX_BLOCK", 3)
    monkeypatch.setattr(module, "AT_ONCE", 4)
    first, second = digests_of(*range(10)), digests_of(*range(3, 13))
    index, reader = indexed(tmp_path / "i", first)
    assert sorted(reader.read) == list(range(10)) and holds(index, first)
    assert indexed(tmp_path / "i", first)[1].read == []
    index, reader = indexed(tmp_path / "i", second)
    new = np.flatnonzero(find_digests(first, second) < 0).tolist()
    assert sorted(reader.read) == new and holds(index, second)
    fewer, reader = indexed(tmp_path / "i", digests_of(4, 5))
    assert reader.read == [] and holds(fewer, digests_of(4, 5))
    assert len(list((tmp_path / "i").glob("*.npy"))) == 2, "files of before are gone"


def test_broken_images_are_left_out_and_tried_again_without_writing(tmp_path: Path) -> None:
    digests = digests_of(*range(6))
    index, _ = indexed(tmp_path / "i", digests, broken=(1, 4))
    assert holds(index, digests[[0, 2, 3, 5]])
    (tmp_path / "i" / ".lock").unlink()
    _, reader = indexed(tmp_path / "i", digests, broken=(1, 4))
    assert sorted(reader.read) == [1, 4] and not (tmp_path / "i" / ".lock").exists()
    mended, reader = indexed(tmp_path / "i", digests, broken=(4,))
    assert holds(mended, digests[[0, 1, 2, 3, 5]])
    with pytest.raises(DataError, match="none of its images can be decoded"):
        indexed(tmp_path / "j", digests, broken=(0, 1, 2, 3, 4, 5))


def test_another_index_is_refused_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    digests = digests_of(*range(5))
    indexed(tmp_path / "i", digests)
    with pytest.raises(TableError, match=r"another index \(run: a there, b now\); give another folder"):
        indexed(tmp_path / "i", digests, run="b")
    next((tmp_path / "i").glob("embeddings-*")).write_bytes(b"cut short")
    index, reader = indexed(tmp_path / "i", digests)
    assert len(reader.read) == 5 and holds(index, digests)
    (tmp_path / "i" / "index.json").write_text('["of something else"]')
    with pytest.raises(TableError, match="not the manifest of an index"):
        open_index(tmp_path / "i", IDENTITY)
