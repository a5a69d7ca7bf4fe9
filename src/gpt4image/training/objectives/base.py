"""What an objective is: a term of the loss beside the task's.

``total = task + sum of weight * objective``. A new objective is one module here and one line in ``trainer.build``.

Legend: B images of a batch, U of them with a second view, K outputs, D width of the text space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The images of one batch of this process; where all have two views, B is twice their number, first views first.

    Attributes:
        images: (B,) positions in the dataset.
        broken: (B,) bool, images that could not be decoded; they count for nothing.
        mixing: (B, B) float32, row i holds the weights of the images that image i is made of; None without mixing.
        second: (U,) int64, rows that have a second view.
    """

    images: NDArray[np.int64]
    broken: Tensor
    mixing: Tensor | None
    second: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What the model returns for a batch.

    Attributes:
        task: (B, K) outputs for the task.
        second: (U, K) outputs for the second views.
        embeddings: (B, D) of the images in the text space; None without a projection head.
        features: input of classifier and head, where a weight depends on gradients there; else None.
        texts: (B, D) embeddings of the texts by an encoder that is trained too; else None.
        heads: (B + U, ...) outputs of the heads of other objectives, by name.
    """

    task: Tensor
    second: Tensor
    embeddings: Tensor | None = None
    features: Tensor | None = None
    texts: Tensor | None = None
    heads: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


class Objective(Protocol):
    """A term of the loss."""

    @property
    def name(self) -> str:
        """Name in records: its loss is ``NAME_loss``."""
        ...

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the unweighted scalar of the batches of all processes, the same on each."""
        ...

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float | Tensor:
        """Return the weight at a step, given the task's loss and one's own; that of the task is 1."""
        ...
