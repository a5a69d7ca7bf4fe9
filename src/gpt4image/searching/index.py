"""The index of a dataset: where each distinct image lies in the text space of a run, as one memory-mapped matrix.

INDEX/index.json           what the numbers are, which files hold them, and checksums of these; replaced in one step,
                           after the files
INDEX/embeddings-NAME.npy  (N, D) float16, unit length: one row per distinct image
INDEX/digests-NAME.npy     (N, 32) uint8, sorted: sha256 of the bytes of each image
INDEX/.rows-IDENTITY/      rows that are not in these files yet; an interrupted run goes on with them

An index is brought up to date by digest: only images that it lacks are read, those that are gone leave it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.folder import finish, open_arrays, read_manifest, save_array, writing
from gpt4image.artifacts.table import find_digests
from gpt4image.base.errors import DamagedError, DataError, TableError
from gpt4image.base.files import atomic_path, fingerprint, make_folder

FORMAT_VERSION = 1
MANIFEST = "index.json"
BLOCK = 4_096  # rows in memory at once: 6 MB of 384 numbers in fp32, which stay in the cache of a core
AT_ONCE = 4_096  # images whose rows an interruption may cost
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
    """N distinct images in the text space of a run: (N, D) of unit length, sorted (N, 32) digests; memory maps."""

    embeddings: NDArray[np.float16]
    digests: Digests


def open_index(folder: Path, identity: Mapping[str, Any]) -> Index | None:
    """Return the index in a folder; None where there is none, or its files are damaged, and it is to be made anew.

    ``identity`` is what decides the numbers, JSON-serialisable. Raises TableError: the folder holds the index of
    another run or dataset, or of another version.
    """
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder / MANIFEST, Manifest, FORMAT_VERSION, "an index")
    if differ := sorted(key for key in identity if manifest.identity.get(key) != identity[key]):
        was = "; ".join(f"{key}: {manifest.identity.get(key)} there, {identity[key]} now" for key in differ)
        raise TableError(f"{folder} holds another index ({was}); give another --index, or delete the folder.")
    embeddings, digests = _files(manifest.name)
    shapes = {embeddings: (np.float16, (manifest.images, manifest.width)), digests: (np.uint8, (manifest.images, 32))}
    try:
        arrays = open_arrays(folder, manifest.files, shapes)
    except DamagedError:
        return None
    return Index(embeddings=arrays[embeddings], digests=arrays[digests])


def _files(name: str) -> tuple[str, str]:
    return f"embeddings-{name}", f"digests-{name}"


def up_to_date(
    folder: Path, identity: Mapping[str, Any], digests: Digests, order: NDArray[np.int64], width: int, embed: Embed
) -> tuple[Index, int]:
    """Return the index of a set of images, and how many were added now; the folder is written only where it must be.

    Args:
        folder, identity: as of ``open_index``.
        digests: (n, 32) sorted, those of the distinct images.
        order: (n,) the order in which reading them is fast.
        width: D.
        embed: gives the rows of images by their position in ``digests``.

    Raises TableError: the folder holds another index, cannot be written, or another process writes to it.
    """
    index, tried, read = open_index(folder, identity), order[:0], None
    unfinished = folder / f".rows-{fingerprint(identity)[:16]}"  # there after a kill too, when all is in the index
    if index is not None and not _gone(index, digests) and not unfinished.exists():
        tried = order[find_digests(index.digests, digests)[order] < 0][: A_FEW + 1]
        if not len(tried):
            return index, 0
        # Broken images are tried again each time; where there are few, a folder that cannot be written does no harm.
        read = embed(tried) if len(tried) <= A_FEW else None
        if read is not None and not read[1].any():
            return index, 0
    with writing(folder, option="--index"):
        index = open_index(folder, identity)  # who held the lock before may have done the work
        rows = _Rows(unfinished, width)
        known = _found(rows.digests(), digests) >= 0
        if index is not None:
            known |= find_digests(index.digests, digests) >= 0
        missing, added = order[~known[order]], 0
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            vectors, readable = read if read is not None and np.array_equal(part, tried) else embed(part)
            rows.append(vectors[readable], digests[part[readable]])
            added += int(readable.sum())
        if index is None or len(rows.digests()) or _gone(index, digests):
            index = _write(folder, identity, digests, index, rows)
        shutil.rmtree(unfinished, ignore_errors=True)
    return index, added


def most_similar(
    index: Index, queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``count`` rows of N images most similar to each query, best first, by exact search in blocks.

    ``queries`` are (Q, D) of unit length.

    Returns:
        (Q, min(count, N)) rows, and their cosines. Equal ones come in the order of the index.
    """
    rows, cosines = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start in range(0, len(index.embeddings), BLOCK):
        # All of it by torch: with two libraries of threads, each waits for those of the other.
        block = torch.from_numpy(np.array(index.embeddings[start : start + BLOCK])).float()
        found = (torch.from_numpy(queries) @ block.T).numpy()
        best = np.stack([_largest(row, count) for row in found])
        rows = np.hstack([rows, start + best])
        cosines = np.hstack([cosines, np.take_along_axis(found, best, axis=1)])
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(rows, best, axis=1), np.take_along_axis(cosines, best, axis=1)


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return where the ``count`` largest of some values are, largest first, equal ones in order."""
    if count < len(values):
        least = np.partition(-values, count - 1)[count - 1]
        near = np.flatnonzero(-values <= least)
    else:
        near = np.arange(len(values))
    return near[np.argsort(-values[near], kind="stable")[:count]]


class _Rows:
    """Rows in the making: appended to two plain files, vectors first; a row counts once its digest is there."""

    def __init__(self, folder: Path, width: int) -> None:
        self.width, self._folder = width, folder
        make_folder(folder)
        bytes_of = {folder / "vectors": 2 * width, folder / "digests": 32}
        for path in bytes_of:
            path.touch()
        count = min(path.stat().st_size // size for path, size in bytes_of.items())
        for path, size in bytes_of.items():
            os.truncate(path, count * size)

    def append(self, vectors: NDArray[np.float32], digests: Digests) -> None:
        """Add rows, on disk when this returns."""
        for name, values in (("vectors", vectors.astype(np.float16)), ("digests", digests)):
            with (self._folder / name).open("ab") as file:
                file.write(np.ascontiguousarray(values).tobytes())
                file.flush()
                os.fsync(file.fileno())

    def digests(self) -> Digests:
        """(M, 32) in the order of the rows."""
        return np.fromfile(self._folder / "digests", np.uint8).reshape(-1, 32)

    def vectors(self) -> NDArray[np.float16]:
        """(M, D), a memory map."""
        if not len(self.digests()):  # an empty file cannot be mapped
            return np.empty((0, self.width), np.float16)
        return np.memmap(self._folder / "vectors", np.float16, mode="r").reshape(-1, self.width)


def _write(folder: Path, identity: Mapping[str, Any], digests: Digests, earlier: Index | None, rows: _Rows) -> Index:
    """Write the index of those of ``digests`` whose row is known, and return it."""
    sources = [(rows.vectors(), _found(rows.digests(), digests))]
    if earlier is not None:
        sources.append((earlier.embeddings, find_digests(earlier.digests, digests)))
    known = np.flatnonzero(np.logical_or.reduce([places >= 0 for _, places in sources]))
    if not len(known):
        raise DataError(f"{identity['data']}: none of its images can be decoded, so there is nothing to search.")
    name = hashlib.sha256(digests[known].tobytes()).hexdigest()[:16]
    files = _files(name)
    with atomic_path(folder / f"{files[0]}.npy") as temporary:
        matrix = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(known), rows.width))
        for start in range(0, len(known), BLOCK):
            part = known[start : start + BLOCK]
            for vectors, places in sources:
                has = places[part] >= 0
                matrix[start : start + len(part)][has] = vectors[places[part[has]]]
        matrix.flush()
    save_array(folder / f"{files[1]}.npy", digests[known])
    manifest = Manifest(
        format_version=FORMAT_VERSION, identity=dict(identity), name=name, images=len(known), width=rows.width
    )
    finish(folder / MANIFEST, asdict(manifest), files)
    index = open_index(folder, identity)
    if index is None:
        raise TableError(f"{folder}: what was written here cannot be read back; give another --index.")
    for path in folder.iterdir():  # files of earlier indexes, and those that killed runs have left half written
        old = re.fullmatch(r"(?:embeddings|digests)-([0-9a-f]{16})\.npy", path.name)
        half = re.fullmatch(r"\.(?:embeddings-|digests-|index\.json).*\.tmp", path.name)
        if half or (old and old[1] != name):
            path.unlink(missing_ok=True)
    return index


def _gone(index: Index, digests: Digests) -> bool:
    """Return whether an index holds images that are not among ``digests``."""
    return bool((find_digests(digests, index.digests) < 0).any())


def _found(known: Digests, wanted: Digests) -> NDArray[np.int64]:
    """Return (n,) where each of ``wanted`` stands in ``known``, of any order; -1 where it does not."""
    order = np.argsort(np.ascontiguousarray(known).view("S32").reshape(-1), kind="stable")
    place = find_digests(known[order], wanted)
    return np.where(place >= 0, order[place], -1) if len(order) else place
