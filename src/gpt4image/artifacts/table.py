"""The embedding table: one memory-mapped float16 matrix, an index by image digest, and a manifest written last.

embeddings.npy   (M, D) float16: one unit-length row per distinct text
texts.npy        (M, 32) uint8: sha256 of each row's text, so that a later run encodes only new texts
digests.npy      (N, 32) uint8, sorted: images that have a description
offsets.npy      (N + 1,) int64: descriptions of image i are rows[offsets[i]:offsets[i + 1]]
rows.npy         (P,) int64: row of the matrix of each description

The index of a dataset has one vector of each distinct image: embeddings in the text space of a run, for search, or
features of pictures, for the teacher. Only images that it lacks are read. It is written whenever it has grown by a
quarter; ``index.json``, which names its files, comes last.

A folder of either kind is not finished without its manifest, which has the bytes and sha256 of each array (``files``).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from gpt4image import __version__
from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.base.checksums import FILES, file_facts, recorded_files, require_format, require_recorded
from gpt4image.base.errors import DamagedError, DataError, TableError, first_line
from gpt4image.base.files import atomic_path, make_folder, open_npy, read_json, write_json
from gpt4image.base.locks import acquire_lock
from gpt4image.data.dataset import Dataset

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PARTIAL = ".partial"
Count = Annotated[int, Field(ge=0)]
ARRAYS = ("embeddings", "texts", "digests", "offsets", "rows")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content and making of an embedding table.

    ``revision`` is the fingerprint of the encoder's weights and configuration, ``truncated`` the fraction of texts that
    were cut at ``max_tokens``, ``descriptions`` the number P of (image, text) pairs of M ``texts`` and N ``images``,
    ``plan`` the fingerprint of everything that determines the table. Long texts are ``cut``, or ``pool``: the mean of
    their chunks.
    """

    encoder: str
    revision: str
    precision: str
    width: Count
    max_tokens: int
    truncated: float
    descriptions: Count
    texts: Count
    images: Count
    prompts: tuple[Prompt, ...]
    store: str
    plan: str
    gpt4image: str
    length_policy: str = "cut"
    pooled: int = 0
    format_version: int = FORMAT_VERSION
    files: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def class_conditioned(self) -> bool:
        """Whether the class of the image was part of the prompt of any text."""
        return any(prompt.class_conditioned for prompt in self.prompts)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON-serialisable values."""
        return {**asdict(self), "class_conditioned": self.class_conditioned}


class EmbeddingTable:
    """Text embeddings of images, looked up by image digest. Only the rows touched are read from disk."""

    def __init__(self, path: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path, self.manifest = path, manifest
        self.embeddings: NDArray[np.float16] = arrays["embeddings"]
        self.texts: NDArray[np.uint8] = arrays["texts"]
        self.digests: NDArray[np.uint8] = arrays["digests"]
        self._offsets: NDArray[np.int64] = arrays["offsets"]
        self._rows: NDArray[np.int64] = arrays["rows"]

    @staticmethod
    def open(path: str | Path) -> EmbeddingTable:
        """Open the table in folder ``path``; arrays of up to 64 MB are compared to their checksums.

        Raises TableError: it is missing, unfinished or damaged.
        """
        path = Path(path)
        manifest = read_manifest(path)
        expected = {
            "embeddings": (np.float16, (manifest.texts, manifest.width)),
            "texts": (np.uint8, (manifest.texts, 32)),
            "digests": (np.uint8, (manifest.images, 32)),
            "offsets": (np.int64, (manifest.images + 1,)),
            "rows": (np.int64, (manifest.descriptions,)),
        }
        try:
            arrays = open_arrays(path, manifest.files, expected)
        except DamagedError as error:
            raise TableError(f"{error} Or move the folder away and run `gpt4image encode --out {path}`.") from None
        return EmbeddingTable(path, manifest, arrays)

    @property
    def width(self) -> int:
        """D, length of an embedding."""
        return self.manifest.width

    def rows_of(self, digests: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where descriptions of n images, by digest, are in ``embeddings``: ``offsets`` (n + 1,), ``rows``."""
        place = find_digests(self.digests, digests_to_bytes(digests))
        starts = self._offsets[place]  # of unknown images, -1, anything
        counts = np.where(place >= 0, self._offsets[place + 1] - starts, 0)
        offsets = np.append(0, np.cumsum(counts))
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return offsets, np.asarray(self._rows[positions])

    def vectors(self, digests: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return one unit-length embedding per image, the mean over its descriptions, and which images have one.

        ``vectors`` (n, D) float32, zeros where there is no description, and ``described`` (n,) bool.
        """
        found = self.of_images(digests)
        return found[:], found.described

    def require_own(self, images: Dataset) -> None:
        """Refuse a table that describes no training image of a dataset. Raises TableError."""
        train = images.indices("train")
        if not self.of_images([images.digests[i] for i in train]).described.any():
            raise TableError(
                f"None of the {len(train)} training images of {images.spec} has an embedding in {self.path}: the table "
                "is of other images. Run `gpt4image inspect` on the store that it came from."
            )

    def of_images(self, digests: Sequence[str]) -> ImageVectors:
        """Return the same without reading it yet."""
        offsets, rows = self.rows_of(digests)
        return ImageVectors(self.embeddings, rows, offsets[:-1], np.diff(offsets))


class ImageVectors:
    """One text embedding for each of n images, read from the memory map where it is indexed: ``vectors[rows]``."""

    def __init__(
        self, embeddings: NDArray[np.float16], rows: NDArray[Any], starts: NDArray[Any], counts: NDArray[Any]
    ) -> None:
        """Keep where the texts of each image are: ``counts`` of ``rows`` from ``starts`` on."""
        self._embeddings, self._rows, self._starts, self._counts = embeddings, rows, starts, counts

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self._counts), self._embeddings.shape[1]

    @property
    def described(self) -> NDArray[np.bool_]:
        """(n,) which images have a description."""
        return self._counts > 0

    def __len__(self) -> int:
        """Return n."""
        return len(self._counts)

    def take(self, images: NDArray[np.int64]) -> ImageVectors:
        """Return those of some images, without reading them."""
        return ImageVectors(self._embeddings, self._rows, self._starts[images], self._counts[images])

    def __getitem__(self, images: Any) -> NDArray[np.float32]:
        """Return the embeddings of some images, (m, D) float32."""
        starts, counts = self._starts[images], self._counts[images]
        offsets, described = np.cumsum(counts) - counts, counts > 0
        vectors = np.zeros((len(counts), self.shape[1]), dtype=np.float32)
        if described.any():
            positions = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
            texts = self._embeddings[self._rows[positions]].astype(np.float32)
            sums = np.add.reduceat(texts, offsets[described], axis=0)
            require_finite(sums)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            vectors[described] = sums / np.maximum(norms, np.finfo(np.float32).tiny)
        return vectors


def require_finite(vectors: NDArray[np.float32]) -> None:
    """Refuse embeddings with NaN or infinities, which nothing can be learned from. Raises TableError."""
    if not np.isfinite(vectors).all():
        raise TableError("The embedding table holds NaN or infinity: make it again with `gpt4image encode`, elsewhere.")


def is_table(path: Path) -> bool:
    """Return whether ``path`` is the folder of a finished embedding table."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the table in ``path``. Raises TableError where there is no finished table."""
    if path.is_file():
        other = path.with_suffix(".emb")
        raise TableError(
            f"{path} is a file, not an embedding table, which is a folder; targets go to --targets, and of a store "
            f"`gpt4image encode --store {path} --out {other}` makes a table."
        )
    if not is_table(path):
        command = f"`gpt4image encode --out {path}` makes it, and goes on where it stopped"
        raise TableError(f"{path}: there is no finished embedding table here (no {MANIFEST}): {command}.")
    return manifest_of(path / MANIFEST, Manifest, FORMAT_VERSION, "an embedding table")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Finish a table whose arrays are on disk: write its manifest, with their checksums."""
    finish(path / MANIFEST, manifest.to_json(), ARRAYS)


def write_index(path: Path, digests: NDArray[np.uint8], rows: NDArray[np.int64]) -> int:
    """Write the index of P descriptions, of images ``digests`` (P, 32); return the number of images.

    ``rows`` (P,) are places in ``embeddings``.
    """
    sortable = _sortable(digests)
    order = np.argsort(sortable, kind="stable")
    images, starts = np.unique(sortable[order], return_index=True)
    save_array(path / "digests.npy", images.view(np.uint8).reshape(-1, 32))
    save_array(path / "offsets.npy", np.append(starts, len(rows)).astype(np.int64))
    save_array(path / "rows.npy", rows[order].astype(np.int64))
    return len(images)


def digests_to_bytes(digests: Sequence[str]) -> NDArray[np.uint8]:
    """Return n sha256 hex digests as (n, 32) uint8."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(len(digests), 32)


def find_digests(known: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the (n,) positions of ``wanted`` (n, 32) in the sorted ``known`` (N, 32), -1 where it is missing."""
    sorted_known, sought = _sortable(known), _sortable(wanted)
    if not len(sorted_known):
        return np.full(len(sought), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(sorted_known, sought), len(sorted_known) - 1)
    return np.where(sorted_known[place] == sought, place, -1).astype(np.int64)


def text_digest(text: str) -> bytes:
    """Return the sha256 of a text: 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def _sortable(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """View (n, 32) uint8 as (n,) byte strings, which NumPy compares as memcmp does."""
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def texts_behind(tables: Sequence[Manifest], digests: Sequence[str]) -> dict[str, list[str]]:
    """Return the descriptions of images that answer the prompts of embedding tables; a store that is gone has none."""
    found: dict[str, list[str]] = {}
    for table in tables:
        if not Path(table.store).is_file():
            continue
        with DescriptionStore(Path(table.store)) as opened:
            for description in opened.descriptions(digests=digests):
                known = found.setdefault(description.digest, [])
                if description.prompt in table.prompts and description.text and description.text not in known:
                    known.append(description.text)
    return found


M = TypeVar("M")


def manifest_of(path: Path, kind: type[M], version: int, what: str) -> M:
    """Return the manifest in the file ``path``; ``what`` names the folder, as "an index". Raises TableError."""
    try:
        values = read_json(path)
        require_format(path, values["format_version"], version)
        recorded_files(values)
        return TypeAdapter(kind).validate_python(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not the manifest of {what} ({first_line(error)}).") from None


def open_arrays(
    folder: Path, files: Mapping[str, Any], expected: Mapping[str, tuple[Any, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays as memory maps by name; those of up to 64 MB are compared to their checksums in ``files``.

    ``expected`` has dtype and shape by the name of the file without ``.npy``. Raises DamagedError.
    """
    for name in expected:
        require_recorded(folder, f"{name}.npy", {FILES: files})
    return {name: open_npy(folder / f"{name}.npy", *how) for name, how in expected.items()}


def finish(path: Path, manifest: Mapping[str, Any], arrays: Iterable[str]) -> None:
    """Write the manifest to ``path``, with the checksums of the arrays beside it."""
    write_json(path, {**manifest, FILES: file_facts(path.parent, (f"{name}.npy" for name in arrays))})


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@contextlib.contextmanager
def writing(out: Path, option: str = "--out") -> Generator[None]:
    """Hold the folder of ``option`` for this process; a full disk or a read-only folder is a TableError."""
    advice = "writes to this folder; wait until it is done or stop it."
    try:
        make_folder(out)
        lock = acquire_lock(out / ".lock", 2.0, lambda who: TableError(f"{out}: {who} {advice}"))
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise TableError(
            f"{out}: cannot write here ({error.strerror or error}); free some space or give another {option}, then run "
            "the same command again: it goes on where it stopped."
        ) from error


INDEX_VERSION = 1
INDEX = "index.json"
INDEX_BLOCK = 4_096  # rows in memory at once: 6 MB of 384 numbers in fp32, which stay in the cache of a core
AT_ONCE = 4_096  # images whose rows an interruption may cost; more where there are many rows already
A_FEW = 32

Digests = NDArray[np.uint8]
# Positions of n images -> (n, D) of unit length, and (n,) which of the images could be read.
Embed = Callable[[NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.bool_]]]


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """Facts about an index: its rows are decided by ``identity``, its files have this ``name``."""

    format_version: int
    identity: dict[str, Any]
    name: str
    images: int
    width: int
    gpt4image: str = __version__
    files: dict[str, Any] = field(default_factory=dict[str, Any])


class Index(NamedTuple):
    """N distinct images: (N, D) of unit length, sorted (N, 32) digests; memory maps."""

    embeddings: NDArray[np.float16]
    digests: Digests


def open_index(folder: Path, identity: Mapping[str, Any]) -> Index | None:
    """Return the index in a folder; None where there is none, or its files are damaged, and it is to be made anew.

    ``identity`` is what decides the numbers, as JSON. Raises TableError: it is another index, or of another version.
    """
    if not (folder / INDEX).is_file():
        return None
    manifest = manifest_of(folder / INDEX, IndexManifest, INDEX_VERSION, "an index")
    if differ := sorted(key for key in identity if manifest.identity.get(key) != identity[key]):
        was = "; ".join(f"{key}: {manifest.identity.get(key)} there, {identity[key]} now" for key in differ)
        raise TableError(f"{folder} holds another index ({was}); give another folder.")
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
        # Written, not mapped: on a full disk a process that writes to a map is killed by SIGBUS.
        with atomic_path(folder / f"{files[0]}.npy") as temporary, temporary.open("wb") as file:
            about = {"descr": "<f2", "fortran_order": False, "shape": (len(known), width)}
            np.lib.format.write_array_header_1_0(file, about)
            for start in range(0, len(known), INDEX_BLOCK):
                part = known[start : start + INDEX_BLOCK]
                is_new, block = row_of[part] >= 0, np.empty((len(part), width), "<f2")
                block[is_new] = vectors[row_of[part[is_new]]]
                if earlier is not None:
                    block[~is_new] = earlier.embeddings[old[part[~is_new]]]
                file.write(block.tobytes())
        save_array(folder / f"{files[1]}.npy", digests[known])
        manifest = IndexManifest(
            format_version=INDEX_VERSION, identity=dict(identity), name=name, images=len(known), width=width
        )
        finish(folder / INDEX, asdict(manifest), files)
        for path in folder.glob("*-*.npy"):  # of earlier indexes
            if path.stem not in files:
                path.unlink(missing_ok=True)
    if (index := open_index(folder, identity)) is None:
        raise TableError(f"{folder}: what was written here cannot be read back; give another {option}.")
    return index
