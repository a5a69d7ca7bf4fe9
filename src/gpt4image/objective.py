"""The loss of one batch: the task, the alignment, and how they are weighted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.augment import train_batch
from gpt4image.devices import autocast, memory_format_of
from gpt4image.mixing import make_mixup, mix
from gpt4image.tasks.classification import soft_cross_entropy
from gpt4image.trainer import Trainer


class Losses(NamedTuple):
    """The loss of one batch.

    Attributes:
        total: scalar that is minimised.
        parts: its parts by name (task, align, ...), unweighted scalars, for the record.
    """

    total: Tensor
    parts: dict[str, Tensor]


def seed_step(seed: int, step: int) -> None:
    """Seed torch (augmentation, dropout, stochastic depth) and numpy (timm's mixup) for one step."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.manual_seed(state)
    np.random.seed(state)


def batch_losses(trainer: Trainer, step: int, images: NDArray[np.int64], pixels: Tensor) -> Losses:
    """Return the losses of one batch; the part ``align`` is missing where no text takes part.

    Args:
        trainer: the run.
        step: number of the optimiser step in the run.
        images: (B,) positions of the images in the set.
        pixels: (B, 3, S, S) uint8.
    """
    config, device, data = trainer.config, trainer.device, trainer.data
    inputs = train_batch(pixels.to(device, non_blocking=True), trainer.augmentation, torch.default_generator)
    broken = torch.from_numpy(data.pixels.broken(images)).to(device)
    targets = data.class_targets(images).to(device).masked_fill(broken[:, None], 0.0)
    mixing: Tensor | None = None
    if (mixup := make_mixup(config.mixup, config.cutmix, len(images))) is not None:
        inputs, mixing = mix(mixup, inputs)
        targets = mixing @ targets
    with autocast(device, config.precision):
        inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        logits, image_emb = trainer.model(inputs)
    task = soft_cross_entropy(logits, targets, config.label_smoothing)
    if image_emb is None or data.text is None:
        return Losses(task, {"task": task})
    text_emb, described, text_ids = (part.to(device) for part in data.text.take(images))
    aligner: Any = trainer.model
    align = aligner.alignment_loss(image_emb, text_emb, mixing=mixing, described=described & ~broken, text_ids=text_ids)
    return Losses(task + config.align_weight * align, {"task": task, "align": align})
