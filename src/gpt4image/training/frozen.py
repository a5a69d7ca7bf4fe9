"""Features that are computed once: with ``--freeze`` they are the same in each epoch, and only a classifier learns.

That holds where nothing changes the pixels, as is the default with ``--freeze``: a step then costs a thousandth of one
that runs the whole model, and the arms of a comparison share the features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt4image.base.progress import say
from gpt4image.config.learning import ResolvedOptions
from gpt4image.data.pixels import KeptFeatures, Pixels
from gpt4image.models.feature_heads import Headed
from gpt4image.parallel import processes
from gpt4image.parallel.devices import choose_device, memory_format_of
from gpt4image.training.predictions import images_at_once, outputs
from gpt4image.training.prepare import Prepared
from gpt4image.training.trainer import augmentation_of, make_backbone
from gpt4image.training.training_data import TrainingData

OF_FEATURES = ("model", "model_args", "init", "image_size", "stem", "drop_path", "device", "precision", "memory_format")
"""Options that features depend on."""
ON_CPU = 32
"""Images at once there: larger batches take memory anew for each layer, which took more time than the layers."""
_last: list[tuple[Pixels, dict[str, Any], KeptFeatures]] = []
"""Features that were computed last in this process; the runs of a comparison need the same."""


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
