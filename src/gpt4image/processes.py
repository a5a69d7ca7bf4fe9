"""The processes that share a run, and gathers whose gradient does not depend on their number.

One process is the usual case, and everything here then does nothing. Several are started by torchrun or
``accelerate launch``; each computes its slice of every batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """Return the number of processes that share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """Return the rows (b, ...) of all processes, (count * b, ...), in order of rank.

    With a gradient: each process must compute the same loss of the gathered rows. Its own rows then get ``count`` times
    their gradient, so that the mean over processes, which DistributedDataParallel takes, is the gradient of that loss.
    """
    return tensor if count() == 1 else _Gather.apply(tensor)  # pyright: ignore[reportReturnType]


def gather_square(matrix: Tensor) -> Tensor:
    """Return the pairs (b, b) within each process as one block-diagonal matrix of all, (count * b, count * b)."""
    if count() == 1:
        return matrix
    return torch.block_diag(*gather(matrix).split(len(matrix)))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(count())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.rows = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        start = rank() * ctx.rows
        return grads[0][start : start + ctx.rows] * count()
