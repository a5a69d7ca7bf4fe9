"""Files of a text encoder in the Hugging Face layout: where they are, which are refused, what identifies them."""

from __future__ import annotations

from pathlib import Path

from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.base.files import fingerprint
from gpt4image.models.hugging_face import find_folder

_FILES_THAT_COUNT = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# A library opens the first if it does not find the second.
_OPENED_WITHOUT = {"pytorch_model.bin": "model*.safetensors", "adapter_model.bin": "adapter_model*.safetensors"}


def find_model(kind: str, name: str) -> Path:
    """Return the folder of a model: ``name`` itself, or its copy of the Hugging Face hub (fetched once)."""
    if not name:
        raise ConfigError(f"The encoder SPEC is {kind}:NAME_OR_PATH; the name is missing.")
    try:
        folder = find_folder(name, _FILES_THAT_COUNT)
    except LookupError as error:
        raise ModelError(f"{kind}:{name}: {error}, or use the packaged encoder: --encoder minilm.") from error
    refuse_pickles(folder)
    return folder


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError if a folder has pickled weights without safetensors beside them, or no weights at all."""
    for file in folder.rglob("*"):
        if file.suffix in _PICKLED and not any(file.parent.glob(_OPENED_WITHOUT.get(file.name, "*.safetensors"))):
            raise ModelError(pickles_refused(file))
    if not any(folder.rglob("*.safetensors")):
        raise ModelError(f"{folder}: there is no .safetensors file; give the folder of a model that has one.")


def pickles_refused(file: Path | str) -> str:
    """Return the message that refuses a file of pickled weights."""
    return (
        f"{file}: pickled weights are never loaded, because loading them can run any code; "
        f"convert them with safetensors.torch.save_file, or use a model that has .safetensors files."
    )


def folder_revision(folder: Path) -> str:
    """Return the fingerprint of the names and contents of weights, configuration and vocabulary."""
    files = sorted({file for pattern in _FILES_THAT_COUNT for file in folder.rglob(pattern)})
    return fingerprint({file.relative_to(folder).as_posix(): file_digest(file) for file in files})
