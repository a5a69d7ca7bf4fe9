"""The text vectors that images are aligned to: the mean of those of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.artifacts.table import EmbeddingTable, require_finite


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTargets:
    """The text vectors that the images of a set are aligned to.

    Attributes:
        matrix: (M, D) float16 or float32, one row per distinct text; may be a memory map.
        offsets: (N + 1,) int64; the texts of image i are ``rows[offsets[i]:offsets[i + 1]]``.
        rows: (R,) int64, rows of the matrix.
        table: the table that the vectors are of, which knows the texts; None for vectors without a text.
    """

    matrix: NDArray[Any]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    table: EmbeddingTable | None = None

    @property
    def width(self) -> int:
        """D, the width of the text space."""
        return self.matrix.shape[1]

    @property
    def described(self) -> NDArray[np.bool_]:
        """(N,) which images have a text."""
        return np.diff(self.offsets) > 0

    @cached_property
    def identity(self) -> NDArray[np.int64]:
        """(N,) number of the texts of each image: the least row among them, whatever their order; -1 for none."""
        has = self.described
        ids = np.full(len(has), -1, np.int64)
        ids[has] = np.minimum.reduceat(self.rows, self.offsets[:-1][has]) if has.any() else ids[has]
        return ids

    def take(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the targets of a batch.

        Args:
            indices: (B,) positions of the images.

        Returns:
            (B, D) float32, the mean text of each image (zeros where there is none); (B,) bool, whether it has any;
            (B,) int64 identity of its texts: images that share it must not be each other's negatives.
        """
        has, ids = self.offsets[indices + 1] > self.offsets[indices], self.identity[indices]
        vectors = self._means(len(indices), *self.texts_of(indices))
        return torch.from_numpy(vectors), torch.from_numpy(has), torch.from_numpy(ids)

    def texts_of(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the T texts that the targets of a batch are made of."""
        starts = self.offsets[indices]
        counts = self.offsets[indices + 1] - starts
        flat = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        return np.repeat(np.arange(len(indices)), counts), self.rows[flat]

    def of_others(self, images: NDArray[np.int64], others: NDArray[np.int64]) -> TextTargets:
        """Return targets in which ``images``, (n,), have the texts of ``others``, (n,), and no image else any."""
        whose = np.full(len(self.offsets) - 1, -1, np.int64)
        whose[images] = others
        owners, rows = self.texts_of(whose[whose >= 0])
        counts = np.zeros(len(whose), np.int64)
        counts[whose >= 0] = np.bincount(owners, minlength=len(images))
        return replace(self, offsets=np.concatenate([[0], np.cumsum(counts)]), rows=rows, table=None)

    @classmethod
    def of(cls, table: EmbeddingTable, digests: Sequence[str]) -> TextTargets:
        """Return the targets that a table holds for images, by their digests."""
        offsets, rows = table.rows_of(digests)
        return cls(matrix=table.embeddings, offsets=offsets, rows=rows, table=table)

    @classmethod
    def one_each(cls, matrix: NDArray[Any], row_of_image: NDArray[np.int64]) -> TextTargets:
        """Return targets of at most one text an image; ``row_of_image`` is (N,), -1 for none."""
        has = row_of_image >= 0
        return cls(matrix=matrix, offsets=np.concatenate([[0], np.cumsum(has)]), rows=row_of_image[has])

    def _means(self, size: int, owner: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (size, D) means of the ``rows`` of each owner, zeros where one has none."""
        vectors = np.zeros((size, self.width), np.float32)
        texts = np.asarray(self.matrix[rows], np.float32)
        counts = np.bincount(owner, minlength=size)
        if counts.max(initial=0) <= 1:  # the usual case; adding up is many times slower
            vectors[owner] = texts
        else:
            np.add.at(vectors, owner, texts)
            vectors /= np.maximum(counts, 1)[:, None]
        require_finite(vectors)
        return vectors
