"""Class probabilities of images by a plain model, in batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.augment import Augmentation, eval_batch
from gpt4image.config import TrainOptions
from gpt4image.devices import autocast, choose_device, memory_format_of
from gpt4image.training_data import TrainingData

EVAL_BATCH = 256


@torch.inference_mode()
def predict(
    model: nn.Module,
    data: TrainingData,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: TrainOptions,
) -> NDArray[np.float32]:
    """Return (n, K) class probabilities of the images at ``indices``; ``model`` returns logits alone."""
    device = choose_device(config.device)
    model.eval()
    rows: list[Tensor] = []
    starts = range(0, len(indices), EVAL_BATCH)
    for batch in data.pixels.stream(indices[start : start + EVAL_BATCH] for start in starts):
        inputs = eval_batch(batch.to(device), augmentation)
        with autocast(device, config.precision):
            logits = model(inputs.contiguous(memory_format=memory_format_of(config.memory_format)))
        rows.append(logits.float().softmax(dim=1).cpu())
    return torch.cat(rows).numpy() if rows else np.zeros((0, len(data.classes)), np.float32)
