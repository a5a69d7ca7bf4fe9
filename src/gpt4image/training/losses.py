"""The loss of one batch: the task's, and the weighted objectives of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.data.geometry import Geometry
from gpt4image.parallel.devices import autocast, memory_format_of
from gpt4image.training.augment import mix, normalised, random_geometry, recoloured
from gpt4image.training.objectives import Batch, Outputs
from gpt4image.training.trainer import Trainer


class Losses(NamedTuple):
    """The loss of one batch: the scalar that is minimised, and its unweighted parts by name, for the record."""

    total: Tensor
    parts: dict[str, Tensor]


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed torch (augmentation, dropout, stochastic depth) and numpy (timm's mixup) for one step on ``device``.

    ``torch.manual_seed`` also seeds devices that are not there, and for each of these formats the stack.
    """
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(state)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(state)
    np.random.seed(state)


def seen(trainer: Trainer, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the images of the views of a batch, (B,) or (2B,): all are seen twice where views are compared."""
    return np.tile(images, 2) if trainer.batches.twice else images


def batch_losses(trainer: Trainer, number: int, images: NDArray[np.int64], pixels: Tensor) -> Losses:
    """Return the losses of one batch.

    Args:
        trainer: the run.
        number: of the batch in the run, from 0.
        images: (B,) positions of the images in the set.
        pixels: (B, 3, S, S) uint8, or trainer.cpu_augmentation of them: (B + U, 3, T, T) uint8.
    """
    config, device, data = trainer.config, trainer.device, trainer.data
    size, views = len(images), seen(trainer, images)
    broken = torch.from_numpy(data.pixels.broken(views)).to(device)
    one, two = (
        (torch.arange(size), torch.arange(0))
        if trainer.cpu_augmentation is None
        else trainer.cpu_augmentation.split(images)
    )
    inputs, geometry = inputs_of(trainer, pixels.to(device, non_blocking=True), number, images)
    targets = data.task.without_target(data.targets(images, geometry).to(device), broken[:size])
    mixing: Tensor | None = None
    if config.mixes:
        mixing = mix(inputs[:size], one, config.mixup, config.cutmix)
        targets = (mixing @ targets.flatten(1)).view_as(targets)
    second = two[:0] if trainer.batches.twice else two  # they are in the batch itself
    batch = Batch(images=views, broken=broken, mixing=mixing, second=second.to(device))
    outputs = outputs_of(trainer, batch, inputs)
    task = data.task.loss(outputs.task, targets, config.label_smoothing)
    total, parts = task, {"task": task}
    for objective in trainer.objectives:
        own = objective.loss(batch, outputs)
        parts[objective.name] = own
        total = total + objective.weight * own
    return Losses(total, parts)


def outputs_of(trainer: Trainer, batch: Batch, inputs: Tensor) -> Outputs:
    """Return the outputs of the model for the inputs of a batch: (B + U, 3, T, T) float32."""
    config, size = trainer.config, len(batch.images)
    asked: dict[str, Any] = {}
    if trainer.tuning is not None:
        asked["texts"] = trainer.tuning.texts.read(batch.images, trainer.device)
    with autocast(trainer.device, config.precision):
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        found, embeddings, *more = trainer.parallel(inputs, **asked)
    heads: dict[str, Tensor] = more.pop() if trainer.has_heads else {}
    return Outputs(
        task=found[:size],
        second=found[size:],
        embeddings=None if embeddings is None else embeddings[:size],
        texts=None if trainer.tuning is None else more[-1],
        heads=heads,
    )


def inputs_of(
    trainer: Trainer, pixels: Tensor, number: int, images: NDArray[np.int64]
) -> tuple[Tensor, Geometry | None]:
    """Return the inputs of one batch, (B, 3, T, T) float32, then the second views; and the geometry of the former.

    Features (B, C) in the place of pixels are the inputs themselves.

    The arguments are those of ``batch_losses``; ``pixels`` are on the device.
    """
    if pixels.ndim == 2:
        return pixels, None
    how, rng = trainer.augmentation, trainer.batches.rng(torch.default_generator)
    if trainer.cpu_augmentation is None:
        geometry = random_geometry(pixels.shape[-1], how, rng, torch.from_numpy(trainer.data.weak(images)))
        return recoloured(geometry.pixels(pixels), how, rng), geometry
    size, two = len(images), trainer.cpu_augmentation.split(images)[1]
    geometry = trainer.cpu_augmentation.geometry(trainer.data.pixels.size, number)
    inputs = recoloured(pixels[:size], how, rng)
    if trainer.batches.twice:
        return torch.cat([inputs, recoloured(pixels[size:], how, rng)]), geometry
    if trainer.cpu_augmentation.strong is None:
        return inputs, geometry
    inputs[two] = normalised(pixels[two] / 255.0, how)  # the first view of these is a weak one: moved, and no more
    strong = replace(how, colour=0.0, erase=1.0, erase_with="mean")  # FixMatch ends every strong view with Cutout
    return torch.cat([inputs, recoloured(pixels[size:], strong, rng.of(two))]), geometry
