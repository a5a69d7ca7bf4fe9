"""Embeddings of descriptions as inputs of the text classifier: minus their mean, smoothed over nearest neighbours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.top_k_probs import DENSE_CELLS, blocks
from gpt4image.base.errors import TableError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEIGHBOURS = 20
MAX_REFERENCES = 20_000  # neighbours are sought among at most this many images: bounded time at a million images
_BLOCK = 20_000_000  # similarities that are in memory at once


class Vectors(Protocol):
    """(N, D) float32 that are indexed by images: an array, or what computes or reads some rows of it."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...  # noqa: D105

    def __getitem__(self, rows: Any, /) -> Any: ...  # noqa: D105


def open_table(path: Path) -> EmbeddingTable:
    """Open an embedding table whose texts are not class-conditioned. Raises TableError for one whose texts are."""
    table = EmbeddingTable.open(path)
    if table.manifest.class_conditioned:
        raise TableError(
            f"{path}: these descriptions are class-conditioned: the describer was told the class, so they repeat the "
            "given label, and nothing can be learned about labels that are missing or wrong. Describe the images with "
            "a prompt that does not name the class (--prompt paper), or encode only those (`gpt4image encode "
            "--prompt`)."
        )
    return table


class Texts(NamedTuple):
    """Embeddings (N, D) of the descriptions of N images, which of them have one, and (K, D) embedded class names, None
    where the encoder cannot be had."""

    vectors: Vectors
    described: Bools
    names: Floats | None = None

    @classmethod
    def none(cls, total: int) -> Texts:
        """Return those of images without descriptions."""
        return cls(np.zeros((total, 1), np.float32), np.zeros(total, bool))

    def take(self, rows: Ints) -> Texts:
        """Return the texts of some images."""
        if np.array_equal(rows, np.arange(len(self.described))):
            return self
        own: Any = self.vectors
        return Texts(own[rows] if isinstance(own, np.ndarray) else own.take(rows), self.described[rows], self.names)

    def centred(self, reference: Ints) -> Vectors:
        """Return (N, D) embeddings of length 1, minus the mean of the images at ``reference``; zeros without a text."""
        among = reference[self.described[reference]]
        total = np.zeros((0, self.vectors.shape[1]), np.float32)
        for rows in blocks(len(among), total.shape[1]):  # in the order of rows, as NumPy adds them
            total = np.concatenate([total, self.vectors[among[rows]]]).sum(axis=0, keepdims=True)
        return _Centred(self, np.float32(0) if not len(among) else (total[0] / len(among)).astype(np.float32))

    def centred_names(self) -> Floats | None:
        """Return (K, D) class names of length 1, minus their own mean; None where there are none."""
        return None if self.names is None else unit(self.names - self.names.mean(axis=0))


class _Centred:
    """Embeddings of ``texts`` minus their mean, of length 1, computed where they are indexed."""

    def __init__(self, texts: Texts, mean: Any) -> None:
        self._texts, self._mean, self.shape = texts, mean, texts.vectors.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Floats:
        own = unit(self._texts.vectors[rows] - self._mean)
        return np.where(self._texts.described[rows][:, None], own, np.float32(0))


class _OnDisk:
    """(N, D) float32 in a file without a name. It is mapped for one read at a time: memory has only what is read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self._file = shape, tempfile.TemporaryFile()  # noqa: SIM115

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, rows: slice, values: Floats) -> None:
        self._file.seek(4 * self.shape[1] * rows.start)
        self._file.write(values.tobytes())
        self._file.flush()

    def __getitem__(self, rows: Any) -> Floats:
        return np.array(np.memmap(self._file, np.float32, "r", shape=self.shape)[rows])


def smooth(vectors: Vectors, reference: Ints, seed: int) -> Vectors:
    """Average embeddings (N, D) of length 1 with those of their nearest neighbours; rows of the result have length 1.

    Neighbours are among the images at ``reference``, ascending; of too many, among a sample of them.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return vectors
    among, small = vectors[reference], len(vectors) * vectors.shape[1] <= DENSE_CELLS
    smoothed = np.empty(vectors.shape, np.float32) if small else _OnDisk(vectors.shape)
    size = max(1, _BLOCK // len(reference))
    for start in range(0, len(vectors), size):
        block = slice(start, min(start + size, len(vectors)))
        own = vectors[block]
        cosines = own @ among.T
        first, last = np.searchsorted(reference, (block.start, block.stop))
        cosines[reference[first:last] - block.start, np.arange(first, last)] = -np.inf  # none is its own neighbour
        nearest = np.argpartition(cosines, -neighbours, axis=1)[:, -neighbours:]
        smoothed[block] = unit(own + among[nearest].mean(axis=1))
    return smoothed


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Return rows brought to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
