"""The Trainer of transformers: an image classifier whose loss also aligns to text, and the collator of its batches.

model = AlignedClassifier(AutoModelForImageClassification.from_config(config), text_width=pairs.text_width)
trainer = Trainer(model, TrainingArguments(...), train_dataset=pairs, data_collator=collate_described)
trainer.train()
model.save_pretrained("plain")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate
from transformers.modeling_outputs import ImageClassifierOutput

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.models.aligner import Aligner
from gpt4image.own_loop.pairs import IGNORED_LABEL, DescribedImage
from gpt4image.tasks.classification import soft_cross_entropy


class AlignedClassifier(nn.Module):
    """An image classifier with the alignment loss added while it trains; only the classifier is evaluated.

    A checkpoint of the Trainer holds everything, the head too, and resumes; ``save_pretrained``
    writes the plain model.

    Args:
        model: image classifier of transformers, or any module from images to logits.
        text_width: D, width of the text embeddings.
        align_weight: weight of the alignment loss.
        options: of ``Aligner``: ``head``, ``classifier``, ``loss``, ``temperature`` and so on.

    Raises:
        ModelError, ConfigError: as ``Aligner``.
    """

    def __init__(self, model: nn.Module, text_width: int, *, align_weight: float = 1.0, **options: Any) -> None:
        super().__init__()
        self.aligner = Aligner(model, text_width, **options)
        self.align_weight = align_weight

    @property
    def config(self) -> Any:
        """Configuration of the plain model, which the Trainer's callbacks log."""
        return self.aligner.backbone.config

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        text: Tensor | None = None,
        described: Tensor | None = None,
        text_ids: Tensor | None = None,
    ) -> ImageClassifierOutput:
        """Return logits, and the loss where there are labels.

        Args:
            pixel_values: (B, C, H, W) images.
            labels: (B,) int64 classes, IGNORED_LABEL where there is none.
            text: (B, D) text of each image; read only in training mode.
            described: (B,) bool, which texts exist.
            text_ids: (B,) int64, texts that share a number are equal.

        Raises:
            ConfigError: texts without labels, which label smoothing of the Trainer leads to.
        """
        output, image_emb = self.aligner(pixel_values)
        logits = getattr(output, "logits", output)
        if labels is None:
            if self.training and text is not None:
                raise ConfigError(
                    "A batch to train on has texts but no labels, as with label_smoothing_factor or compute_loss_func "
                    "of the Trainer, whose loss would leave the texts out; do without these."
                )
            return ImageClassifierOutput(logits=logits)
        known = labels != IGNORED_LABEL
        if self.training:  # over the labels of all processes, which may have different numbers of them
            loss = soft_cross_entropy(logits, F.one_hot(labels.where(known, 0), logits.shape[1]) * known[:, None])
        else:
            total = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
            loss = total / known.sum().clamp(min=1)
        if self.training and text is not None:
            loss = loss + self.align_weight * self.aligner.alignment_loss(
                image_emb, text, described=described, text_ids=text_ids
            )
        return ImageClassifierOutput(loss=loss, logits=logits)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write the plain model, as its own ``save_pretrained`` does. Raises ModelError: it has none."""
        plain: Any = self.aligner.backbone
        if not hasattr(plain, "save_pretrained"):
            raise ModelError(f"{type(plain).__name__} has no save_pretrained; save model.release().state_dict().")
        plain.save_pretrained(folder, **options)

    def release(self) -> nn.Module:
        """Return the plain model without the hook; this one cannot run afterwards."""
        return self.aligner.release()


def collate_described(items: Sequence[DescribedImage]) -> dict[str, Tensor]:
    """Return a batch of ``DescribedImages`` or ``WithTexts`` under the names of ``AlignedClassifier.forward``."""
    names = ("pixel_values", "labels", "text", "described", "text_ids")
    return dict(zip(names, default_collate(list(items)), strict=True))
