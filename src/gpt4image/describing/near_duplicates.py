"""Texts that nearly repeat another one, among too many to compare every pair.

MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3) proposes
pairs, and each proposed pair is compared exactly. Memory is 128 bytes per text; the texts are read again, not kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer

from gpt4image.describing.flaws import words

# Pairs of similarity 0.8 are proposed with probability 0.998, those of 0.5 with 0.4, those of 0.2 with 0.005.
_BANDS, _HASHES_PER_BAND = 16, 5
_SHINGLE = 3
_TEXTS_AT_ONCE = 500


def _shingles(text: str) -> list[str]:
    """Return the sequences of three words; of a shorter text, all of it."""
    own = words(text)
    return [" ".join(own[start : start + _SHINGLE]) or text for start in range(max(1, len(own) - _SHINGLE + 1))]


# The stubs of scikit-learn know only the default values.
_OPTIONS: dict[str, Any] = {"analyzer": _shingles, "norm": None, "alternate_sign": False, "dtype": np.float32}
_VECTORIZER = HashingVectorizer(n_features=2**30, binary=True, **_OPTIONS)
_RNG = np.random.default_rng(0)
# Odd factors and shifts of 64 bits: multiply-shift hashing (Dietzfelbinger et al. 1997).
_PERMUTATIONS = _RNG.integers(2**64, size=(_BANDS * _HASHES_PER_BAND, 2), dtype=np.uint64) | np.uint64(1)
_MIX = _RNG.integers(2**64, size=_HASHES_PER_BAND, dtype=np.uint64) | np.uint64(1)


def near_duplicates(
    texts: Iterable[str], read: Callable[[NDArray[np.int64]], Sequence[str]], *, similarity: float = 0.8
) -> list[NDArray[np.int64]]:
    """Return groups of texts that are nearly the same, the largest first.

    Args:
        texts: N texts, read once, in order.
        read: returns the texts at positions in 0..N-1.
        similarity: least Jaccard similarity of the three-word sequences of two texts that belong together.

    Returns:
        Positions of the texts of each group, ascending, two or more. Every text is similar to another one of its group.
    """
    waiting, banded = iter(texts), list[NDArray[np.uint64]]()
    while batch := list(itertools.islice(waiting, _TEXTS_AT_ONCE)):
        banded.append(_bands(_rows(batch)))
    if not banded:
        return []
    bands = np.concatenate(banded)
    pairs = _proposed(bands)
    parts = [pairs[start : start + _TEXTS_AT_ONCE] for start in range(0, len(pairs), _TEXTS_AT_ONCE)]
    similar = [part[_similarity(read(part[:, 0]), read(part[:, 1])) >= similarity] for part in parts]
    first, second = np.concatenate(similar).T if similar else np.empty((2, 0), dtype=np.int64)
    links = sparse.coo_array((np.ones(len(first), dtype=np.bool_), (first, second)), shape=(len(bands), len(bands)))
    count, group = connected_components(links, directed=False)
    sizes = np.bincount(group, minlength=count)
    order = np.argsort(group, kind="stable")
    members = np.split(order[sizes[group[order]] > 1], np.cumsum(sizes[sizes > 1])[:-1])
    return sorted(filter(len, members), key=len, reverse=True)


def _bands(shingles: sparse.csr_matrix) -> NDArray[np.uint64]:
    """Return (n, bands) from rows of which none is empty: texts that are equal in any column are worth comparing."""
    columns, starts = shingles.indices.astype(np.uint64), shingles.indptr[:-1]
    smallest = [
        np.minimum.reduceat((columns * factor + shift) >> np.uint64(32), starts) for factor, shift in _PERMUTATIONS
    ]
    signature = np.stack(smallest, axis=1).reshape(len(starts), _BANDS, _HASHES_PER_BAND)
    return (signature * _MIX).sum(axis=2, dtype=np.uint64)


def _proposed(bands: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (pairs, 2) positions: of the texts that share a band, the first one with each of the others."""
    found = [np.empty(0, dtype=np.int64)]
    for column in bands.T:
        order = np.argsort(column, kind="stable")
        new = np.r_[True, np.diff(column[order]) != 0]
        first = order[np.flatnonzero(new)][np.cumsum(new) - 1]
        found.append((first * len(bands) + order)[~new])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), len(bands)), axis=1)


def _rows(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return (n, features) rows of the shingles that each text has; none is empty."""
    return sparse.csr_matrix(_VECTORIZER.transform(texts))


def _similarity(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of each pair of texts."""
    one, other = _rows(first), _rows(second)
    shared = np.asarray(one.multiply(other).sum(axis=1)).ravel()
    return shared / (np.diff(one.indptr) + np.diff(other.indptr) - shared)
