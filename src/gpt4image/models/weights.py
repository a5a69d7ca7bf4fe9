"""Tensors on disk: one safetensors file, replaced atomically, nothing pickled.

Its header holds a state as plain JSON, and the sha256 of the tensors and of that state, which is compared each time
the file is read; weights of others have none.

Where several processes share a run, all of them call these functions, whether their tensors are whole or shards, and
the first one writes whole tensors. So a file does not tell on how many processes it was made.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt4image.base.checksums import damaged, require_format
from gpt4image.base.errors import DamagedError, ModelError, RunError
from gpt4image.base.files import UNREADABLE, atomic_path, parse_json
from gpt4image.parallel import processes

STATE, CHECKSUM, VERSION = "state", "sha256", "version"
FORMAT = 1  # of the state and the names of tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Any = None) -> None:
    """Write tensors, and a JSON value in the header, atomically. Raises RunError: they cannot be written."""
    # Copies give every name memory of its own (safetensors refuses shared tensors), in the plain order.
    how: Any = {"device": "cpu", "copy": True, "memory_format": torch.contiguous_format}
    own = {} if processes.rank() else {name: tensor.detach().to(**how) for name, tensor in tensors.items()}
    processes.on_rank0(lambda: _write(path, own, state))


def _write(path: Path, tensors: dict[str, Tensor], state: Any) -> None:
    try:
        with atomic_path(path) as temporary:
            metadata = {"format": "pt", VERSION: str(FORMAT), STATE: json.dumps(state)}
            checksum = hashlib.sha256(metadata[STATE].encode())
            for name in sorted(tensors):
                _add(checksum, name, tensors[name])
            save_file(tensors, temporary, metadata=metadata | {CHECKSUM: checksum.hexdigest()})
            _sort_metadata(temporary)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be written ({error}); what was there is kept. Is the disk full? Make room, and give the "
            "same command again: with --resume, a run goes on from its last checkpoint."
        ) from None


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order, as safetensors writes it in any: equal tensors and states make equal files."""
    with io.FileIO(path, "r+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def _add(checksum: Any, name: str, tensor: Tensor) -> None:
    """Add a tensor in main memory, in the plain order, to the sha256 of a state and of tensors by their names."""
    checksum.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    checksum.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a safetensors file and the JSON value in its header, None if there is none."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give a .safetensors file.")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if is_own := CHECKSUM in metadata:
                require_format(path, int(metadata[VERSION]), FORMAT)
            checksum = hashlib.sha256(metadata.get(STATE, "").encode())
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if is_own:
                    _add(checksum, name, tensor)
                tensors[name] = tensor
        state = parse_json(metadata.get(STATE, "null"))
        whole = not is_own or metadata[CHECKSUM] == checksum.hexdigest()
    except (SafetensorError, OSError, *UNREADABLE) as error:
        raise ModelError(
            f"{path} is damaged or no safetensors file ({error}). A pickled checkpoint (.pt, .pth, .bin) can run "
            "code and is never loaded: convert it with safetensors.torch.save_file where you trust it."
        ) from None
    if not whole:
        raise DamagedError(damaged(path, "its content does not match its checksum"))
    return tensors, state
