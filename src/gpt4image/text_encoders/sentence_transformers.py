"""Text encoders of the sentence-transformers library, from a folder or the Hugging Face hub; safetensors only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.errors import ModelError
from gpt4image.files import fingerprint
from gpt4image.hugging_face import find_folder, without_progress_bars

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

LEAST_COSINE = 0.999
_FILES_THAT_COUNT = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_PROBE_TEXTS = (
    "A cat.",
    "A small black aircraft with wide, swept wings flies far off against an empty grey-blue sky.",
    "A brown horse stands in a green field beside a wooden fence; its head is lowered and its mane is dark. "
    "Behind it, low hills fade into a pale and hazy sky, and the light comes from the left.",
    "Yellow pictogram of a smiling face with closed eyes and rosy cheeks, drawn with a thick black outline.",
)


class SentenceTransformerEncoder:
    """A SentenceTransformer, computed in bf16 where that is fast and changes no direction by much."""

    def __init__(self, spec: str, folder: Path, device: str) -> None:
        """Find the model in ``folder``; its weights are loaded at first use.

        Raises:
            ModelError: there are no safetensors weights.
        """
        _refuse_pickles(folder)
        self.spec = spec
        self.revision = _revision(folder)
        self._folder = folder
        self._device_name = device

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """bf16 where the device multiplies it natively and the probe texts keep their direction."""
        return self._probe[0]

    @property
    def width(self) -> int:
        """D, length of an embedding."""
        return self._probe[1]

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens, special tokens included."""
        return int(self._model.max_seq_length or self._model.tokenizer.model_max_length)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens and default prompt included, before any cut."""
        prompt = self._model.prompts.get(self._model.default_prompt_name or "") or ""
        tokens = self._model.tokenizer(
            [prompt + text for text in texts], truncation=False, padding=False, verbose=False
        )
        return np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (N, D) unit-length embeddings of one batch of texts."""
        return self._encode(texts, self.precision)

    def _encode(self, texts: Sequence[str], precision: str) -> NDArray[np.float32]:
        from gpt4image.devices import autocast

        # Autocast multiplies in bf16 and leaves the weights in fp32. MiniLM on 3,549 descriptions: least cosine to
        # SentenceTransformer.encode 0.9999, after rounding to the float16 of the table.
        with autocast(self._device, precision):
            vectors = self._model.encode(
                list(texts), batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)

    @cached_property
    def _probe(self) -> tuple[Literal["fp32", "bf16"], int]:
        from gpt4image.devices import computes_bf16

        exact = self._encode(_PROBE_TEXTS, "fp32")
        if computes_bf16(self._device.type):
            cosines = (exact * self._encode(_PROBE_TEXTS, "bf16")).sum(axis=1)
            if cosines.min() >= LEAST_COSINE:
                return "bf16", exact.shape[1]
        return "fp32", exact.shape[1]

    @cached_property
    def _device(self) -> torch.device:
        from gpt4image.devices import choose_device

        return choose_device(self._device_name)

    @cached_property
    def _model(self) -> SentenceTransformer:
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer

        try:
            with without_progress_bars():
                model = SentenceTransformer(
                    str(self._folder),
                    device=str(self._device),
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True, "dtype": "float32"},
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"{self.spec}: {self._folder} cannot be loaded as a SentenceTransformer: {error}"
            ) from error
        return model.eval()


def find_model(name: str) -> Path:
    """Return the folder of a model: ``name`` itself, or its copy of the Hugging Face hub (fetched once).

    Raises:
        ModelError: there is no such folder and the hub does not give it.
    """
    try:
        return find_folder(name, _FILES_THAT_COUNT)
    except LookupError as error:
        raise ModelError(
            f"sentence-transformers:{name}: {error}, or use the packaged encoder: --encoder minilm."
        ) from error


def _refuse_pickles(folder: Path) -> None:
    weights = {file.parent for file in folder.rglob("*.safetensors")}
    pickled = [file for file in folder.rglob("*") if file.suffix in _PICKLED and file.parent not in weights]
    if pickled:
        raise ModelError(
            f"{pickled[0]}: pickled weights are never loaded, because loading them can run any code; "
            f"convert them with safetensors.torch.save_file, or use a model that has .safetensors files."
        )
    if not weights:
        raise ModelError(f"{folder}: there is no .safetensors file; give the folder of a SentenceTransformer.")


def _revision(folder: Path) -> str:
    """Return the fingerprint of the names and contents of weights, configuration and vocabulary."""
    files = sorted({file for pattern in _FILES_THAT_COUNT for file in folder.rglob(pattern)})
    return fingerprint({file.relative_to(folder).as_posix(): _sha256(file) for file in files})


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
