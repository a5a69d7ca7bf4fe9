"""What the texts of images say, as vectors: the embeddings of one table or of several, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.encoding.class_names import ClassNames, find_class_names
from gpt4image.labelling.neighbours import nearest

if TYPE_CHECKING:
    from gpt4image.labelling.reading import Method

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEIGHBOURS = 20
MAX_REFERENCES = 20_000  # neighbours are sought among at most this many images: bounded time at a million images


class Table(Protocol):
    """What is asked of an embedding table."""

    def vectors(self, digests: Sequence[str]) -> tuple[NDArray[np.float32], Bools]:
        """Return one embedding per image, (n, D), and which images have one, (n,)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Embeddings of the descriptions of N images, by T tables: several encoders, or several descriptions.

    Attributes:
        parts: T arrays (N, D_t) float32; a row without a description is not looked at.
        has: T arrays (N,) bool, which images the table describes.
        names: T arrays (K, D_t) of embedded class names, None for a table whose encoder cannot be had.
    """

    parts: tuple[NDArray[np.float32], ...]
    has: tuple[Bools, ...]
    names: tuple[NDArray[np.float32] | None, ...]

    @property
    def described(self) -> Bools:
        """(N,) which images at least one table describes."""
        return np.logical_or.reduce(self.has)

    def take(self, rows: Ints) -> Texts:
        """Return the texts of some images."""
        return replace(self, parts=tuple(part[rows] for part in self.parts), has=tuple(has[rows] for has in self.has))

    @classmethod
    def one(cls, vectors: NDArray[np.float32], described: Bools, names: NDArray[np.float32] | None = None) -> Texts:
        """Return the texts of a single table."""
        return cls(parts=(vectors,), has=(described,), names=(names,))

    @classmethod
    def of(
        cls,
        tables: Sequence[Table],
        digests: Sequence[str],
        names: Sequence[NDArray[np.float32] | None],
    ) -> Texts:
        """Return the texts that tables hold for images, by their digests."""
        parts, has = zip(*(table.vectors(digests) for table in tables), strict=True)
        return cls(parts=parts, has=has, names=tuple(names))


def embedded_names(tables: Sequence[Path], device: str, classes: tuple[str, ...], method: Method) -> list[ClassNames]:
    """Return the class names in the space of each table; none where they cannot be had or are not read."""
    if method == "propagation":
        return [ClassNames(missing="")] * len(tables)
    return [find_class_names(path, device, classes) for path in tables]


def side_by_side(texts: Texts, reference: Ints) -> NDArray[np.float32]:
    """Return (N, D) embeddings of length 1, each table with the same weight; D is the sum of the widths.

    Every table is centred on the mean of the reference images. A table that does not describe an image leaves its part
    at the centre, zero, and the other tables all the weight.

    Args:
        texts: of N images.
        reference: positions of the images that define the centre.
    """
    parts = []
    for vectors, has in zip(texts.parts, texts.has, strict=True):
        among = reference[has[reference]]
        centre = vectors[among].mean(axis=0) if len(among) else vectors[:0].sum(axis=0)
        parts.append(np.where(has[:, None], unit(vectors - centre), np.float32(0)))
    return unit(np.concatenate(parts, axis=1))


def named(texts: Texts) -> NDArray[np.float32] | None:
    """Return (K, D) class names of length 1 in the space of ``side_by_side``; None where no table has any."""
    if all(names is None for names in texts.names):
        return None
    parts = [
        np.zeros((0, part.shape[1]), np.float32) if names is None else unit(names - names.mean(axis=0))
        for part, names in zip(texts.parts, texts.names, strict=True)
    ]
    count = max(len(part) for part in parts)
    return unit(np.concatenate([np.zeros((count, p.shape[1]), np.float32) if not len(p) else p for p in parts], axis=1))


def smooth(vectors: NDArray[np.float32], reference: Ints, seed: int) -> NDArray[np.float32]:
    """Average embeddings with those of their nearest neighbours; rows of the result have length 1.

    Args:
        vectors: (N, D) embeddings of length 1, as ``side_by_side`` returns them.
        reference: ascending positions of the images that may be neighbours.
        seed: draws the references where there are too many.

    Returns:
        (N, D) float32.
    """
    if len(reference) > MAX_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).choice(reference, MAX_REFERENCES, replace=False))
    neighbours = min(NEIGHBOURS, int(np.sqrt(len(reference))), len(reference) - 1)
    if neighbours < 1:
        return vectors
    smoothed = np.empty_like(vectors)
    for block, chosen, _ in nearest(vectors, reference, neighbours):
        smoothed[block] = vectors[block] + vectors[reference[chosen]].mean(axis=1)
    return unit(smoothed)


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Return rows brought to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
