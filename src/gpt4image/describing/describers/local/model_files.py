"""Files of a model that runs on this machine: where they are, whether they are usable, and what identifies them."""

from __future__ import annotations

import hashlib
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
_NEVER_CHANGES_THE_TEXT = (
    *("as_json", "describer", "image_format", "detail", "extra_body", "base_url", "server_name"),
    *("concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "retries", "prices"),
    *("device", "batch_size", "frames", "contact_sheet"),
)


@dataclass(frozen=True)
class ModelFiles:
    """A model in the Hugging Face layout; ``name`` is its Hugging Face id, or the name of its folder."""

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
        """Kind of model, as its configuration says. Raises ConfigError: there is no readable configuration."""
        return str(self._json("config.json").get("model_type", ""))

    @property
    def samples(self) -> bool:
        """Whether the model samples its tokens if no temperature is asked for."""
        name = "generation_config.json"
        return (self.folder / name).is_file() and bool(self._json(name).get("do_sample", False))

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
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
    """Return whether decoding is greedy, so that the same question brings the same answer."""
    return options.temperature == 0 or (options.temperature is None and not files.samples)


def local_settings(kind: str, files: ModelFiles, options: DescriberOptions) -> dict[str, Any]:
    """Return all that decides the texts of a model on this machine: the identity of its results.

    A folder may move and a hub repository may change its README: the model is known by the content of its files.
    """
    names = [name for name in DescriberOptions.model_fields if name not in _NEVER_CHANGES_THE_TEXT]
    asked = {name: getattr(options, name) for name in names}
    return {"kind": kind, "model": files.name, "fingerprint": files.fingerprint, **asked, **options.clip_settings}


def _digest(file: Path) -> str:
    """Return the sha256 of a file; of a large one, that of its size and of pieces evenly spread over it.

    Hashing all of a large model would take longer than loading it; fine-tuned weights differ everywhere.
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
