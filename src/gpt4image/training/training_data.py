"""What a training run reads: pixels, the labels it may see, targets of a teacher and texts, joined by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.artifacts.probabilities import Probabilities, take
from gpt4image.artifacts.table import EmbeddingTable, require_finite
from gpt4image.base.outcome import Skipped
from gpt4image.data import annotation
from gpt4image.data.dataset import Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.pixels import Pixels
from gpt4image.parallel import processes
from gpt4image.tasks.base import Labels, Target, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTargets:
    """The text vectors that the images of a set are aligned to.

    Attributes:
        matrix: (M, D) float16 or float32, one row per distinct text; may be a memory map.
        offsets, rows: the texts of image i are the rows ``rows[offsets[i]:offsets[i + 1]]`` of the matrix.
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
        """Return (B, D) float32 mean texts (zeros: none), (B,) bool if there is one, (B,) int64 identities."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Everything a run reads; arms of a comparison differ in ``labels``, ``soft`` and ``text`` alone.

    Attributes:
        image_set, pixels: N images with their splits and true annotations, and what is decoded of them.
        usable: (N,) bool, which images can be decoded; the others belong to no split.
        labels: (N, ...) the labels that training may see.
        soft: (N, K) targets by a teacher, used instead of ``labels``; None without.
        text: text targets of the alignment; None without.
        from_text: (N,) bool, which images have a text label; None without.
        none_of_these: (N,) bool, which images without a target show none of the classes, as answers say; None without.
        skipped: images known to be unusable before training.
    """

    image_set: Dataset
    pixels: Pixels
    usable: NDArray[np.bool_]
    task: Task
    labels: Labels
    soft: Probabilities | None = None
    text: TextTargets | None = None
    from_text: NDArray[np.bool_] | None = None
    skipped: tuple[Skipped, ...] = ()
    none_of_these: NDArray[np.bool_] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names."""
        return self.image_set.classes

    @property
    def all_labels(self) -> Labels:
        """(N, ...) true annotations, of which training may see ``labels``."""
        return self.task.annotations(self.image_set)

    @property
    def unusable(self) -> tuple[Skipped, ...]:
        """Images that cannot be used, with those that worker processes have met since."""
        return tuple(dict.fromkeys((*self.skipped, *self.pixels.skipped)))

    @property
    def described(self) -> NDArray[np.bool_]:
        """(N,) bool, the images that learn from a description, by its embedding or by a text label."""
        found = np.zeros(len(self.usable), np.bool_)
        if self.text is not None:
            found |= np.asarray(self.text.described, np.bool_)
        return found if self.from_text is None else found | self.from_text

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) bool, the images that people labelled; boxes of a teacher stand where there are no human ones."""
        known = annotation.known(self.labels)
        return known & ~self.from_text if self.task.boxes and self.from_text is not None else known

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the usable images of one split, in order."""
        return np.flatnonzero((self.image_set.splits == split) & self.usable)

    def without_met(self) -> TrainingData:
        """Return the data without images that decoding has found to be broken since, in any process."""
        every = np.arange(len(self.usable))
        met = processes.all_gather_unique(every[self.pixels.broken(every)].tolist())
        return replace(self, usable=self.usable & ~np.isin(every, met)) if met else self

    def targets(self, indices: NDArray[np.int64], geometry: Geometry | None = None) -> Target:
        """Return the targets (B, ...) of images, cut as ``geometry`` says; see ``Task.targets``."""
        soft = None if self.soft is None else self.soft[indices]
        return self.task.targets(self.labels[indices], soft, self.task.outputs(self.classes), geometry)

    def pools(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the training images with a target, and those without one, or with a weaker one where some are not."""
        train = self.indices("train")
        learned = self._learned(train)
        has_target = self.task.has_target(*learned)
        strong = has_target & ~self.task.weak(*learned)
        has_target = strong if strong.any() else has_target
        return train[has_target], train[~has_target]

    def has_target(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) which images have a target; see ``Task.has_target``."""
        return self.task.has_target(*self._learned(indices))

    def weak(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) which images have a weaker target; see ``Task.weak``."""
        return self.task.weak(*self._learned(indices))

    def _learned(self, indices: NDArray[np.int64]) -> tuple[Labels, Probabilities | None]:
        return self.labels[indices], None if self.soft is None else take(self.soft, indices)
