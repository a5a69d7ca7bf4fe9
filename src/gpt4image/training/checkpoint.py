"""Checkpoints: weights, optimisers and a JSON state as one file of ``models.weights``.

Training never goes on from a damaged one. It is one file, because a checkpoint of two can be killed between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt4image.base.errors import DamagedError, ModelError, RunError
from gpt4image.models.weights import load_tensors, save_tensors
from gpt4image.parallel.sharding import like

Modules = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]


def save_checkpoint(path: Path, modules: Modules, optimizers: Optimizers, state: Any) -> None:
    """Write weights, the state of optimisers and a JSON ``state``; names are without a dot, and all different."""
    tensors = {f"{part}.{name}": value for part, one in modules.items() for name, value in one.state_dict().items()}
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
    # Some optimisers count their steps in a group of parameters; its learning rate is set by the schedule.
    found = {name: value.item() if isinstance(value, Tensor) else value for name, value in group.items()}
    return {name: value for name, value in found.items() if name != "lr" and isinstance(value, int | float)}


def load_checkpoint(path: Path, modules: Modules, optimizers: Optimizers) -> Any:
    """Restore what ``save_checkpoint`` wrote, in place, and return its JSON state.

    Raises:
        DamagedError: the file is damaged, or no checkpoint of these optimisers.
        RunError: it belongs to another model.
    """
    state = {f"{part}.{name}": value for part, one in modules.items() for name, value in one.state_dict().items()}
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

    try:
        tensors, saved = load_tensors(path, place)
        if not isinstance(saved, dict) or not {"state", "groups", *optimizers} <= saved.keys():
            raise DamagedError(f"{path} holds weights, but no state to go on from.")
    except (ModelError, DamagedError) as error:
        raise DamagedError(
            f"{error} Training does not go on from a damaged checkpoint: bring back a copy of it, or remove it and "
            "give the same command with --resume again, which trains from the first step."
        ) from None
    found: dict[str, dict[str, Any]] = {part: {} for part in (*modules, *optimizers)}
    numbers = {f"{part}.{name}": value for part in optimizers for name, value in saved[part].items()}
    for full_name, value in (tensors | numbers).items():
        part, name = full_name.split(".", 1)
        found.setdefault(part, {})[name] = value
    try:
        for part, module in modules.items():
            module.load_state_dict(found[part])
    except RuntimeError as error:
        raise RunError(f"{path} belongs to another model: {error}") from None
    for part, optimizer in optimizers.items():
        slots: dict[int, dict[str, Any]] = {}
        for name, value in found[part].items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        groups = zip(optimizer.state_dict()["param_groups"], saved["groups"][part], strict=True)
        optimizer.load_state_dict({"state": slots, "param_groups": [{**group, **own} for group, own in groups]})
    return saved["state"]
