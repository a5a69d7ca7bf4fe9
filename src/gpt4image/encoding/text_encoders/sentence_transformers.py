"""Text encoders of the sentence-transformers library, from a folder or the Hugging Face hub; safetensors only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.neural import Tower, count_tokens
from gpt4image.models.hugging_face import loading

UNBOUNDED, USUAL_LIMIT = 1_000_000, 512
"""Limits of tokenizers from here on say nothing; the limit in their place."""


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
        if not callable(self.model.tokenizer) or most == math.inf:
            raise ModelError(
                f"{spec}: {folder} reads no sequence of tokens (a table of word vectors, say), which is not supported; "
                "give a transformer, such as minilm."
            )
        self.max_tokens = int(most) if most < UNBOUNDED else USUAL_LIMIT
        self._prompt = str(self.model.prompts.get(self.model.default_prompt_name or "") or "")

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens and default prompt included, before any cut."""
        return count_tokens(self.model.tokenizer, [self._prompt + text for text in texts])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the features that the first module of the model reads."""
        return self.model.preprocess(list(texts), prompt=self._prompt or None)

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        """Return the (N, D) sentence embeddings, not normalised unless the model does so."""
        return self.model(dict(tokens))["sentence_embedding"][:, : self.model.truncate_dim]
