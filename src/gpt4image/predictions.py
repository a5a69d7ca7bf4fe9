"""What a model says of images, in batches: class probabilities, or anything else that is read off it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image import processes
from gpt4image.augment import Augmentation, eval_batch
from gpt4image.config import TrainOptions
from gpt4image.data.pixels import Pixels
from gpt4image.devices import autocast, choose_device, memory_format_of
from gpt4image.training_data import TrainingData

EVAL_BATCH = 256


def predict(
    model: nn.Module,
    data: TrainingData,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: TrainOptions,
) -> NDArray[np.float32]:
    """Return (n, K) class probabilities of the images at ``indices``; ``model`` returns logits alone."""
    model.eval()
    if not len(indices):
        return np.zeros((0, len(data.classes)), np.float32)
    return outputs(lambda inputs: (model(inputs).float().softmax(dim=1),), data.pixels, indices, augmentation, config)[
        0
    ]


@torch.inference_mode()
def outputs(
    read: Callable[[Tensor], tuple[Tensor, ...]],
    pixels: Pixels,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    config: TrainOptions,
    change: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[NDArray[np.float32], ...]:
    """Return what ``read`` gives of images, batch by batch: (B, 3, T, T) normalised pixels to tensors (B, ...).

    Where several processes share a run, all of them call this; each reads its part, and all get all rows.

    Args:
        read: what is read off a batch; runs in the precision of ``config``.
        pixels: the pixels of a set.
        indices: (n,) positions in it, one at least.
        augmentation: how images are normalised.
        config: device, precision and memory format.
        change: changes a batch (B, 3, S, S) uint8 before it is normalised; gets the number of the batch too.
    """
    device = choose_device(config.device)
    rows: list[tuple[Tensor, ...]] = []
    # Parts are made equal by images that are read twice; their second rows come last, and are cut off.
    share = -(-len(indices) // processes.count())
    own = np.resize(indices, share * processes.count())[processes.rank() * share :][:share]
    starts = range(0, share, EVAL_BATCH)
    for number, batch in enumerate(pixels.stream(own[start : start + EVAL_BATCH] for start in starts)):
        inputs = eval_batch((batch if change is None else change(batch, number)).to(device), augmentation)
        with autocast(device, config.precision):
            found = read(inputs.contiguous(memory_format=memory_format_of(config.memory_format)))
        rows.append(tuple(part.float().cpu() for part in found))
    return tuple(processes.gather(torch.cat(parts))[: len(indices)].numpy() for parts in zip(*rows, strict=True))
