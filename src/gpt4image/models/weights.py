"""Tensors on disk: one safetensors file, replaced atomically, nothing pickled; its header holds a state as plain JSON.

Where several processes share a run, all of them call these functions, whether their tensors are whole or shards, and
the first one writes whole tensors. So a file does not tell on how many processes it was made.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt4image.base.errors import ModelError, RunError, parsing
from gpt4image.base.files import atomic_path, parse_json, require_format
from gpt4image.parallel import processes

ABOUT, FORMAT = "gpt4image", 2  # the entry of the header, and the format of its state and of the names of tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Any = None) -> None:
    """Write tensors, and a JSON value in the header, atomically. Raises RunError: they cannot be written."""
    # Copies give every name memory of its own (safetensors refuses shared tensors), in the plain order.
    how: Any = {"device": "cpu", "copy": True, "memory_format": torch.contiguous_format}
    own = {} if processes.rank() else {name: tensor.detach().to(**how) for name, tensor in tensors.items()}
    processes.on_rank0(lambda: _write(path, own, state))


def _write(path: Path, tensors: dict[str, Tensor], state: Any) -> None:
    try:
        with atomic_path(path) as temporary:
            # One entry: safetensors writes several in any order, and equal tensors are to make equal files.
            save_file(tensors, temporary, metadata={ABOUT: json.dumps({"format": FORMAT, "state": state})})
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be written ({error}); what was there is kept. Is the disk full? Make room, and give the "
            "same command again: with --resume, a run goes on from its last checkpoint."
        ) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a safetensors file and the JSON value in its header, None if there is none."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give a .safetensors file.")
    advice = (
        "A pickled checkpoint (.pt, .pth, .bin) can run code and is never loaded: convert it with "
        "safetensors.torch.save_file where you trust it."
    )
    with (
        parsing(f"{path} is damaged or no safetensors file. {advice}", ModelError),
        safe_open(path, framework="pt") as file,
    ):
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        about = parse_json((file.metadata() or {}).get(ABOUT, "null"))
    if isinstance(about, dict):
        require_format(path, about.get("format"), FORMAT)
    state = about.get("state") if isinstance(about, dict) else None
    return tensors, state
