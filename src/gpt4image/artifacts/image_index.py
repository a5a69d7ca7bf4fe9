"""The index of a dataset: one vector of each distinct image, embeddings for search or features for the teacher.

index.json   what decides the vectors
index.npy    (N,) records of a digest and a vector, sorted by digest: one file, replaced as a whole

Only images that it lacks are read. It is written whenever it has grown by a quarter.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import find_digests, writing
from gpt4image.base.errors import DamagedError, DataError, TableError, parsing
from gpt4image.base.files import atomic_path, damaged, read_json, require_format, write_json

FORMAT = 2
INDEX, VECTORS = "index.json", "index.npy"
INDEX_BLOCK = 4_096  # rows in memory at once: 6 MB of 384 numbers in fp32, which stay in the cache of a core
AT_ONCE = 4_096  # images whose rows an interruption may cost; more where there are many rows already
A_FEW = 32

Digests = NDArray[np.uint8]
# Positions of n images -> (n, D) of unit length, and (n,) which of the images could be read.
Embed = Callable[[NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.bool_]]]


class Index(NamedTuple):
    """N distinct images: (N, D) of unit length, a memory map, and their sorted (N, 32) digests."""

    embeddings: NDArray[np.float16]
    digests: Digests


def _record(width: int) -> np.dtype[Any]:
    return np.dtype([("digest", "u1", (32,)), ("vector", "<f2", (width,))])


def open_index(folder: Path, identity: Mapping[str, Any]) -> Index | None:
    """Return the index in a folder; None where there is none.

    ``identity`` is what decides the numbers, as JSON. Raises TableError: it is another index or damaged.
    """
    if not (folder / INDEX).is_file():
        return None
    made = read_json(folder / INDEX)
    if not isinstance(made, dict) or not isinstance(known := made.get("identity"), dict):
        raise damaged(folder / INDEX, "it is not the record of an index")
    require_format(folder / INDEX, made.get("format"), FORMAT)
    if differ := sorted(key for key in identity if known.get(key) != identity[key]):
        was = "; ".join(f"{key}: {known.get(key)} there, {identity[key]} now" for key in differ)
        raise TableError(f"{folder} holds another index ({was}); give another folder.")
    if not (folder / VECTORS).is_file():
        return None
    with parsing(f"{folder / VECTORS} is damaged: it cannot be read as an array", DamagedError):
        rows = np.lib.format.open_memmap(folder / VECTORS, mode="r")
    if rows.ndim != 1 or rows.dtype.names != ("digest", "vector") or rows.dtype != _record(rows["vector"].shape[-1]):
        raise damaged(folder / VECTORS, f"it holds {rows.dtype}, not digests and vectors")
    return Index(embeddings=rows["vector"], digests=np.ascontiguousarray(rows["digest"]))


def up_to_date(
    folder: Path,
    identity: Mapping[str, Any],
    digests: Digests,
    order: NDArray[np.int64],
    width: int,
    embed: Embed,
    option: str = "--index",
) -> tuple[Index, int]:
    """Return the index of a set of images, and how many were added now; the folder is written only where it must be.

    ``digests`` (n, 32) are those of the distinct images, sorted; ``order`` (n,) is the one in which reading is fast;
    ``embed`` gives the rows, of ``width`` numbers, of images by position; ``option`` names the folder in messages.
    Raises TableError, and DataError where no image can be decoded.
    """
    index, added = open_index(folder, identity), 0
    missing = order if index is None else order[find_digests(index.digests, digests)[order] < 0]
    gone = index is not None and bool((find_digests(digests, index.digests) < 0).any())
    # Broken images are tried again each time; where there are few, a folder that cannot be written does no harm.
    if len(missing) > A_FEW:
        with writing(folder, option=option):
            pass  # it is known before images are read
    while len(missing) or gone or index is None:
        size = AT_ONCE if index is None else max(AT_ONCE, len(index.digests) // 4)
        part, missing = missing[:size], missing[size:]
        vectors, readable = embed(part) if len(part) else (np.empty((0, width), np.float32), np.zeros(0, np.bool_))
        added += int(readable.sum())
        if readable.any() or gone or (not len(missing) and index is None):
            with writing(folder, option=option):
                index = _written(folder, identity, digests, part[readable], vectors[readable])
            gone = False
    return index, added


def _written(
    folder: Path, identity: Mapping[str, Any], digests: Digests, new: NDArray[np.int64], vectors: NDArray[np.float32]
) -> Index:
    """Write the index of those of ``digests`` that are ``new``, or in the one that is there; return it."""
    earlier = open_index(folder, identity)
    row_of = np.full(len(digests), -1)
    row_of[new] = np.arange(len(new))
    old = row_of * 0 - 1 if earlier is None else find_digests(earlier.digests, digests)
    known = np.flatnonzero((row_of >= 0) | (old >= 0))
    if not len(known):
        raise DataError(f"None of the {len(digests)} images can be decoded.")
    if earlier is None:
        write_json(folder / INDEX, {"format": FORMAT, "identity": dict(identity)})
    record = _record(vectors.shape[1])
    # Written, not mapped: on a full disk a process that writes to a map is killed by SIGBUS.
    with atomic_path(folder / VECTORS) as temporary, temporary.open("wb") as file:
        about = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (len(known),)}
        np.lib.format.write_array_header_1_0(file, about)
        for start in range(0, len(known), INDEX_BLOCK):
            part = known[start : start + INDEX_BLOCK]
            block, is_new = np.empty(len(part), record), row_of[part] >= 0
            block["digest"] = digests[part]
            block["vector"][is_new] = vectors[row_of[part[is_new]]]
            if earlier is not None:
                block["vector"][~is_new] = earlier.embeddings[old[part[~is_new]]]
            file.write(block.tobytes())
    if (index := open_index(folder, identity)) is None:
        raise TableError(f"{folder}: what was written here is gone; give another folder.")
    return index


def most_similar(
    index: Index, queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``count`` rows most similar to each query (Q, D) of unit length, best first, and their cosines."""
    import torch

    # All of it by torch: with two libraries of threads, each waits for those of the other.
    blocks = (index.embeddings[start : start + INDEX_BLOCK] for start in range(0, len(index.embeddings), INDEX_BLOCK))
    found = [(torch.from_numpy(queries) @ torch.from_numpy(np.array(block)).float().T).numpy() for block in blocks]
    cosines = np.concatenate(found, axis=1)
    rows = np.empty((len(queries), min(count, cosines.shape[1])), np.int64)
    for row, values in zip(rows, cosines, strict=True):
        least = -np.partition(-values, len(row) - 1)[len(row) - 1]
        near = np.flatnonzero(values >= least)
        row[:] = near[np.argsort(-values[near], kind="stable")[: len(row)]]
    return rows, np.take_along_axis(cosines, rows, axis=1)
