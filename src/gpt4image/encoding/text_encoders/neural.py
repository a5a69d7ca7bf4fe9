"""Text encoders that are torch models: one encoder for all libraries, around a tower per library; safetensors only.

Precision and unit length are the same code for all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.base.files import file_digest, fingerprint
from gpt4image.models.hugging_face import find_folder, loading
from gpt4image.parallel.devices import autocast, choose_device, computes_bf16

LEAST_COSINE = 0.999
UNBOUNDED, USUAL_LIMIT = 1_000_000, 512
"""Limits of tokenizers from here on say nothing; the limit in their place."""
_FILES_THAT_COUNT = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# A library opens the first if it does not find the second.
_OPENED_WITHOUT = {"pytorch_model.bin": "model*.safetensors", "adapter_model.bin": "adapter_model*.safetensors"}
_PROBE_TEXTS = (
    "A cat.",
    "A small black aircraft with wide, swept wings flies far off against an empty grey-blue sky.",
    "A brown horse stands in a green field beside a wooden fence; its head is lowered and its mane is dark. "
    "Behind it, low hills fade into a pale and hazy sky, and the light comes from the left.",
    "Yellow pictogram of a smiling face with closed eyes and rosy cheeks, drawn with a thick black outline.",
)


class Tower(nn.Module):
    """A text model of one library: texts to tokens, tokens to embeddings.

    Attributes:
        max_tokens: texts are cut after this many tokens, special tokens included.
    """

    max_tokens: int

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens included, before any cut."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return what ``forward`` reads for a batch of texts: tensors (N, ...) on the CPU, and plain values."""
        raise NotImplementedError

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        """Return the (N, D) embeddings, not normalised, of what ``tokenize`` gave."""
        raise NotImplementedError


class NeuralEncoder:
    """A text encoder from a tower, computed in bf16 if that is fast and keeps directions."""

    def __init__(self, spec: str, revision: str, load: Callable[[], Tower], device: str) -> None:
        """Remember ``load``, which gives the tower in fp32 on the CPU or raises ModelError at the first use."""
        self.spec = spec
        self.revision = revision
        self.load = load
        self._device_name = device

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        return self._probe[0]

    @property
    def width(self) -> int:
        return self._probe[1]

    @property
    def max_tokens(self) -> int:
        return self.tower.max_tokens

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return self.tower.token_lengths(texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(texts, self.precision)

    @cached_property
    def tower(self) -> Tower:
        """The model itself, in fp32 and evaluation mode on the device."""
        return self.load().to(self._device).eval()

    def _encode(self, texts: Sequence[str], precision: str) -> NDArray[np.float32]:
        tower = self.tower
        tokens = to_device(tower.tokenize(texts), self._device)
        # Autocast multiplies in bf16 and leaves the weights in fp32. MiniLM on 3,549 descriptions: least cosine to
        # SentenceTransformer.encode 0.9999, after rounding to the float16 of the table.
        with torch.inference_mode(), autocast(self._device, precision):
            vectors = tower(tokens)
        return normalize(single_or_double(vectors), dim=1).cpu().numpy()

    @cached_property
    def _probe(self) -> tuple[Literal["fp32", "bf16"], int]:
        exact = self._encode(_PROBE_TEXTS, "fp32")
        if computes_bf16(self._device.type):
            cosines = (exact * self._encode(_PROBE_TEXTS, "bf16")).sum(axis=1)
            if cosines.min() >= LEAST_COSINE:
                return "bf16", exact.shape[1]
        return "fp32", exact.shape[1]

    @cached_property
    def _device(self) -> torch.device:
        return choose_device(self._device_name)


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the (N,) lengths of texts by a tokenizer of transformers, special tokens included, before any cut."""
    tokens = tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64)


def single_or_double(values: Tensor) -> Tensor:
    """Return values in fp32 if they are in a smaller format."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def to_device(tokens: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what ``Tower.tokenize`` gave with its tensors on a device."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in tokens.items()
    }


class SentenceTransformerTower(Tower):
    """A SentenceTransformer, with the pooling and the default prompt that come with it."""

    def __init__(self, spec: str, folder: Path) -> None:
        """Load the model in ``folder``, in fp32 on the CPU. Raises ModelError: it cannot be loaded."""
        from sentence_transformers import SentenceTransformer

        super().__init__()
        with loading(f"{spec}: {folder} cannot be loaded as a SentenceTransformer", ModelError):
            self.model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
            most = float(self.model.max_seq_length or getattr(self.model.tokenizer, "model_max_length", math.inf))
        self._tokenizer: Any = self.model.tokenizer
        self._is_table = hasattr(self._tokenizer, "encode_batch")  # StaticEmbedding: word vectors and their mean
        if not (callable(self._tokenizer) or self._is_table):
            raise ModelError(
                f"{spec}: {folder} has no tokenizer that is supported; give a transformer, such as minilm."
            )
        no_limit = UNBOUNDED if self._is_table else USUAL_LIMIT
        self.max_tokens = int(most) if most < UNBOUNDED else no_limit
        self._prompt = str(self.model.prompts.get(self.model.default_prompt_name or "") or "")

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        texts = [self._prompt + text for text in texts]
        if self._is_table:
            return np.array([len(tokens.ids) for tokens in self._tokenizer.encode_batch(texts)], dtype=np.int64)
        return count_tokens(self._tokenizer, texts)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        return self.model.preprocess(list(texts), prompt=self._prompt or None)

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        return self.model(dict(tokens))["sentence_embedding"][:, : self.model.truncate_dim]


def find_model(name: str) -> Path:
    """Return the folder of a sentence transformer: ``name``, or its copy of the Hugging Face hub (fetched once).

    Raises ModelError: there is none, weights are pickled without safetensors beside them, or there are no weights.
    """
    if not name:
        raise ConfigError("The encoder SPEC is sentence-transformers:NAME_OR_PATH; the name is missing.")
    try:
        folder = find_folder(name, _FILES_THAT_COUNT)
    except LookupError as error:
        raise ModelError(
            f"sentence-transformers:{name}: {error}, or use the packaged encoder: --encoder minilm."
        ) from error
    for file in folder.rglob("*"):
        if file.suffix in _PICKLED and not any(file.parent.glob(_OPENED_WITHOUT.get(file.name, "*.safetensors"))):
            raise ModelError(pickles_refused(file))
    if not any(folder.rglob("*.safetensors")):
        raise ModelError(f"{folder}: there is no .safetensors file; give the folder of a model that has one.")
    return folder


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
