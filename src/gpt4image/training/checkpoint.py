"""Checkpoints: one safetensors file, replaced atomically, nothing pickled.

Its header holds the state as plain JSON, and the sha256 of the tensors and of that state, which is compared each time
the file is read: training never goes on from a damaged one. Files of versions before have none.

Where several processes share a run, all of them call these functions, whether their tensors are whole or shards, and
the first one writes whole tensors. So a checkpoint does not tell on how many processes it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt4image.base.checksums import damaged
from gpt4image.base.errors import DamagedError, ModelError, RunError
from gpt4image.base.files import UNREADABLE, atomic_path, parse_json
from gpt4image.parallel import processes
from gpt4image.parallel.sharding import like, whole

STATE, CHECKSUM = "state", "sha256"


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
            metadata = {"format": "pt", STATE: json.dumps(state)}
            checksum = _Checksum(metadata[STATE])
            for name in sorted(tensors):
                checksum.add(name, tensors[name])
            save_file(tensors, temporary, metadata=metadata | {CHECKSUM: checksum.hexdigest()})
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be written ({error}); what was there is kept. Is the disk full? Make room, and give the "
            "same command again: with --resume, a run goes on from its last checkpoint."
        ) from None


class _Checksum:
    """The sha256 of a state and of tensors, in the order of their names."""

    def __init__(self, state: str) -> None:
        self._sha256 = hashlib.sha256(state.encode())
        self.hexdigest = self._sha256.hexdigest

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor in main memory, in the plain order."""
        self._sha256.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        self._sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def load_tensors(
    path: Path, place: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor
) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a safetensors file and the JSON value in its header (None where there is none).

    Args:
        path: the file.
        place: makes of each name and tensor what is kept; tensors are read one after the other.

    Raises:
        ModelError: the file is missing or no safetensors file; a pickled checkpoint is never opened.
        DamagedError: its content is not the one that was written.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give a .safetensors file.")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            checksum = _Checksum(metadata.get(STATE, ""))
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if CHECKSUM in metadata:
                    checksum.add(name, tensor)
                tensors[name] = place(name, tensor)
        state = parse_json(metadata.get(STATE, "null"))
        whole = metadata.get(CHECKSUM) in (None, checksum.hexdigest())
    except (SafetensorError, OSError, *UNREADABLE) as error:
        raise ModelError(
            f"{path} is no safetensors file ({error}). A pickled checkpoint (.pt, .pth, .bin) can run code and is "
            "never loaded: convert it with safetensors.torch.save_file where you trust it."
        ) from None
    if not whole:
        raise DamagedError(damaged(path, "its content does not match its checksum"))
    return tensors, state


def header_of(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file that ``load_tensors`` has read."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


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
