"""The paper's objective: features near the embedding of the image's own description, and its weight.

GPT4Image (arXiv 2306.00693): ``loss = task + align_weight * alignment``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4image.config.learning import ResolvedOptions
from gpt4image.models.aligner import Aligner
from gpt4image.parallel import processes
from gpt4image.training.objectives.base import Batch, Outputs
from gpt4image.training.training_data import TrainingData

HIGHEST_RATIO = 1e4


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignmentObjective:
    """Alignment of features to texts; see ``objectives.base.Objective``.

    Attributes:
        config: options of the run.
        data: its images and texts.
        aligner: its model, which knows the alignment loss.
        steps: optimiser steps of the whole run.
    """

    config: ResolvedOptions
    data: TrainingData
    aligner: Aligner
    steps: int
    name: str = "align"

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the alignment loss of the images that have a text."""
        if self.data.text is None or outputs.embeddings is None:
            raise ValueError("alignment needs texts and a projection head")
        device = outputs.embeddings.device
        texts, described, text_ids = (part.to(device) for part in self.data.text.take(batch.images))
        return self.aligner.alignment_loss(
            outputs.embeddings,
            texts if outputs.texts is None else outputs.texts,
            mixing=batch.mixing,
            described=described & ~batch.broken,
            text_ids=text_ids,
        )

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float | Tensor:
        """Return ``align_weight_at``, times ``gradient_ratio`` where the weight adapts."""
        weight = align_weight_at(self.config, step, self.steps)
        if not self.config.adaptive_weight or weight == 0.0 or outputs.features is None:
            return weight
        return weight * gradient_ratio(task, own, outputs.features)


def align_weight_at(config: ResolvedOptions, step: int, steps: int) -> float:
    """Return the weight of the alignment at a step (from 0), that of the task being 1.

    It falls from ``align_weight`` to 0 at ``weight_until`` of the steps, as a cosine, and stays there; it is constant
    where ``weight_until`` is 1.
    """
    if config.weight_until == 1.0:
        return config.align_weight
    part = min(step / (steps * config.weight_until), 1.0)
    return config.align_weight * (1.0 + math.cos(math.pi * part)) / 2.0


def gradient_ratio(task: Tensor, align: Tensor, features: Tensor) -> Tensor:
    """Return the factor by which the alignment's gradient at the features becomes as long as the task's.

    As TextTeacher (arXiv 2605.22098) balances its losses, and VQGAN before it (arXiv 2012.09841, equation 7)::

        |d task / d features| / |d align / d features|

    over the rows of all processes. It costs a second pass through classifier and head, not through the backbone.

    Args:
        task: scalar computed from ``features``; its graph is kept.
        align: the same of the alignment.
        features: what classifier and head read, ``Aligner(...)(images, with_features=True)``.

    Returns:
        A scalar without gradient, at most 10,000; 0 where the alignment has no gradient.
    """
    squares = torch.stack(
        [_square(torch.autograd.grad(loss, features, retain_graph=True)[0]) for loss in (task, align)]
    )
    of_task, of_align = processes.gather(squares[None]).sum(dim=0).sqrt()
    ratio = (of_task / of_align).clamp(max=HIGHEST_RATIO)
    return torch.where(of_align > 0, ratio, 0.0)


def _square(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()
