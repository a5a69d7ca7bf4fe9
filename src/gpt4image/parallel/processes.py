"""The processes that share a run, and gathers whose gradient does not depend on their number.

One process is the usual case, and everything here then does nothing. Several are started by torchrun or
``accelerate launch``; each computes its rows of every batch.

Sums over a batch are gathered before they are divided. Every process computes the loss of all rows, its own rows get
the number of processes times their gradient, and the mean that DistributedDataParallel takes is the gradient of one
process. What can fail runs in every process before anybody communicates, and then all say whether it did: no
process waits for one that is gone.
"""

import contextlib
import gc
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, Gpt4ImageError
from gpt4image.parallel import launch

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # the first process may read a large set for hours while the others wait


def count() -> int:
    """Return the number of processes that share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


@contextlib.contextmanager
def joined(device: torch.device) -> Generator[None]:
    """Join the processes that were started with this one, over gloo on CPUs and NCCL on GPUs, for the block."""
    if launch.count() == 1 or count() > 1:
        yield
        return
    if str(device) not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device} cannot be shared by {launch.count()} processes; give cpu or cuda.")
    if device.type == "cuda":
        if launch.local_count() > torch.cuda.device_count():
            raise ConfigError(
                f"{launch.local_count()} processes on {torch.cuda.device_count()} GPUs: start one for each GPU at most."
            )
        torch.cuda.set_device(launch.local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    alone = False
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        # NCCL's teardown waits for processes that wait for this one; that it ends tells the launcher to end them.
        alone = device.type == "cuda" and not isinstance(error, Gpt4ImageError | KeyboardInterrupt)
        raise
    finally:
        gc.collect()  # a model that still knows the group would keep its threads running into the end of Python
        if not alone:
            dist.destroy_process_group()


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what to call in the place of ``model``, so that its gradients are averaged over the processes."""
    if count() == 1:
        return model
    devices = [torch.cuda.current_device()] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def averaging(parallel: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Return the context of one of several accumulated batches: copies exchange their gradients at the last one."""
    copied = isinstance(parallel, nn.parallel.DistributedDataParallel)
    return parallel.no_sync() if copied and not last else contextlib.nullcontext()


def rows(total: int) -> NDArray[np.int64]:
    """Return which of the ``total`` images of a batch belong to this process, in ascending order."""
    from_both_ends = np.arange(total)
    from_both_ends[0::2], from_both_ends[1::2] = np.arange((total + 1) // 2), np.arange(total)[::-1][: total // 2]
    share = total // count()
    return np.sort(from_both_ends[rank() * share : (rank() + 1) * share])


def on_all_ranks(work: Callable[[], T], *, first_ahead: bool = False) -> T:
    """Run ``work``, which does not communicate, in every process; where it fails in one, it fails in all.

    With ``first_ahead`` the others follow the first process, and find its caches filled.
    """
    if count() == 1:
        return work()
    result: Any = None
    for my_turn in (rank() == 0, rank() > 0) if first_ahead else (True,):
        error: Exception | None = None
        try:
            result = work() if my_turn else result
        except (Gpt4ImageError, OSError) as raised:
            error = raised
        messages = _of_all(None if error is None else str(error))
        if error is not None:
            raise error
        for number, message in enumerate(messages):
            if message is not None:
                raise Gpt4ImageError(f"Process {number}: {message}")
    return result


def on_rank0(work: Callable[[], Any]) -> None:
    """Run ``work`` in the first process, while the others wait; where it fails there, it fails in all."""
    on_all_ranks(lambda: work() if rank() == 0 else None)


def broadcast(value: T) -> T:
    """Return the ``value`` of the first process in all of them."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def all_gather_unique(items: Iterable[T]) -> tuple[T, ...]:
    """Return the items of all processes, each once, in order of rank."""
    return tuple(dict.fromkeys(item for part in _of_all(list(items)) for item in part))


def all_gather_dict(parts: Mapping[int, T]) -> list[T]:
    """Return the numbered parts of all processes, by ascending number, each number once."""
    every = {number: part for own in _of_all(dict(parts)) for number, part in own.items()}
    return [every[number] for number in sorted(every)]


def _of_all(value: T) -> list[T]:
    """Return the value of each process, in order of rank."""
    values: list[Any] = [value] * count()
    if count() > 1:
        dist.all_gather_object(values, value)
    return values


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Return whether each flag is set in any process."""
    if count() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return tuple(found.bool().tolist())


def gather(tensor: Tensor) -> Tensor:
    """Return the rows (b, ...) of all processes, (count * b, ...); own rows get ``count`` times their gradient."""
    return tensor if count() == 1 else _Gather.apply(tensor)  # pyright: ignore[reportReturnType]


def gather_square(matrix: Tensor) -> Tensor:
    """Return the pairs (b, b) within each process as one block-diagonal matrix of all, (count * b, count * b)."""
    if count() == 1:
        return matrix
    return torch.block_diag(*gather(matrix).split(len(matrix)))


def sum_over(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, as part of the computation that they share."""
    return tensor if count() == 1 else _Sum.apply(tensor)  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.rows = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        start = rank() * ctx.rows
        return grads[0][start : start + ctx.rows] * count()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return sum_over(grads[0])
