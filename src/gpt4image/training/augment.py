"""Augmentation of whole batches on the device: every image of a batch gets its own random shift, crop and colours.

One gather moves and flips a batch of uint8 images at once, which is many times faster than one image at a time in
worker processes; the same functions serve sets in memory and sets decoded by workers.
Legend: B images, C channels, S stored side, T target side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4image.data.decode import centre_start
from gpt4image.data.geometry import Geometry
from gpt4image.training.draws import Draws


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to a batch; the fields are the options of the same names in TrainOptions."""

    size: int
    flip: bool
    shift: float
    min_scale: float
    colour: float
    erase: float
    erase_with: str = "mean"
    mean: tuple[float, ...]
    std: tuple[float, ...]


def train_batch(images: Tensor, how: Augmentation, draws: Draws) -> Tensor:
    """Augment and normalise.

    Args:
        images: (B, C, S, S) uint8, this process's rows of the batch.
        how: what to do.
        draws: random numbers of the B images; the same ones give the same batch.

    Returns:
        (B, C, T, T) float32, in channels_last order.
    """
    return finished(drawn(images.shape[-1], how, draws).pixels(images), how, draws)


def eval_batch(images: Tensor, how: Augmentation) -> Tensor:
    """Cut the centre and normalise: (B, C, S, S) uint8 to (B, C, T, T) float32."""
    start = centre_start(images.shape[-1], how.size)
    centre = images[:, :, start : start + how.size, start : start + how.size]
    return normalised(centre.float() / 255.0, how)


def drawn(side: int, how: Augmentation, draws: Draws) -> Geometry:
    """Return a random crop or shift, and a random flip, of each image; ``side`` is S."""
    if how.min_scale < 1.0:
        return _drawn_crop(how, draws)
    most = round(how.shift * how.size)
    offsets = draws.integers(-most, most + 1, 2, 1)
    return Geometry.shift(offsets, _flipped(how, draws), side, how.size)


def finished(images: Tensor, how: Augmentation, draws: Draws) -> Tensor:
    """Change colours, normalise and erase: (B, C, T, T), 0..255, to (B, C, T, T) float32."""
    pixels = images / 255.0
    if how.colour > 0.0:
        pixels = jittered(pixels, how.colour, draws)
    pixels = normalised(pixels, how)
    return erased(pixels, how.erase, draws, with_noise=how.erase_with == "noise") if how.erase > 0.0 else pixels


def normalised(pixels: Tensor, how: Augmentation) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel; pixels in 0..1."""
    mean = torch.tensor(how.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(how.std, device=pixels.device).view(1, -1, 1, 1)
    return (pixels - mean).div_(std)


def _drawn_crop(how: Augmentation, draws: Draws) -> Geometry:
    """Draw a part of each image (area at least ``min_scale``, aspect ratio 3/4 to 4/3).

    The sizes follow "Going deeper with convolutions" (Szegedy et al. 2015), as torchvision's RandomResizedCrop does.
    """
    area = how.min_scale + (1.0 - how.min_scale) * draws.uniform()
    ratio = torch.exp((draws.uniform() * 2 - 1) * torch.log(torch.tensor(4.0 / 3.0)))
    extent = torch.stack([area * ratio, area / ratio], dim=1).sqrt().clamp(max=1.0)
    x, y = ((draws.uniform() * 2 - 1) * (1 - extent[:, axis]) for axis in (0, 1))
    return Geometry.crop(torch.stack([x, y], dim=1), extent, _flipped(how, draws), how.size)


def _flipped(how: Augmentation, draws: Draws) -> Tensor:
    return draws.uniform() < 0.5 if how.flip else torch.zeros(len(draws.rows), dtype=torch.bool)


def jittered(pixels: Tensor, strength: float, draws: Draws) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors within 1 +- ``strength``; pixels in 0..1."""
    factor = 1 + strength * (2 * draws.uniform(3, 1, 1, 1) - 1)
    brightness, contrast, saturation = factor.to(pixels.device).unbind(1)
    pixels = pixels * brightness
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    return (middle + (pixels - middle) * contrast).clamp(0.0, 1.0)


def erased(pixels: Tensor, probability: float, draws: Draws, *, with_noise: bool = False) -> Tensor:
    """Fill a random rectangle (2 to 33 % of the area) of some normalised images with 0, their mean colour, or noise.

    Random erasing: Zhong et al. 2020, arXiv 1708.04896.
    """
    side = pixels.shape[-1]
    area = 0.02 + 0.31 * draws.uniform(1)
    ratio = torch.exp((draws.uniform(1) * 2 - 1) * torch.log(torch.tensor(3.3)))
    height, width = (area * ratio).sqrt() * side, (area / ratio).sqrt() * side
    top = draws.uniform(1) * (side - height).clamp(min=0)
    left = draws.uniform(1) * (side - width).clamp(min=0)
    chosen = draws.uniform(1) < probability
    line = torch.arange(side)
    rows = (line >= top) & (line < top + height) & chosen
    columns = (line >= left) & (line < left + width)
    hole = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(pixels.device)
    return torch.where(hole, _noise(pixels, draws), pixels) if with_noise else pixels.masked_fill(hole, 0.0)


def _noise(pixels: Tensor, draws: Draws) -> Tensor:
    """Return normal noise of the shape of ``pixels``: one strip is drawn, and each image starts somewhere in it."""
    length = pixels[0].numel()
    strip = torch.randn(2 * length, generator=draws.generator).to(pixels.device)
    starts = draws.integers(0, length).to(pixels.device)
    return strip.unfold(0, length, 1)[starts].view(pixels.shape)
