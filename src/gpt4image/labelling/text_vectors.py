"""Embeddings of descriptions as the text classifier reads them: centred, and smoothed over their nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEIGHBOURS = 20
MAX_REFERENCES = 20_000  # neighbours are sought among at most this many images: bounded time at a million images
_BLOCK = 20_000_000  # similarities that are in memory at once


class Texts(NamedTuple):
    """Embeddings of the descriptions of N images.

    Attributes:
        vectors: (N, D) float32; a row without a description is not looked at.
        described: (N,) bool, which images have one.
        names: (K, D) embedded class names; None where the encoder cannot be had.
    """

    vectors: NDArray[np.float32]
    described: Bools
    names: NDArray[np.float32] | None = None

    def take(self, rows: Ints) -> Texts:
        """Return the texts of some images."""
        return Texts(self.vectors[rows], self.described[rows], self.names)

    def centred(self, reference: Ints) -> NDArray[np.float32]:
        """Return (N, D) embeddings of length 1, minus the mean of the images at ``reference``; zeros without a text."""
        among = reference[self.described[reference]]
        centre = self.vectors[among].mean(axis=0) if len(among) else np.float32(0)
        return np.where(self.described[:, None], unit(self.vectors - centre), np.float32(0))

    def centred_names(self) -> NDArray[np.float32] | None:
        """Return (K, D) class names of length 1, minus their own mean; None where there are none."""
        return None if self.names is None else unit(self.names - self.names.mean(axis=0))


def smooth(vectors: NDArray[np.float32], reference: Ints, seed: int) -> NDArray[np.float32]:
    """Average embeddings with those of their nearest neighbours; rows of the result have length 1.

    Args:
        vectors: (N, D) embeddings of length 1, as ``Texts.centred`` returns them.
        reference: ascending positions of the images that may be neighbours.
        seed: draws the references where there are too many.

    Returns:
        (N, D) float32.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return vectors
    smoothed = np.empty_like(vectors)
    for block, chosen in _nearest(vectors, reference, neighbours):
        smoothed[block] = vectors[block] + vectors[reference[chosen]].mean(axis=1)
    return unit(smoothed)


def _nearest(vectors: NDArray[np.float32], pool: Ints, count: int) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """Yield the nearest neighbours of all rows, block by block; no row is its own neighbour.

    Args:
        vectors: (N, D) rows of length 1.
        pool: (n,) ascending positions of the rows that may be neighbours.
        count: k, neighbours of each row; fewer than n.

    Yields:
        The rows of the block; (b, k) positions in ``pool``, in no order.
    """
    among = vectors[pool]
    size = max(1, _BLOCK // len(pool))
    for start in range(0, len(vectors), size):
        block = slice(start, min(start + size, len(vectors)))
        cosines = vectors[block] @ among.T
        first, last = np.searchsorted(pool, (block.start, block.stop))
        cosines[pool[first:last] - block.start, np.arange(first, last)] = -np.inf
        yield block, np.argpartition(cosines, -count, axis=1)[:, -count:]


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Return rows brought to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
