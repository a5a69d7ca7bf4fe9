"""Text encoders that are torch models: one encoder for all libraries, around a tower per library.

Precision, unit length and training are the same code for all of them, so any of them can be tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from gpt4image.parallel.devices import autocast, choose_device, computes_bf16

LEAST_COSINE = 0.999
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
        """bf16 if the device multiplies it natively and the probe texts keep their direction."""
        return self._probe[0]

    @property
    def width(self) -> int:
        """D, length of an embedding."""
        return self._probe[1]

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens, special tokens included."""
        return self.tower.max_tokens

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens included, before any cut."""
        return self.tower.token_lengths(texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (N, D) unit-length embeddings of one batch of texts."""
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
