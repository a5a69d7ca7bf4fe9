"""Mixup and CutMix through timm, with the mixing matrix that labels and text targets are mixed by."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup
from torch import Tensor


def mix(images: Tensor, rows: Tensor, mixup_alpha: float, cutmix_alpha: float) -> Tensor:
    """Mix some images of a batch with each other.

    Images pass for their own classes (image i has class i), so that timm's soft targets are the mixing matrix.

    Args:
        images: (B, C, H, W) float; mixed in place.
        rows: (M,) int64 which of them; of an odd number the last stays as it is.
        mixup_alpha: of mixup; 0 for CutMix alone.
        cutmix_alpha: of CutMix; 0 for mixup alone.

    Returns:
        (B, B) float32: row i holds the weights of the images that image i is now made of.
    """
    rows = rows[: len(rows) // 2 * 2].to(images.device)
    matrix = torch.eye(len(images), device=images.device)
    if len(rows):
        mixup = Mixup(mixup_alpha, cutmix_alpha, label_smoothing=0.0, num_classes=len(rows))
        images[rows], weights = mixup(images[rows], torch.arange(len(rows), device=images.device))
        matrix[rows[:, None], rows] = weights.float()
    return matrix
