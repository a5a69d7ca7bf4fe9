"""Corrupted images: common ways in which a photograph goes wrong, in five severities, for measuring alone.

The kinds are those of Hendrycks and Dietterich (2019, arXiv 1903.12261) that torchvision's operations and a line of
arithmetic give. Severities lie between those of CIFAR-10-C and of ImageNet-C, lengths being parts of the image's side,
so accuracies tell arms apart but are not to be compared with published ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as V

SEVERITIES = (1, 2, 3, 4, 5)
Levels = tuple[float, float, float, float, float]


def corrupt(kind: str, severity: int, images: Tensor, seed: int) -> Tensor:
    """Return corrupted copies of images.

    Args:
        kind: name in KINDS.
        severity: 1 (mild) to 5.
        images: (B, 3, S, S) uint8.
        seed: what is random depends on kind, seed and the place in the batch alone: severities differ in strength.

    Returns:
        (B, 3, S, S) uint8, on the device of ``images``.
    """
    apply, levels = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{kind} {seed}".encode()))
        pixels = apply(images.cpu().float() / 255.0, levels[severity - 1])
    return (pixels.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).to(images.device)


def _gaussian_noise(pixels: Tensor, deviation: float) -> Tensor:
    return pixels + deviation * torch.randn_like(pixels)


def _shot_noise(pixels: Tensor, photons: float) -> Tensor:
    return torch.poisson(pixels * photons) / photons


def _impulse_noise(pixels: Tensor, part: float) -> Tensor:
    draw = torch.rand_like(pixels)
    return torch.where(draw < part, (draw < part / 2).float(), pixels)


def _gaussian_blur(pixels: Tensor, deviation: float) -> Tensor:
    sigma = deviation * pixels.shape[-1]
    return V.gaussian_blur(pixels, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)


def _motion_blur(pixels: Tensor, length: float) -> Tensor:
    reach = max(1, round(length * pixels.shape[-1] / 2))
    padded = F.pad(pixels, (reach, reach, 0, 0), mode="replicate")
    return F.avg_pool2d(padded, (1, 2 * reach + 1), stride=1)


def _zoom_blur(pixels: Tensor, most: float) -> Tensor:
    side = pixels.shape[-1]
    total = pixels.clone()
    for step in (1, 2, 3, 4):
        size = max(side + 1, round(side * (1 + most * step / 4)))
        total += V.center_crop(V.resize(pixels, [size, size], antialias=True), [side, side])
    return total / 5


def _elastic(pixels: Tensor, strength: float) -> Tensor:
    side = pixels.shape[-1]
    smooth = V.gaussian_blur(2 * torch.rand(1, 2, side, side) - 1, [2 * (side // 8) + 1] * 2, [side / 16] * 2)
    shift = strength * smooth / smooth.abs().max()
    return V.elastic(pixels, shift.permute(0, 2, 3, 1))


def _pixelate(pixels: Tensor, part: float) -> Tensor:
    side = pixels.shape[-1]
    small = V.resize(pixels, [max(1, round(part * side))] * 2, antialias=True)
    return V.resize(small, [side, side], interpolation=V.InterpolationMode.NEAREST)


def _jpeg(pixels: Tensor, quality: float) -> Tensor:
    images = (pixels * 255.0).round().to(torch.uint8)
    return torch.stack([V.jpeg(image, int(quality)) for image in images]).float() / 255.0


def _brightness(pixels: Tensor, more: float) -> Tensor:
    return pixels + more


KINDS: dict[str, tuple[Callable[[Tensor, float], Tensor], Levels]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.07, 0.1, 0.14, 0.18)),
    "shot_noise": (_shot_noise, (300.0, 150.0, 75.0, 40.0, 20.0)),
    "impulse_noise": (_impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.15)),
    "gaussian_blur": (_gaussian_blur, (0.0125, 0.018, 0.023, 0.028, 0.034)),
    "motion_blur": (_motion_blur, (0.06, 0.12, 0.18, 0.24, 0.3)),
    "zoom_blur": (_zoom_blur, (0.06, 0.12, 0.18, 0.24, 0.3)),
    "elastic": (_elastic, (0.04, 0.07, 0.1, 0.13, 0.16)),
    "pixelate": (_pixelate, (0.8, 0.65, 0.5, 0.4, 0.3)),
    "jpeg": (_jpeg, (60.0, 40.0, 25.0, 15.0, 8.0)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (V.adjust_contrast, (0.7, 0.5, 0.35, 0.25, 0.15)),
    "desaturation": (V.adjust_saturation, (0.7, 0.5, 0.3, 0.15, 0.0)),
}
"""Kinds of corruption: what is done, and how much of it at each severity."""
