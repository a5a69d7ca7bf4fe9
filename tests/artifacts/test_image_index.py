"""The index of a dataset: only new images are read, and the most similar ones are found."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpt4image.artifacts import image_index as module
from gpt4image.artifacts.image_index import Index, most_similar, up_to_date
from gpt4image.artifacts.table import find_digests
from gpt4image.base.errors import DamagedError, DataError, TableError

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
    assert [path.name for path in (tmp_path / "i").glob("*.npy")] == ["index.npy"]


def test_broken_images_are_left_out_and_tried_again_without_writing(tmp_path: Path) -> None:
    digests = digests_of(*range(6))
    index, _ = indexed(tmp_path / "i", digests, broken=(1, 4))
    assert holds(index, digests[[0, 2, 3, 5]])
    (tmp_path / "i" / ".lock").unlink()
    _, reader = indexed(tmp_path / "i", digests, broken=(1, 4))
    assert sorted(reader.read) == [1, 4] and not (tmp_path / "i" / ".lock").exists()
    mended, reader = indexed(tmp_path / "i", digests, broken=(4,))
    assert holds(mended, digests[[0, 1, 2, 3, 5]])
    with pytest.raises(DataError, match="None of the 6 images can be decoded"):
        indexed(tmp_path / "j", digests, broken=(0, 1, 2, 3, 4, 5))


def test_another_index_is_refused_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    digests = digests_of(*range(5))
    indexed(tmp_path / "i", digests)
    with pytest.raises(TableError, match=r"another index \(run: a there, b now\); give another folder"):
        indexed(tmp_path / "i", digests, run="b")
    for name, content in (("index.npy", b"cut short"), ("index.json", b'["of something else"]')):
        (tmp_path / "i" / name).write_bytes(content)
        with pytest.raises(DamagedError, match=f"{name} is damaged"):
            indexed(tmp_path / "i", digests)
        (tmp_path / "i" / "index.npy").unlink()
        assert len(indexed(tmp_path / "i", digests)[1].read) == 5 if name == "index.npy" else True
