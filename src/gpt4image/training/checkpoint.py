"""Checkpoints: one safetensors file, replaced atomically, plain JSON state in its header, nothing pickled.

Where several processes share a run, all of them call these functions, whether their tensors are whole or shards, and
the first one writes whole tensors. So a checkpoint does not tell on how many processes it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt4image.base.errors import ModelError, RunError, first_line
from gpt4image.base.files import atomic_path
from gpt4image.parallel import processes
from gpt4image.parallel.sharding import like, whole

STATE = "state"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Any = None) -> None:
    """Write tensors, and a JSON value in the header, atomically. Raises RunError: they cannot be written."""
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor.detach())
        if processes.rank() == 0:
            # Copies give every name memory of its own (safetensors refuses shared tensors), in the plain order.
            own[name] = value.to("cpu", copy=True, memory_format=torch.contiguous_format)
    processes.by_first(lambda: _write(path, own, state))


def _write(path: Path, tensors: dict[str, Tensor], state: Any) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", STATE: json.dumps(state)})
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be written ({error}); what was there is kept. Is the disk full? Make room, and give the "
            "same command again: with --resume, a run goes on from its last checkpoint."
        ) from None


def load_tensors(
    path: Path, place: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor
) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a safetensors file and the JSON value in its header (None where there is none).

    Args:
        path: the file.
        place: makes of each name and tensor what is kept; tensors are read one after the other.

    Raises:
        ModelError: the file is missing or no safetensors file; a pickled checkpoint is never opened.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give a .safetensors file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: place(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = json.loads(metadata.get(STATE, "null"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the state in its header is no JSON: {first_line(error)}") from None
    except SafetensorError as error:
        raise ModelError(
            f"{path} is no safetensors file ({error}). A pickled checkpoint (.pt, .pth, .bin) can run code and is "
            "never loaded: convert it with safetensors.torch.save_file where you trust it."
        ) from None
    return tensors, state


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], state: Any
) -> None:
    """Write the weights of ``modules``, the state of ``optimizers`` and a JSON ``state`` as one file.

    Names are without a dot, and all different.
    """
    tensors = {
        f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()
    }
    numbers: dict[str, dict[str, Any]] = {part: {} for part in optimizers}
    groups: dict[str, list[dict[str, float]]] = {}
    for part, optimizer in optimizers.items():
        known = optimizer.state_dict()
        groups[part] = [_numbers(group) for group in known["param_groups"]]
        for index, slots in known["state"].items():
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"{part}.{index}.{name}"] = value
                else:
                    numbers[part][f"{index}.{name}"] = value
    save_tensors(path, tensors, {**numbers, "groups": groups, "state": state})


def _numbers(group: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a group of parameters but its learning rate, which the schedule sets: some optimisers count
    their steps there."""
    found = {
        name: value.item() if isinstance(value, Tensor) else value for name, value in group.items() if name != "lr"
    }
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> Any:
    """Restore what ``save_checkpoint`` wrote, in place, and return its JSON state.

    Raises:
        RunError: the checkpoint belongs to another model.
    """
    state = {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
    parameters = {
        part: dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
        for part, optimizer in optimizers.items()
    }

    def place(full_name: str, value: Tensor) -> Tensor:
        """Keep this process's shard of what is sharded; the slots of a parameter are sharded as it is."""
        part, name = full_name.split(".", 1)
        slots_of = parameters.get(part)
        target = state.get(full_name) if slots_of is None else slots_of.get(int(name.split(".", 1)[0]))
        return like(value, target) if target is not None and target.shape == value.shape else value

    tensors, saved = load_tensors(path, place)
    slots: dict[str, dict[int, dict[str, Any]]] = {part: {} for part in optimizers}
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in modules}
    numbers = {f"{part}.{name}": value for part in optimizers for name, value in saved[part].items()}
    for full_name, value in (tensors | numbers).items():
        part, name = full_name.split(".", 1)
        if part in slots:
            index, slot = name.split(".", 1)
            slots[part].setdefault(int(index), {})[slot] = value
        else:
            parts.setdefault(part, {})[name] = value
    try:
        for part, module in modules.items():
            module.load_state_dict(parts[part])
    except RuntimeError as error:
        raise RunError(f"{path} belongs to another model: {error}") from None
    for part, optimizer in optimizers.items():
        groups = optimizer.state_dict()["param_groups"]
        counted = saved.get("groups", {}).get(part, [{}] * len(groups))
        groups = [{**group, **own} for group, own in zip(groups, counted, strict=True)]
        optimizer.load_state_dict({"state": slots[part], "param_groups": groups})
    return saved["state"]
