"""Class probabilities (N, K) of many images: plain float32 arrays, computed in blocks; files keep the best classes.

An array of more than ``IN_MEMORY`` numbers lies in a temporary file and is mapped: ImageNet's 1.28 million images with
1,000 classes take 5 GB of disk, and of memory only the block that is computed. ``allocate`` gives such arrays, and
``from_blocks``, ``take``, ``scatter`` and ``concat`` fill them part by part. Set TMPDIR where /tmp lies in memory.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.files import naming

Probabilities = NDArray[np.float32]
Ints = NDArray[np.int64]

KEPT = 20  # classes of an image that a file holds; the others share what is left
IN_MEMORY = 100_000_000  # up to so many numbers, 400 MB, are in memory
AT_ONCE = 10_000_000  # numbers that are computed at once, where there are more
BLOCK_CELLS = 4_000_000  # numbers of a block, where there are several


def allocate(total: int, width: int, nothing: float = 0.0) -> Probabilities:
    """Return a (total, width) float32 array, in memory or in a nameless file. Raises OSError: the disk is full."""
    if total * width <= IN_MEMORY:
        return np.full((total, width), nothing, np.float32)
    with naming(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # a hole that no disk has room for would end the process at the first write
            os.posix_fallocate(file.fileno(), 0, 4 * total * width)
        found = np.asarray(np.memmap(file, np.float32, "r+" if file.seek(0, 2) else "w+", shape=(total, width)))
    if nothing:
        found[:] = nothing
    return found


def blocks(total: int, width: int) -> Iterator[slice]:
    """Yield rows 0 to ``total`` in parts of BLOCK_CELLS numbers, or AT_ONCE in all."""
    size = total if total * width <= AT_ONCE else max(1, BLOCK_CELLS // width)
    for start in range(0, total, max(size, 1)):
        yield slice(start, min(start + size, total))


def from_blocks(total: int, width: int, make: Callable[[slice], NDArray[Any]]) -> Probabilities:
    """Return (total, width) numbers of which ``make`` gives some rows."""
    found = allocate(total, width)
    for rows in blocks(total, width):
        found[rows] = make(rows)
    return found


def map_blocks(found: Probabilities, make: Callable[[Probabilities, slice], Any]) -> NDArray[Any]:
    """Return (N, ...) what ``make`` gives of some rows, and of where they are."""
    places = [*blocks(len(found), found.shape[1])] or [slice(0, 0)]
    return np.concatenate([make(found[rows], rows) for rows in places])


def take(found: Any, rows: Any) -> Any:
    """Return some rows of an array or of what is indexed like one."""
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.size <= IN_MEMORY:
        return found[rows]
    places: Ints = np.arange(len(found))[rows]
    source: Probabilities = found
    return from_blocks(len(places), source.shape[1], lambda block: source[places[block]])


def concat(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of several arrays."""
    if parts[0].ndim != 2 or parts[0].dtype != np.float32:
        return np.concatenate(parts)
    found, start = allocate(sum(map(len, parts)), parts[0].shape[1]), 0
    for part in parts:
        found[start : start + len(part)] = part
        start += len(part)
    return found


def scatter(found: Any, rows: Ints, total: int, nothing: float = 0) -> Any:
    """Return the array of ``total`` images, of which ``found`` are those at ``rows``, in order."""
    if len(rows) == total:
        return found
    if found.ndim == 2 and found.dtype.kind == "f":
        spread = allocate(total, found.shape[1], nothing)
        for block in blocks(len(rows), found.shape[1]):
            spread[rows[block]] = found[block]
        return spread
    plain = np.full((total, *found.shape[1:]), nothing, found.dtype)
    plain[rows] = found
    return plain


def two_best(found: Probabilities) -> tuple[Ints, Probabilities]:
    """Return (N, 2) the most probable class of each image and the next one, and their probabilities."""
    best = np.asarray(map_blocks(found, lambda some, _: np.argsort(some, axis=1)[:, :-3:-1]), np.int64)
    return best, np.take_along_axis(found, best, axis=1)


def to_columns(found: Probabilities, *, exclusive: bool) -> dict[str, Any]:
    """Return Arrow columns: the ``probabilities`` of all classes, or, if each image has one class out of more than
    KEPT, those of its ``classes``, the KEPT best ones, most probable first."""
    if not exclusive or found.shape[1] <= KEPT:
        return {"probabilities": as_column(found)}
    best: NDArray[np.int32] = np.argsort(-found, axis=1, kind="stable")[:, :KEPT].astype(np.int32)
    return {"classes": as_column(best), "probabilities": as_column(np.take_along_axis(found, best, axis=1))}


def from_columns(table: Any, n_classes: int) -> Probabilities:
    """Return the (N, K) probabilities of which ``to_columns`` made columns; classes that are not there share the rest.

    Raises ValueError: they are of other classes.
    """
    if "classes" not in table.column_names:
        return as_array(table.column("probabilities"), np.float32)
    classes, values = as_array(table.column("classes"), np.int64), as_array(table.column("probabilities"), np.float32)
    if classes.shape != values.shape or classes.min(initial=0) < 0 or classes.max(initial=0) >= n_classes:
        raise ValueError(f"classes {classes.min(initial=0)} to {classes.max(initial=0)} of {n_classes}")

    def block(rows: slice) -> Probabilities:
        known = values[rows].sum(axis=1, keepdims=True, dtype=np.float64)
        rest = np.where(known > 0, np.maximum(1.0 - known, 0.0), 0.0) / (n_classes - classes.shape[1])
        found = np.repeat(rest, n_classes, axis=1).astype(np.float32)
        np.put_along_axis(found, classes[rows], values[rows], axis=1)
        return found

    return from_blocks(len(classes), n_classes, block)


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
