"""Random numbers for the images of a batch: an image gets the same ones however many processes share the batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRng:
    """Random numbers of some rows of a batch: those of all rows are drawn, and those of the rows here are kept.

    Attributes:
        generator: CPU generator, in the same state on every process.
        total: number of rows of the batch over all processes.
        rows: (n,) int64, which of them are here.
    """

    generator: torch.Generator
    total: int
    rows: Tensor

    @classmethod
    def whole(cls, count: int, generator: torch.Generator) -> BatchRng:
        """Return the random numbers of a batch of ``count`` rows that are all here."""
        return cls(generator=generator, total=count, rows=torch.arange(count))

    def of(self, chosen: Tensor) -> BatchRng:
        """Return those of some of the rows that are here; ``chosen`` is a mask or positions among them."""
        return replace(self, rows=self.rows[chosen])

    def uniform(self, *shape: int) -> Tensor:
        """Return (n, *shape) float32 numbers in [0, 1)."""
        return torch.rand((self.total, *shape), generator=self.generator)[self.rows]

    def seeds(self) -> Tensor:
        """Return (n,) int64 numbers in [0, 2^62)."""
        return self.integers(0, 2**62)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return (n, *shape) int64 numbers in [low, high)."""
        return torch.randint(low, high, (self.total, *shape), generator=self.generator)[self.rows]
