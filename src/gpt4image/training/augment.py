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

from gpt4image.data.decode import centre_start
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
    return finished(moved(images, how, draws), how, draws)


def eval_batch(images: Tensor, how: Augmentation) -> Tensor:
    """Cut the centre and normalise: (B, C, S, S) uint8 to (B, C, T, T) float32."""
    start = centre_start(images.shape[-1], how.size)
    centre = images[:, :, start : start + how.size, start : start + how.size]
    return normalised(centre.float() / 255.0, how)


def moved(images: Tensor, how: Augmentation, draws: Draws) -> Tensor:
    """Crop or shift each image, and flip it: (B, C, S, S) uint8 to (B, C, T, T), 0..255, uint8 or float32."""
    if how.min_scale < 1.0:
        return resized_crop(images, how.size, how.min_scale, how.flip, draws)
    return shifted(images, how.size, round(how.shift * how.size), how.flip, draws)


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


def shifted(images: Tensor, size: int, most: int, flip: bool, draws: Draws) -> Tensor:
    """Shift each image by up to ``most`` pixels and flip half of them; borders are mirrored.

    Returns:
        (B, C, T, T) of the dtype of ``images``, cut around the centre of the stored image.
    """
    side = images.shape[-1]
    centre = (side - size) // 2
    offset = draws.integers(-most, most + 1, 2, 1)
    rows, columns = (torch.arange(size) + centre + offset).unbind(1)
    if flip:
        columns = torch.where(draws.uniform(1) < 0.5, columns.flip(1), columns)
    rows, columns = (_mirrored(index, side).to(images.device) for index in (rows, columns))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices on both sides of the slice put the channels last, which is the order that convolutions are fastest in.
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(index: Tensor, side: int) -> Tensor:
    folded = index.abs()
    return torch.where(folded >= side, 2 * (side - 1) - folded, folded).clamp(0, side - 1)


def resized_crop(images: Tensor, size: int, min_scale: float, flip: bool, draws: Draws) -> Tensor:
    """Crop a random part (area at least ``min_scale``, aspect ratio 3/4 to 4/3) of each image and resize it.

    The sizes follow "Going deeper with convolutions" (Szegedy et al. 2015), as torchvision's RandomResizedCrop does.

    Returns:
        (B, C, T, T) float32, 0..255.
    """
    count = len(images)
    area = min_scale + (1.0 - min_scale) * draws.uniform()
    ratio = torch.exp((draws.uniform() * 2 - 1) * torch.log(torch.tensor(4.0 / 3.0)))
    width, height = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
    x = (draws.uniform() * 2 - 1) * (1 - width)
    y = (draws.uniform() * 2 - 1) * (1 - height)
    sign = 1 - 2 * (draws.uniform() < 0.5).float() if flip else torch.ones(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = width * sign, x, height, y
    grid = F.affine_grid(theta.to(images.device), [count, images.shape[1], size, size], align_corners=False)
    floats = images.float().contiguous(memory_format=torch.channels_last)
    return F.grid_sample(floats, grid, padding_mode="reflection", align_corners=False)


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
