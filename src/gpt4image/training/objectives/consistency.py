"""Consistency training on images without a label: FixMatch (Sohn et al. 2020, arXiv 2001.07685)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.config.learning import ResolvedOptions
from gpt4image.parallel.processes import gather
from gpt4image.training.objectives.base import Batch, Outputs


@dataclass(frozen=True, kw_only=True, eq=False)
class ConsistencyObjective:
    """FixMatch on the images with a second view; see ``objectives.base.Objective``."""

    config: ResolvedOptions
    name: str = "consistency"

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return ``consistency_loss`` of the images with a second view."""
        # What label smoothing leaves of a probability of 1 is as sure as the model is taught to be.
        smoothing = self.config.label_smoothing
        surest = 1 - smoothing + smoothing / outputs.task.shape[1]
        weak, counts = outputs.task[batch.second], ~batch.broken[batch.second]
        return consistency_loss(weak, outputs.second, counts, self.config.confidence * surest)

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float:
        """Return the weight that was asked for."""
        return self.config.consistency


def consistency_loss(weak: Tensor, strong: Tensor, counts: Tensor, confidence: float) -> Tensor:
    """Train the strong view of an image to the class that the model is sure of in the weak view.

    Equation 4 of FixMatch; the mean is over all images that count, on all processes, sure or not::

        q = softmax(weak[i])                                  # no gradient
        term(i) = -log softmax(strong[i])[argmax(q)]  if max(q) >= confidence else 0

    Args:
        weak: (U, K) logits of the slightly changed views.
        strong: (U, K) logits of the strongly changed views of the same images.
        counts: (U,) bool, which images count.
        confidence: least probability of the class.

    Returns:
        Scalar >= 0, the same on every process; 0 where no image counts. Computed in float32 or better.
    """
    weak, strong = (_at_least_float32(logits) for logits in (weak.detach(), strong))
    probability, label = weak.softmax(dim=1).max(dim=1)
    sure = counts & (probability >= confidence)
    total = (F.cross_entropy(strong, label, reduction="none") * sure).sum()
    number = counts.sum().to(total.dtype)
    return gather(total[None]).sum() / gather(number[None]).sum().clamp(min=1)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
