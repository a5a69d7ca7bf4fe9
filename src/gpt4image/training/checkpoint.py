"""Checkpoints: weights, optimisers and a JSON state as one file of ``artifacts.weights``.

Training never goes on from a damaged one.

One file, because a checkpoint of two can be killed between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt4image.artifacts.weights import load_tensors, save_tensors
from gpt4image.base.errors import DamagedError, ModelError, RunError
from gpt4image.parallel.sharding import like


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
        RunError: the checkpoint is damaged, or belongs to another model.
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

    tensors, saved = _read_checkpoint(path, place, optimizers)
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


def _read_checkpoint(
    path: Path, place: Callable[[str, Tensor], Tensor], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what ``load_tensors`` does. Raises RunError: the file is damaged, or no checkpoint of these optimisers."""
    try:
        tensors, saved = load_tensors(path, place)
    except (ModelError, DamagedError) as error:
        reason = str(error)
    else:
        if (
            isinstance(saved, dict)
            and "state" in saved
            and all(isinstance(saved.get(name), dict) for name in optimizers)
        ):
            return tensors, saved
        reason = f"{path} holds weights, but no state to go on from."
    raise DamagedError(
        f"{reason} Training does not go on from a damaged checkpoint: bring back a copy of it, or remove it and give "
        "the same command with --resume again, which trains from the first step."
    )
