"""Models over several processes: a copy in each, or their weights in shards.

Both give the gradient of the whole batch. A copy in each (DistributedDataParallel) is the faster way while model,
gradients and optimiser fit on one device; shards (FSDP2, after Zhao et al. 2023, arXiv 2304.11277) are for models that
do not. torch's modules for both are imported when there are several processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gpt4image.base.errors import ModelError, first_few
from gpt4image.parallel import processes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Place = Callable[[], contextlib.AbstractContextManager[Any]]
# Optimisers that need no whole weight matrix.
BY_ELEMENT = ("adam", "adamw", "lion", "nadam", "nadamw", "momentum", "sgd")


def unshardable(optimizer: str) -> str:
    """Return why weights cannot be spread: over one process, or with an optimiser that needs whole matrices."""
    if processes.count() == 1:
        return "spreads weights over several processes (torchrun --nproc_per_node N), and this is only one"
    if optimizer.lower() in BY_ELEMENT:
        return ""
    return f"and --optimizer {optimizer}, which may need whole matrices; give one of {', '.join(BY_ELEMENT)}"


def structure_alone() -> torch.device:
    """Return the context in which models are made without memory for their weights (the meta device)."""
    return torch.device("meta")


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what to call in the place of ``model``, so that its gradients are averaged over the processes."""
    if processes.count() == 1:
        return model
    devices = [torch.cuda.current_device()] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def averaging(parallel: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Return the context of one of several accumulated batches: copies exchange their gradients at the last one."""
    copied = isinstance(parallel, nn.parallel.DistributedDataParallel)
    return parallel.no_sync() if copied and not last else contextlib.nullcontext()


def shard(model: nn.Module, device: torch.device) -> None:
    """Spread the weights of ``model`` over all processes, in place; blocks are put together when they are needed."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    modules = [module for child in _called(model) for module in (*blocks(child), child)]
    modules = [module for module in modules if any(parameter.ndim > 0 for parameter in module.parameters())]
    for module in modules:
        if scalars := [name for name, parameter in module.named_parameters() if parameter.ndim == 0]:
            raise ModelError(
                f"--fsdp spreads tensors, and {type(module).__name__} learns single numbers, {first_few(scalars)}."
            )
    given = {name: tensor.detach() for name, tensor in _tensors(model)} if processes.rank() == 0 else {}
    mesh = init_device_mesh(device.type, (processes.count(),))
    for module in modules:
        fully_shard(module, mesh=mesh)
    model.to_empty(device=device)
    with torch.no_grad():
        for name, target in _tensors(model):
            value = given[name].to(device) if given else torch.empty(target.shape, dtype=target.dtype, device=device)
            if is_sharded(target):
                target.copy_(distribute_tensor(value, mesh, target.placements))  # from the first process
            else:
                dist.broadcast(value, src=0)
                target.copy_(value)


def _called(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a model; of a container, which is never called itself, what it holds."""
    for child in model.children():
        yield from child.children() if isinstance(child, nn.ModuleDict | nn.ModuleList) else (child,)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a model, inner ones first: modules that follow one another and are of one kind."""
    found: list[nn.Module] = []
    for container in model.modules():
        children = list(container.children()) if isinstance(container, nn.Sequential | nn.ModuleList) else []
        if len(children) > 1 and len({type(child) for child in children}) == 1 and any(children[0].children()):
            found = [*children, *found]
    return found


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together from its shards, in every process; itself where it is not sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether each process holds only a part of a tensor."""
    if processes.count() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def like(value: Tensor, target: Tensor) -> Tensor:
    """Return the whole tensor ``value`` sharded as ``target`` is; itself where that is not sharded."""
    if not is_sharded(target):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh = target.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, target.placements, src_data_rank=None)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and all buffers, those that are no part of the state too."""
    yield from model.named_parameters()
    yield from model.named_buffers()
