"""Nearest neighbours among embeddings, by exact search in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

_BLOCK = 20_000_000  # similarities that are in memory at once


def nearest(
    vectors: NDArray[np.float32], pool: Ints, count: int
) -> Iterator[tuple[slice, NDArray[np.intp], NDArray[np.float32]]]:
    """Yield the nearest neighbours of all rows, block by block; no row is its own neighbour.

    Args:
        vectors: (N, D) rows of length 1.
        pool: (n,) ascending positions of the rows that may be neighbours.
        count: k, neighbours of each row; fewer than n.

    Yields:
        The rows of the block; (b, k) positions in ``pool``, in no order; (b, k) their cosines.
    """
    among = vectors[pool]
    size = max(1, _BLOCK // len(pool))
    for start in range(0, len(vectors), size):
        block = slice(start, min(start + size, len(vectors)))
        cosines = vectors[block] @ among.T
        first, last = np.searchsorted(pool, (block.start, block.stop))
        cosines[pool[first:last] - block.start, np.arange(first, last)] = -np.inf
        chosen = np.argpartition(cosines, -count, axis=1)[:, -count:]
        yield block, chosen, np.take_along_axis(cosines, chosen, axis=1)
