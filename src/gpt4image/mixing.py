"""Mixup and CutMix through timm, with the mixing matrix that labels and text targets are mixed by."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup
from torch import Tensor


def make_mixup(mixup_alpha: float, cutmix_alpha: float, batch_size: int) -> Mixup | None:
    """Return timm's mixup for batches of ``batch_size``, or None where both alphas are 0."""
    if mixup_alpha == 0.0 and cutmix_alpha == 0.0:
        return None
    return Mixup(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, label_smoothing=0.0, num_classes=batch_size)


def mix(mixup: Mixup, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mix a batch.

    Images pass for their own classes (image i has class i of B), so that timm's soft targets are the mixing matrix.

    Args:
        mixup: made by ``make_mixup`` for B images.
        images: (B, C, H, W) float, B even; mixed in place.

    Returns:
        The mixed images, and (B, B) float32: row i holds the weights of the images that mixed image i is made of.
    """
    mixed, matrix = mixup(images, torch.arange(len(images), device=images.device))
    return mixed, matrix.float()
