"""Class probabilities of many images: of many classes only those that have mass are kept, never N x K numbers.

``zeros`` gives a plain array where that is small, else ``TopKProbs``. Both are read as plain arrays (n, K) by some
images, and written so. A function of all images goes through them in blocks, and is the same for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MOST = 20  # classes kept of an image; fewer where they hold all but LEFT of its mass
LEFT = 1e-6
DENSE_CELLS = 10_000_000  # up to so many numbers, 40 MB, all are kept
BLOCK_CELLS = 4_000_000  # numbers that are computed at once


class TopKProbs:
    """Probabilities (N, K) as M classes of each image, the most probable first, and the share of each other class.

    ``classes`` (N, M) are numbers, of which the first two differ; ``values`` (N, M) float32 fall, and those that do not
    count are ``rest`` (N,), the probability of each other class.
    """

    ndim = 2

    def __init__(self, classes: NDArray[Any], values: Floats, rest: Floats, n_classes: int) -> None:
        self.classes, self.values, self.rest, self.n_classes = classes, values, rest, n_classes

    @classmethod
    def nothing(cls, total: int, n_classes: int, most: int = MOST) -> TopKProbs:
        """Return rows of zeros."""
        most = min(most, n_classes)
        number = np.uint16 if n_classes <= np.iinfo(np.uint16).max else np.int32
        classes = np.broadcast_to(np.arange(most, dtype=number), (total, most)).copy()
        return cls(classes, np.zeros((total, most), np.float32), np.zeros(total, np.float32), n_classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, K)."""
        return len(self.rest), self.n_classes

    @property
    def named(self) -> NDArray[np.bool_]:
        """(N, M) which classes are more probable than the rest."""
        return self.values > self.rest[:, None]

    def __len__(self) -> int:
        """Return N."""
        return len(self.rest)

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse to become an array of N x K numbers by accident. Raises TypeError."""
        raise TypeError("class shares are read in blocks of rows")

    def __getitem__(self, rows: Any) -> Any:
        """Return the probabilities of some images, (n, K) or (K,); with ``[rows, classes]`` one of each, (n,)."""
        if isinstance(rows, tuple):
            rows, wanted = rows
            same = self.classes[rows] == np.asarray(wanted)[..., None]
            first = np.take_along_axis(self.values[rows], same.argmax(axis=-1)[..., None], axis=-1)[..., 0]
            return np.where(same.any(axis=-1), first, self.rest[rows])
        found = np.repeat(np.atleast_1d(self.rest[rows])[:, None], self.n_classes, axis=1)
        classes, values = np.atleast_2d(self.classes[rows]), np.atleast_2d(self.values[rows])
        np.put_along_axis(found, classes[:, ::-1].astype(np.int64), values[:, ::-1], axis=1)  # the last one stays
        return found[0] if np.ndim(self.rest[rows]) == 0 else found

    def __setitem__(self, rows: Any, found: Any) -> None:
        """Keep the classes with most of the mass of (n, K) probabilities; a number is that of each class."""
        most = self.values.shape[1]
        if np.ndim(found) == 0:
            self.values[rows], self.rest[rows] = found, found
            return
        classes = np.argpartition(found, -most, axis=1)[:, -most:] if most < self.n_classes else np.argsort(found)
        classes.sort(axis=1)
        values = np.take_along_axis(found, classes, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        classes = np.take_along_axis(classes, order, axis=1)
        values = np.take_along_axis(values, order, axis=1).astype(np.float64)
        total = found.sum(axis=1, dtype=np.float64)
        above = np.cumsum(values, axis=1) - values
        kept = above < total[:, None] * (1.0 - LEFT)
        others = np.maximum(total - (values * kept).sum(axis=1), 0.0) / np.maximum(self.n_classes - kept.sum(axis=1), 1)
        classes[~kept.any(axis=1)] = np.arange(most)  # nothing is known: the first class, as of an array
        self.classes[rows], self.rest[rows] = classes, others
        self.values[rows] = np.where(kept, values, others[:, None])

    def take(self, rows: Any) -> TopKProbs:
        """Return those of some images."""
        return TopKProbs(self.classes[rows], self.values[rows], self.rest[rows], self.n_classes)

    def any(self, axis: int = 1) -> NDArray[np.bool_]:
        """Return (N,) of which images something is known."""
        return np.asarray(self.max(axis) > 0)

    def max(self, axis: int = 1) -> Floats:
        """Return (N,) probabilities of the most probable class; ``axis`` is there as of an array."""
        return np.ascontiguousarray(self.values[:, 0])

    def argmax(self, axis: int = 1) -> Ints:
        """Return (N,) the most probable class."""
        return self.classes[:, 0].astype(np.int64)

    def tobytes(self) -> bytes:
        """Return the digest of all that counts, for fingerprints."""
        named = self.named
        kept = (named.sum(axis=1, dtype="<i4"), self.classes[named].astype("<i4"), self.values[named].astype("<f4"))
        parts = (*kept, self.rest.astype("<f4"))
        return hashlib.sha256(b"".join(hashlib.sha256(part.tobytes()).digest() for part in parts)).digest()

    def above_rest(self) -> csr_matrix:
        """Return (N, K) by how much classes are more probable than ``rest``, sparse."""
        starts = np.arange(0, self.values.size + 1, self.values.shape[1])
        more = (self.values - self.rest[:, None]).ravel().astype(np.float64)
        return csr_matrix((more, self.classes.ravel().astype(np.int64), starts), shape=self.shape)


Probabilities = Floats | TopKProbs


def zeros(total: int, n_classes: int, most: int = MOST) -> Probabilities:
    """Return (N, K) zeros: an array where it is small or nothing is saved, else shares of ``most`` classes."""
    if _is_small(total, n_classes):
        return np.zeros((total, n_classes), np.float32)
    return TopKProbs.nothing(total, n_classes, most)


def _is_small(total: int, n_classes: int) -> bool:
    return n_classes <= 2 * MOST or total * n_classes <= DENSE_CELLS


def packed(found: Floats, total: int) -> Probabilities:
    """Return some rows of ``total``, (n, K), as ``zeros`` would have them."""
    if _is_small(total, found.shape[1]):
        return found
    kept = TopKProbs.nothing(*found.shape)
    kept[:] = found
    return kept


def blocks(total: int, n_classes: int) -> Iterator[slice]:
    """Yield rows 0 to ``total`` in parts of BLOCK_CELLS numbers or DENSE_CELLS in all."""
    size = total if total * n_classes <= DENSE_CELLS else max(1, BLOCK_CELLS // n_classes)
    for start in range(0, total, max(size, 1)):
        yield slice(start, min(start + size, total))


def built(total: int, n_classes: int, make: Callable[[slice], NDArray[Any]], most: int = MOST) -> Probabilities:
    """Return (N, K) of which ``make`` gives some rows as an array."""
    found = zeros(total, n_classes, most)
    for rows in blocks(total, n_classes):
        found[rows] = make(rows)
    return found


def mapped(found: Probabilities, make: Callable[[Floats, slice], Any]) -> NDArray[Any]:
    """Return (N, ...) what ``make`` gives of some rows, which it gets as an array, and where they are."""
    places = [*blocks(len(found), found.shape[1])] or [slice(0, 0)]
    parts = [make(found[rows], rows) for rows in places]
    return np.concatenate(parts)


def chosen(found: Probabilities, rows: Any) -> Probabilities:
    """Return the probabilities of some images, kept as they were."""
    return found.take(rows) if isinstance(found, TopKProbs) else found[rows]


def joined(parts: Sequence[Any]) -> Any:
    """Return the rows of several arrays, or of several shares."""
    if not isinstance(parts[0], TopKProbs):
        return np.concatenate(parts)
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("classes", "values", "rest"))
    return TopKProbs(*arrays, n_classes=parts[0].n_classes)


def scattered(found: Any, rows: Ints, total: int, nothing: float = 0) -> Any:
    """Return the array or probabilities of ``total`` images, of which ``found`` are those at ``rows``, in order."""
    if len(rows) == total:
        return found
    if isinstance(found, TopKProbs):
        spread = TopKProbs.nothing(total, found.n_classes, found.values.shape[1])
        spread.classes[rows], spread.values[rows], spread.rest[rows] = found.classes, found.values, found.rest
        return spread
    dense = np.full((total, *found.shape[1:]), nothing, np.float32 if found.dtype.kind == "f" else found.dtype)
    dense[rows] = found
    return dense


def two_best(found: Probabilities) -> tuple[Ints, Floats]:
    """Return (N, 2) the most probable class of each image and the next one, and their probabilities."""
    if isinstance(found, TopKProbs):
        return found.classes[:, :2].astype(np.int64), found.values[:, :2]
    two: Ints = np.argsort(found, axis=1)[:, :-3:-1]
    return two, np.take_along_axis(found, two, axis=1)


def as_columns(found: Probabilities) -> dict[str, Any]:
    """Return Arrow columns of probabilities: lists of K numbers, or of the ``classes`` above the ``rest``."""
    import pyarrow as pa

    if not isinstance(found, TopKProbs):
        return {"probabilities": as_column(found)}
    named = found.named
    starts = pa.array(np.append(0, np.cumsum(named.sum(axis=1))), pa.int32())
    lists = {"classes": found.classes[named], "probabilities": found.values[named]}
    columns = {name: pa.ListArray.from_arrays(starts, pa.array(values)) for name, values in lists.items()}
    return {**columns, "rest": pa.array(found.rest)}


def of_columns(table: Any, n_classes: int) -> Probabilities:
    """Return the probabilities of which ``as_columns`` made columns. Raises ValueError: they are of other classes."""
    if "rest" not in table.column_names:
        return as_array(table.column("probabilities"), np.float32)
    lists = [table.column(name).combine_chunks() for name in ("classes", "probabilities")]
    classes, values = (part.flatten().to_numpy(zero_copy_only=False) for part in lists)
    counts = np.diff(lists[0].offsets.to_numpy())
    most, lowest, highest = max(2, int(counts.max(initial=0))), classes.min(initial=0), classes.max(initial=0)
    if len(classes) != len(values) or most > n_classes or lowest < 0 or highest >= n_classes:
        raise ValueError(f"classes {lowest} to {highest} of {n_classes}")
    found = TopKProbs.nothing(len(counts), n_classes, most)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    found.rest[:] = table.column("rest").to_numpy()
    found.values[:] = found.rest[:, None]
    found.classes[rows, places], found.values[rows, places] = classes, values
    other = (found.classes[:, 0].astype(np.int64) + 1) % n_classes
    found.classes[:, 1] = np.where(counts == 1, other, found.classes[:, 1])
    return found


def as_column(values: NDArray[Any]) -> Any:
    """Return the Arrow array of a vector, or of the rows of a matrix; NaN becomes null."""
    import pyarrow as pa

    flat = pa.array(values.reshape(-1), from_pandas=True)
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def as_array(column: Any, dtype: type[Any]) -> NDArray[Any]:
    """Return the vector or matrix of which ``as_column`` made an Arrow column."""
    values = column.combine_chunks()
    if not is_matrix(values):
        return values.to_numpy(zero_copy_only=False).astype(dtype)
    return values.flatten().to_numpy(zero_copy_only=False).astype(dtype).reshape(len(values), -1)


def is_matrix(column: Any) -> bool:
    """Return whether ``as_column`` made an Arrow column of a matrix."""
    import pyarrow as pa

    return pa.types.is_nested(column.type)
