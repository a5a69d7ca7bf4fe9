"""Text models of the transformers library, from a folder or the Hugging Face hub; safetensors only.

CLIP and SigLIP give the embedding that they were trained to give. Every other model (BERT, RoBERTa, MPNet, the encoder
of T5, a decoder such as Qwen) gives the mean of its last hidden states over the tokens of a text. Decoders that were
trained to give the state of their last token come as sentence-transformers, which know so; for others the mean is the
better choice (Springer et al., "Repetition Improves Language Model Embeddings", 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.base.errors import ModelError, first_few, first_line
from gpt4image.encoding.text_encoders.neural import Tower, count_tokens, single_or_double
from gpt4image.models.hugging_face import loading, without_report

CLIP = ("clip", "clip_text_model")
SIGLIP = ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model")
UNBOUNDED = 1_000_000
USUAL_LIMIT = 512


class TransformersTower(Tower):
    """A text model of transformers with its tokenizer."""

    def __init__(self, spec: str, folder: Path) -> None:
        """Load the model in ``folder``, in fp32 on the CPU.

        Raises:
            ModelError: it cannot be loaded, weights are missing, or it needs images too.
        """
        from transformers import AutoConfig, AutoTokenizer

        super().__init__()
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with loading(f"{spec}: {folder} cannot be loaded as a text model", ModelError), without_report():
            self.kind: str = AutoConfig.from_pretrained(folder, **local).model_type
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            self.model = _load(self.kind, folder)
            self.max_tokens = _limit(self.model, tokenizer.model_max_length)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer = tokenizer
        try:
            with torch.no_grad():
                self(self.tokenize(["a text"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{spec}: {folder} ({self.kind}) gives no embedding of a text alone ({first_line(error)}); give a text "
                "model, CLIP or SigLIP."
            ) from error

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (N,) lengths of texts in tokens, special tokens included, before any cut."""
        return count_tokens(self.tokenizer, texts)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return token numbers and, except for SigLIP, their mask; both (N, L)."""
        # SigLIP was trained on texts padded to the full length, without a mask (model card of transformers).
        padding = "max_length" if self.kind in SIGLIP else True
        tokens = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, padding=padding, return_tensors="pt"
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask")[: 1 if self.kind in SIGLIP else 2]}

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        """Return the (N, D) embeddings: of the projection (CLIP), the pooler (SigLIP), or the mean over tokens."""
        found = self.model(**tokens)
        if self.kind in CLIP:
            return found.text_embeds
        if self.kind in SIGLIP:
            return found.pooler_output
        mask = tokens["attention_mask"].unsqueeze(2)
        return (single_or_double(found.last_hidden_state) * mask).sum(1) / mask.sum(1).clamp(min=1)


def _load(kind: str, folder: Path) -> Any:
    """Return the text part of a model. Raises ModelError if weights that count are missing."""
    import transformers

    classes: dict[str, Any] = {
        **dict.fromkeys(CLIP, transformers.CLIPTextModelWithProjection),
        **dict.fromkeys(SIGLIP[:2], transformers.SiglipTextModel),
        **dict.fromkeys(SIGLIP[2:], transformers.Siglip2TextModel),
    }
    model, found = classes.get(kind, transformers.AutoModel).from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype="float32",
        output_loading_info=True,
    )
    pooled = kind in SIGLIP
    missing = [name for name in found["missing_keys"] if pooled or "pooler" not in name]  # BERT's pooler is not used
    if missing:
        raise ModelError(f"{folder}: the weights {first_few(sorted(missing))} are missing; give a complete model.")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model.config.use_cache = False
    return model


def _limit(model: Any, of_tokenizer: int) -> int:
    """Return the limit of the tokenizer, within the positions that the model has learned."""
    limit = of_tokenizer if of_tokenizer < UNBOUNDED else None
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None:
        # RoBERTa and its kin count positions from the one after the padding's.
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        positions -= 0 if padding is None else padding + 1
        limit = min(limit or positions, positions)
    return limit or USUAL_LIMIT
