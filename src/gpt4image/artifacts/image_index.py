"""The index of a dataset: one vector of each distinct image, as one memory-mapped matrix of float16.

It holds embeddings in the text space of a run, for search, or features of pictures, for the teacher. Only images that
it lacks are read. It is written whenever it has grown by a quarter; ``index.json``, which names its files, comes last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.table import find_digests, finish, manifest_of, open_arrays, save_array, writing
from gpt4image.base.errors import DamagedError, DataError, TableError
from gpt4image.base.files import atomic_path

FORMAT_VERSION = 1
MANIFEST = "index.json"
BLOCK = 4_096  # rows in memory at once: 6 MB of 384 numbers in fp32, which stay in the cache of a core
AT_ONCE = 4_096  # images whose rows an interruption may cost; more where there are many rows already
A_FEW = 32

Digests = NDArray[np.uint8]
# Positions of n images -> (n, D) of unit length, and (n,) which of the images could be read.
Embed = Callable[[NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.bool_]]]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Facts about an index: its rows are decided by ``identity``, its files have this ``name``."""

    format_version: int
    identity: dict[str, Any]
    name: str
    images: int
    width: int
    gpt4image: str = __version__
    files: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """N distinct images: (N, D) of unit length, sorted (N, 32) digests; memory maps."""

    embeddings: NDArray[np.float16]
    digests: Digests


def open_index(folder: Path, identity: Mapping[str, Any]) -> Index | None:
    """Return the index in a folder; None where there is none, or its files are damaged, and it is to be made anew.

    ``identity`` is what decides the numbers, as JSON. Raises TableError: it is another index, or of another version.
    """
    if not (folder / MANIFEST).is_file():
        return None
    manifest = manifest_of(folder / MANIFEST, Manifest, FORMAT_VERSION, "an index")
    if differ := sorted(key for key in identity if manifest.identity.get(key) != identity[key]):
        was = "; ".join(f"{key}: {manifest.identity.get(key)} there, {identity[key]} now" for key in differ)
        raise TableError(f"{folder} holds another index ({was}); give another folder, or delete this one.")
    embeddings, digests = f"embeddings-{manifest.name}", f"digests-{manifest.name}"
    shapes = {embeddings: (np.float16, (manifest.images, manifest.width)), digests: (np.uint8, (manifest.images, 32))}
    try:
        arrays = open_arrays(folder, manifest.files, shapes)
    except DamagedError:
        return None
    return Index(embeddings=arrays[embeddings], digests=arrays[digests])


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
            index = _written(folder, identity, digests, part[readable], vectors[readable], option)
            gone = False
    return index, added


def most_similar(
    index: Index, queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``count`` rows most similar to each query (Q, D) of unit length, best first, and their cosines."""
    # All of it by torch: with two libraries of threads, each waits for those of the other.
    blocks = (index.embeddings[start : start + BLOCK] for start in range(0, len(index.embeddings), BLOCK))
    found = [(torch.from_numpy(queries) @ torch.from_numpy(np.array(block)).float().T).numpy() for block in blocks]
    cosines = np.concatenate(found, axis=1)
    rows = np.empty((len(queries), min(count, cosines.shape[1])), np.int64)
    for row, values in zip(rows, cosines, strict=True):
        least = -np.partition(-values, len(row) - 1)[len(row) - 1]
        near = np.flatnonzero(values >= least)
        row[:] = near[np.argsort(-values[near], kind="stable")[: len(row)]]
    return rows, np.take_along_axis(cosines, rows, axis=1)


def _written(
    folder: Path,
    identity: Mapping[str, Any],
    digests: Digests,
    new: NDArray[np.int64],
    vectors: NDArray[np.float32],
    option: str,
) -> Index:
    """Write the index of those of ``digests`` that are ``new``, or in the one that is there; return it."""
    with writing(folder, option=option):
        earlier = open_index(folder, identity)
        row_of = np.full(len(digests), -1)
        row_of[new] = np.arange(len(new))
        old = np.full(len(digests), -1) if earlier is None else find_digests(earlier.digests, digests)
        known = np.flatnonzero((row_of >= 0) | (old >= 0))
        if not len(known):
            raise DataError(f"{identity['data']}: none of its images can be decoded.")
        name = hashlib.sha256(digests[known].tobytes()).hexdigest()[:16]
        files, width = (f"embeddings-{name}", f"digests-{name}"), vectors.shape[1]
        with atomic_path(folder / f"{files[0]}.npy") as temporary:
            matrix = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(known), width))
            for start in range(0, len(known), BLOCK):
                part = known[start : start + BLOCK]
                is_new, block = row_of[part] >= 0, matrix[start : start + len(part)]
                block[is_new] = vectors[row_of[part[is_new]]]
                if earlier is not None:
                    block[~is_new] = earlier.embeddings[old[part[~is_new]]]
            matrix.flush()
        save_array(folder / f"{files[1]}.npy", digests[known])
        manifest = Manifest(
            format_version=FORMAT_VERSION, identity=dict(identity), name=name, images=len(known), width=width
        )
        finish(folder / MANIFEST, asdict(manifest), files)
        for path in folder.glob("*-*.npy"):  # of earlier indexes
            if path.stem not in files:
                path.unlink(missing_ok=True)
    if (index := open_index(folder, identity)) is None:
        raise TableError(f"{folder}: what was written here cannot be read back; give another {option}.")
    return index
