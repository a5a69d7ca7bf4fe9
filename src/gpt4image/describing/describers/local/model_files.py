"""Files of a model that runs on this machine: where they are, what is wrong with them, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, first_line
from gpt4image.base.files import fingerprint, read_json
from gpt4image.config import DescriberOptions
from gpt4image.models.hugging_face import find_folder

_WEIGHTS = "*.safetensors"
_FILES_THAT_COUNT = (_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model")
_PIECES = 64
_PIECE_BYTES = 2**20

# All other options of a describer may change what a model on this machine writes.
_NEVER_CHANGES_THE_TEXT = frozenset(
    {
        "as_json",
        "describer",
        "image_format",
        "detail",
        "extra_body",
        "vllm_args",
        "base_url",
        "server_name",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout",
        "retries",
        "prices",
        "device",
        "batch_size",
    }
)


@dataclass(frozen=True)
class ModelFiles:
    """A model in the Hugging Face layout.

    Attributes:
        spec: as the user named it, kind included.
        name: Hugging Face id, or name of the folder.
        folder: where its files are.
    """

    spec: str
    name: str
    folder: Path

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of names and contents of weights, configuration, vocabulary and chat template."""
        files = sorted({file for pattern in _FILES_THAT_COUNT for file in self.folder.glob(pattern)})
        return fingerprint({file.name: _digest(file) for file in files})

    @property
    def model_type(self) -> str:
        """Kind of model, as its configuration says.

        Raises:
            ConfigError: there is no configuration that can be read.
        """
        return str(self._json("config.json", required=True).get("model_type", ""))

    @property
    def samples(self) -> bool:
        """Whether the model draws its tokens at random where nobody asks for a temperature."""
        return bool(self._json("generation_config.json", required=False).get("do_sample", False))

    def _json(self, name: str, *, required: bool) -> dict[str, Any]:
        path = self.folder / name
        if not required and not path.is_file():
            return {}
        try:
            return dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.spec}: {path} cannot be read as JSON ({first_line(error)}); give the folder of a model."
            ) from None


def find_model_files(kind: str, name: str) -> ModelFiles:
    """Return the files of the model ``name``, a folder or a Hugging Face id.

    Raises:
        ConfigError: there are none, or no weights that are safe to load.
    """
    spec = f"{kind}:{name}"
    try:
        folder = find_folder(name, _FILES_THAT_COUNT)
    except LookupError as error:
        raise ConfigError(f"{spec}: {error.args[0]}.") from error
    if next(folder.glob(_WEIGHTS), None) is None:
        raise ConfigError(
            f"{spec}: there is no .safetensors file in {folder}; pickled weights are never loaded, because loading "
            "them can run any code. Use a model that has .safetensors files."
        )
    is_local = Path(name).expanduser().is_dir()
    return ModelFiles(spec=spec, name=folder.resolve().name if is_local else name, folder=folder)


def is_greedy(files: ModelFiles, options: DescriberOptions) -> bool:
    """Return whether the likeliest token is always taken, so that the same question brings the same answer."""
    return options.temperature == 0 or (options.temperature is None and not files.samples)


def local_settings(kind: str, files: ModelFiles, options: DescriberOptions) -> dict[str, Any]:
    """Return everything that decides what a model on this machine writes: the identity of its results.

    A folder may move and a hub repository may change its README: the model is known by what its files hold.
    """
    asked: Mapping[str, Any] = {
        name: getattr(options, name) for name in DescriberOptions.model_fields if name not in _NEVER_CHANGES_THE_TEXT
    }
    return {"kind": kind, "model": files.name, "fingerprint": files.fingerprint, **asked}


def _digest(file: Path) -> str:
    """Return the sha256 of a file; of a large one, that of its size and of pieces evenly spread over it.

    Hashing all of a large model would take longer than loading it; weights that were trained further differ everywhere.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        if size <= _PIECES * _PIECE_BYTES:
            return hashlib.file_digest(content, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for piece in range(_PIECES):
            content.seek(piece * (size - _PIECE_BYTES) // (_PIECES - 1))
            digest.update(content.read(_PIECE_BYTES))
        return digest.hexdigest()
