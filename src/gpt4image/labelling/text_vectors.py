"""Embeddings of descriptions as inputs of the text classifier: centred, and smoothed over their nearest neighbours."""

from __future__ import annotations

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
        seed: of the choice of references where there are too many.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return vectors
    smoothed, among = np.empty_like(vectors), vectors[reference]
    size = max(1, _BLOCK // len(reference))
    for start in range(0, len(vectors), size):
        block = slice(start, min(start + size, len(vectors)))
        cosines = vectors[block] @ among.T
        first, last = np.searchsorted(reference, (block.start, block.stop))
        cosines[reference[first:last] - block.start, np.arange(first, last)] = -np.inf  # none is its own neighbour
        nearest = np.argpartition(cosines, -neighbours, axis=1)[:, -neighbours:]
        smoothed[block] = vectors[block] + among[nearest].mean(axis=1)
    return unit(smoothed)


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Return rows brought to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
