"""Augmentation of whole batches on the device: every image of a batch gets its own random shift, crop and colours.

One gather moves and flips a batch of uint8 images at once, which is many times faster than one image at a time in
worker processes; the same functions serve sets in memory and sets decoded by workers.
Legend: B images, C channels, S stored side, T target side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to a batch; the fields are the options of the same names in TrainOptions."""

    size: int
    flip: bool
    shift: float
    min_scale: float
    colour: float
    erase: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def train_batch(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment and normalise.

    Args:
        images: (B, C, S, S) uint8.
        how: what to do.
        generator: CPU generator; the same state gives the same batch.

    Returns:
        (B, C, T, T) float32, in channels_last order.
    """
    if how.min_scale < 1.0:
        pixels = resized_crop(images, how.size, how.min_scale, how.flip, generator)
    else:
        pixels = shifted(images, how.size, round(how.shift * how.size), how.flip, generator).float()
    pixels = pixels.div_(255.0)  # made here, so nobody else's
    if how.colour > 0.0:
        pixels = jittered(pixels, how.colour, generator)
    pixels = normalised(pixels, how)
    return erased(pixels, how.erase, generator) if how.erase > 0.0 else pixels


def eval_batch(images: Tensor, how: Augmentation) -> Tensor:
    """Cut the centre and normalise: (B, C, S, S) uint8 to (B, C, T, T) float32."""
    start = (images.shape[-1] - how.size) // 2
    centre = images[:, :, start : start + how.size, start : start + how.size]
    return normalised(centre.float() / 255.0, how)


def normalised(pixels: Tensor, how: Augmentation) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel; pixels in 0..1."""
    mean = torch.tensor(how.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(how.std, device=pixels.device).view(1, -1, 1, 1)
    return (pixels - mean).div_(std)


def shifted(images: Tensor, size: int, most: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``most`` pixels and flip half of them; borders are mirrored.

    Returns:
        (B, C, T, T) of the dtype of ``images``, cut around the centre of the stored image.
    """
    count, side = len(images), images.shape[-1]
    centre = (side - size) // 2
    offset = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows, columns = (torch.arange(size) + centre + offset).unbind(0)
    if flip:
        flipped = torch.rand((count, 1), generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = (_mirrored(index, side).to(images.device) for index in (rows, columns))
    batch = torch.arange(count, device=images.device)[:, None, None]
    # Indices on both sides of the slice put the channels last, which is the order that convolutions are fastest in.
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(index: Tensor, side: int) -> Tensor:
    folded = index.abs()
    return torch.where(folded >= side, 2 * (side - 1) - folded, folded).clamp(0, side - 1)


def resized_crop(images: Tensor, size: int, min_scale: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop a random part (area at least ``min_scale``, aspect ratio 3/4 to 4/3) of each image and resize it.

    The sizes follow "Going deeper with convolutions" (Szegedy et al. 2015), as torchvision's RandomResizedCrop does.

    Returns:
        (B, C, T, T) float32, 0..255.
    """
    count = len(images)
    area = min_scale + (1.0 - min_scale) * torch.rand(count, generator=generator)
    ratio = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * torch.log(torch.tensor(4.0 / 3.0)))
    width, height = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
    x = (torch.rand(count, generator=generator) * 2 - 1) * (1 - width)
    y = (torch.rand(count, generator=generator) * 2 - 1) * (1 - height)
    sign = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float() if flip else torch.ones(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = width * sign, x, height, y
    grid = F.affine_grid(theta.to(images.device), [count, images.shape[1], size, size], align_corners=False)
    floats = images.float().contiguous(memory_format=torch.channels_last)
    return F.grid_sample(floats, grid, padding_mode="reflection", align_corners=False)


def jittered(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors within 1 +- ``strength``; pixels in 0..1."""
    factor = 1 + strength * (2 * torch.rand((3, len(pixels), 1, 1, 1), generator=generator) - 1)
    brightness, contrast, saturation = factor.to(pixels.device)
    pixels = pixels * brightness
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    return (middle + (pixels - middle) * contrast).clamp(0.0, 1.0)


def erased(pixels: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Set a random rectangle (2 to 33 % of the area) of some normalised images to 0, their mean colour.

    Random erasing: Zhong et al. 2020, arXiv 1708.04896.
    """
    count, side = len(pixels), pixels.shape[-1]
    area = 0.02 + 0.31 * torch.rand((count, 1), generator=generator)
    ratio = torch.exp((torch.rand((count, 1), generator=generator) * 2 - 1) * torch.log(torch.tensor(3.3)))
    height, width = (area * ratio).sqrt() * side, (area / ratio).sqrt() * side
    top = torch.rand((count, 1), generator=generator) * (side - height).clamp(min=0)
    left = torch.rand((count, 1), generator=generator) * (side - width).clamp(min=0)
    chosen = torch.rand((count, 1), generator=generator) < probability
    line = torch.arange(side)
    rows = (line >= top) & (line < top + height) & chosen
    columns = (line >= left) & (line < left + width)
    hole = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    return pixels.masked_fill(hole.to(pixels.device), 0.0)
