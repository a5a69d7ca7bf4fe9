"""The loss of one batch: the task, the alignment, and how they are weighted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.parallel.devices import autocast, memory_format_of
from gpt4image.tasks.classification import soft_cross_entropy
from gpt4image.training.augment import finished, normalised, train_batch
from gpt4image.training.consistency import consistency_loss
from gpt4image.training.mixing import mix
from gpt4image.training.trainer import Trainer
from gpt4image.training.weighting import gradient_ratio, weights_at


class Losses(NamedTuple):
    """The loss of one batch.

    Attributes:
        total: scalar that is minimised.
        parts: its parts by name (task, align, consistency), unweighted scalars, for the record.
    """

    total: Tensor
    parts: dict[str, Tensor]


def seed_step(seed: int, step: int) -> None:
    """Seed torch (augmentation, dropout, stochastic depth) and numpy (timm's mixup) for one step."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.manual_seed(state)
    np.random.seed(state)


def batch_losses(trainer: Trainer, step: int, images: NDArray[np.int64], pixels: Tensor) -> Losses:
    """Return the losses of one batch; parts that the run does not have (align, consistency) are missing.

    Args:
        trainer: the run.
        step: number of the optimiser step in the run.
        images: (B,) positions of the images in the set.
        pixels: (B, 3, S, S) uint8, or trainer.views of them: (B + U, 3, T, T) uint8.
    """
    config, device, data = trainer.config, trainer.device, trainer.data
    size = len(images)
    broken = torch.from_numpy(data.pixels.broken(images)).to(device)
    targets = data.class_targets(images).to(device).masked_fill(broken[:, None], 0.0)
    one, two = (torch.arange(size), torch.arange(0)) if trainer.views is None else trainer.views.split(images)
    inputs = inputs_of(trainer, pixels.to(device, non_blocking=True), size, two)
    mixing: Tensor | None = None
    if config.mixes:
        mixing = mix(inputs[:size], one, config.mixup, config.cutmix)
        targets = mixing @ targets
    # A text is drawn before the model draws what differs between processes (dropout).
    chosen = trainer.batches.draws(torch.default_generator).uniform().numpy() if config.texts == "sample" else None
    further_inputs: dict[str, Any] = {"with_features": config.adaptive_weight}
    if trainer.tuning is not None:
        further_inputs["texts"] = trainer.tuning.reader.take(images, chosen).to(device)
    with autocast(device, config.precision):
        inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        logits, image_emb, *further = trainer.parallel(inputs, **further_inputs)
    task = soft_cross_entropy(logits[:size], targets, config.label_smoothing)
    total, parts, of_task = task, {"task": task}, 1.0
    if image_emb is not None and data.text is not None:
        text_emb, described, text_ids = (part.to(device) for part in data.text.take(images, chosen))
        text_emb = text_emb if trainer.tuning is None else further[-1]
        aligner: Any = trainer.model
        parts["align"] = aligner.alignment_loss(
            image_emb[:size],
            text_emb,
            mixing=mixing,
            described=described & ~broken,
            text_ids=text_ids,
            labels=torch.from_numpy(data.visible_classes(images)).to(device),
            further=trainer.further,
        )
        of_task, of_align = weights_at(config, step, trainer.steps)
        adaptive = config.adaptive_weight and of_align > 0.0
        balance = gradient_ratio(task, parts["align"], further[0]) if adaptive else 1.0
        total = of_task * task + of_align * balance * parts["align"]
    if config.consistency > 0.0:
        two = two.to(device)
        # What label smoothing leaves of a probability of 1 is as sure as the model is taught to be.
        surest = 1 - config.label_smoothing + config.label_smoothing / logits.shape[1]
        sure = config.confidence * surest
        parts["consistency"] = consistency_loss(logits[two], logits[size:], ~broken[two], sure)
        total = total + of_task * config.consistency * parts["consistency"]
    return Losses(total, parts)


def inputs_of(trainer: Trainer, pixels: Tensor, size: int, two: Tensor) -> Tensor:
    """Return what the model gets of one batch: (B, 3, T, T) float32, then the second views of the rows ``two``.

    Args:
        trainer: the run.
        pixels: uint8 on the device, as they were streamed.
        size: B, images in the batch.
        two: (U,) rows that have a second view.
    """
    how, draws = trainer.augmentation, trainer.batches.draws(torch.default_generator)
    if trainer.views is None:
        return train_batch(pixels, how, draws)
    inputs = finished(pixels[:size], how, draws)
    if trainer.views.strong is None:
        return inputs
    inputs[two] = normalised(pixels[two] / 255.0, how)  # the first view of these is a weak one: moved, and no more
    strong = replace(how, colour=0.0, erase=1.0, erase_with="mean")  # FixMatch ends every strong view with Cutout
    return torch.cat([inputs, finished(pixels[size:], strong, draws.of(two))])
