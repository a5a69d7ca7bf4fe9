"""The embedding table: one memory-mapped float16 matrix, an index by image digest, and a manifest written last.

embeddings.npy   (M, D) float16: one unit-length row per distinct text
texts.npy        (M, 32) uint8: sha256 of each row's text, so that a later run encodes only new texts
digests.npy      (N, 32) uint8, sorted: images that have a description
offsets.npy      (N + 1,) int64: descriptions of image i are rows[offsets[i]:offsets[i + 1]]
rows.npy         (P,) int64: row of the matrix of each description

A folder without its manifest is not finished.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.base import manifest as manifests
from gpt4image.base.errors import TableError, first_line
from gpt4image.base.files import atomic_path, make_folder, open_npy
from gpt4image.base.locks import acquire_lock
from gpt4image.base.manifest import MANIFEST
from gpt4image.data.dataset import Dataset

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
    files: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def class_conditioned(self) -> bool:
        """Whether the class of the image was part of the prompt of any text."""
        return any(prompt.class_conditioned for prompt in self.prompts)


class EmbeddingTable:
    """Text embeddings of images, looked up by image digest. Only the rows touched are read from disk."""

    def __init__(self, path: str | Path) -> None:
        """Open the table in a folder. Raises TableError: it is missing or unfinished; DamagedError."""
        self.path = path = Path(path)
        self.manifest = made = read_manifest(path)
        self.embeddings: NDArray[np.float16] = open_npy(path / "embeddings.npy", np.float16, (made.texts, made.width))
        self.texts: NDArray[np.uint8] = open_npy(path / "texts.npy", np.uint8, (made.texts, 32))
        self.digests: NDArray[np.uint8] = open_npy(path / "digests.npy", np.uint8, (made.images, 32))
        self._offsets: NDArray[np.int64] = open_npy(path / "offsets.npy", np.int64, (made.images + 1,))
        self._rows: NDArray[np.int64] = open_npy(path / "rows.npy", np.int64, (made.descriptions,))

    @staticmethod
    def open(path: str | Path) -> EmbeddingTable:
        """Open the table in folder ``path``. Raises TableError: it is missing or unfinished; DamagedError."""
        return EmbeddingTable(path)

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
    if not is_table(path):
        if path.is_file():
            raise TableError(f"{path} is a file; an embedding table is the folder that `gpt4image encode` writes.")
        command = f"`gpt4image encode --out {path}` makes it, and goes on where it stopped"
        raise TableError(f"{path}: there is no finished embedding table here (no {MANIFEST}): {command}.")
    values = manifests.read_manifest(path / MANIFEST)
    try:
        return TypeAdapter(Manifest).validate_python({name: values[name] for name in values.keys() - {"format"}})
    except ValidationError as error:
        raise TableError(
            f"{path / MANIFEST} is not the manifest of an embedding table ({first_line(error)})."
        ) from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Finish a table whose arrays are on disk: write its manifest."""
    facts = {**asdict(manifest), "class_conditioned": manifest.class_conditioned}
    manifests.write_manifest(path / MANIFEST, [f"{name}.npy" for name in ARRAYS], facts)


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
