"""Predictions of a model for images, in batches, or anything else that it computes of them.

Features are computed once with ``--freeze``, if nothing changes the pixels, as is its default: a step then costs a
thousandth of one that runs the whole model, and the arms of a comparison share the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts.top_k_probs import joined, packed
from gpt4image.base.progress import say
from gpt4image.config.learning import ResolvedOptions
from gpt4image.data.pixels import KeptFeatures, Pixels
from gpt4image.models.feature_heads import Headed, classified
from gpt4image.parallel import processes
from gpt4image.parallel.devices import autocast, choose_device, memory_format_of
from gpt4image.tasks.base import Predictions, Task
from gpt4image.training.augment import Augmentation, eval_batch
from gpt4image.training.prepare import Prepared
from gpt4image.training.trainer import augmentation_of, make_backbone
from gpt4image.training.training_data import TrainingData

EVAL_BATCH, EVAL_SIZE = 256, 224
"""Images of a batch, and the largest at which it has so many: of larger ones it has as many pixels."""
OF_FEATURES = ("model", "model_args", "init", "image_size", "stem", "drop_path", "device", "precision", "memory_format")
"""Options that features depend on."""
ON_CPU = 32
"""Images at once there: larger batches take memory anew for each layer, which took more time than the layers."""
_last: list[tuple[Pixels, dict[str, Any], KeptFeatures]] = []
"""Features that were computed last in this process; the runs of a comparison need the same."""


def images_at_once(task: Task, classes: int, size: int) -> int:
    """Return how many images or clips of ``size`` pixels are predicted at once."""
    planes = 1 if task.frames is None else task.frames.count
    if task.output == "mask":
        planes *= classes
    return max(1, EVAL_BATCH * EVAL_SIZE**2 // max(EVAL_SIZE, size) ** 2 // planes)


def predict(
    model: nn.Module,
    data: TrainingData,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: ResolvedOptions,
) -> Predictions:
    """Return (n, ...) predictions of the images at ``indices``: what the task makes of the outputs of ``model``."""
    model.eval()
    if not len(indices):
        return np.zeros((0, *data.task.shape(len(data.classes), config.image_size)), np.float32)
    tail = data.task.tail()
    few, at_once = data.task.exclusive, images_at_once(data.task, len(data.classes), config.image_size)

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (tail(classified(model, inputs).float()),)

    return outputs(read, data.pixels, indices, augmentation, config, at_once, few_classes=few)[0]


@torch.inference_mode()
def outputs(
    read: Callable[[Tensor], tuple[Tensor, ...]],
    pixels: Pixels,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: ResolvedOptions,
    at_once: int,
    few_classes: bool = False,
) -> tuple[Any, ...]:
    """Return what ``read`` gives of images, batch by batch: (B, 3, T, T) normalised pixels to tensors (B, ...).

    Floats are float32; numbers of other kinds stay as they are.

    Where several processes share a run, all of them call this; each reads some of the batches, and all get all rows.

    Args:
        read: computes what is wanted of a batch, in the precision of ``config``.
        pixels: the pixels of a set, or its features (B, C), which ``read`` gets as they are.
        indices: (n,) positions in it, one at least.
        augmentation: how images are normalised.
        config: device, precision and memory format.
        at_once: images of a batch; see ``images_at_once``.
        few_classes: whether of the first, probabilities, only the classes with mass are kept; see ``TopKProbs``.
    """
    device = choose_device(config.device)
    batches = [indices[start : start + at_once] for start in range(0, len(indices), at_once)]
    # Each process reads as many, some of them twice over all: a model in shards needs all processes for each batch.
    turns = range(processes.rank(), -(-len(batches) // processes.count()) * processes.count(), processes.count())
    numbers = [turn % len(batches) for turn in turns]
    rows: dict[int, tuple[Any, ...]] = {}
    for number, batch in zip(numbers, pixels.stream(batches[number] for number in numbers), strict=True):
        inputs = batch.to(device)
        if inputs.ndim == 4:  # else they are features
            inputs = eval_batch(inputs, augmentation).contiguous(memory_format=memory_format_of(config.memory_format))
        with autocast(device, config.precision):
            found = read(inputs)
        arrays = [(part.float() if part.is_floating_point() else part).cpu().numpy() for part in found]
        rows[number] = (packed(arrays[0], len(indices)), *arrays[1:]) if few_classes else tuple(arrays)
    return tuple(joined(parts) for parts in zip(*processes.merged(rows), strict=True))


def with_features(ready: Prepared) -> Prepared:
    """Return a run with features in the place of its pixels, where its body stays as it is and sees the same pixels."""
    config, data = ready.config.resolved, ready.data
    if not _stays(config, data):
        return ready
    options = {name: getattr(config, name) for name in OF_FEATURES}
    for pixels, those, kept in _last:
        if pixels is data.pixels and those == options:
            return replace(ready, data=replace(data, pixels=kept))
    found = make_backbone(config, data.task.outputs(data.classes))
    classifier: Any = found.module.get_classifier() if hasattr(found.module, "get_classifier") else None  # pyright: ignore[reportCallIssue]
    if not isinstance(classifier, nn.Linear) or len(found.new_layers) > 1 or isinstance(data.pixels, KeptFeatures):
        return ready
    if processes.rank() == 0:
        say(f"computing the features of {len(data.pixels):,} images once, as --freeze keeps the weights")
    kept = KeptFeatures(_features(found.module, config, data), data.pixels)
    _last[:] = [(data.pixels, options, kept)]
    return replace(ready, data=replace(data, pixels=kept))


def _stays(config: ResolvedOptions, data: TrainingData) -> bool:
    """Return whether nothing but the classifier learns, and no augmentation changes what the body sees."""
    changed = (config.flip, config.shift, config.colour, config.erase, config.auto_augment, config.mixes)
    more = (config.consistency, config.pretraining, config.fsdp, data.text is not None and config.aligns)
    plain = data.task.frames is None and data.task.output == "probabilities" and config.min_scale == 1.0
    return config.freeze and plain and not any(changed) and not any(more)


def _features(body: nn.Module, config: ResolvedOptions, data: TrainingData) -> Tensor:
    """Return (N, C) what the classifier of a model reads of each image."""
    memory_format = memory_format_of(config.memory_format)
    device = choose_device(config.device)
    body.to(device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    reader = Headed(body).eval()

    def read(inputs: Tensor) -> tuple[Tensor]:
        return (reader.read(inputs)[1],)

    everything = np.arange(len(data.pixels))
    at_once = images_at_once(data.task, len(data.classes), config.image_size)
    at_once = min(at_once, ON_CPU) if device.type == "cpu" else at_once
    how = augmentation_of(config, body)
    return torch.from_numpy(outputs(read, data.pixels, everything, how, config, at_once)[0])
