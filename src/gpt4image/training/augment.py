"""Augmentation of whole batches on the device: every image of a batch gets its own random shift, crop and colours.

One gather moves and flips a batch of uint8 images at once, which is many times faster than one image at a time in
worker processes; the same functions serve sets in memory and sets decoded by workers.
Legend: B images or clips, C channels, S stored side, T target side. The channels of a clip are those of its frames, one
after the other (C = 3 per frame): a clip is moved, flipped, erased and mixed as one, and coloured frame by frame alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from timm.data.mixup import Mixup
from torch import Tensor

from gpt4image.data.decode import centre_start
from gpt4image.data.geometry import Geometry


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRng:
    """Random numbers of some rows of a batch: those of all rows are drawn, and those of the rows here are kept.

    Attributes:
        generator: CPU generator, in the same state on every process.
        total: number of rows of the batch over all processes.
        rows: (n,) int64, which of them are here.
    """

    generator: torch.Generator
    total: int
    rows: Tensor

    @classmethod
    def whole(cls, count: int, generator: torch.Generator) -> BatchRng:
        """Return the random numbers of a batch of ``count`` rows that are all here."""
        return cls(generator=generator, total=count, rows=torch.arange(count))

    def of(self, chosen: Tensor) -> BatchRng:
        """Return those of some of the rows that are here; ``chosen`` is a mask or positions among them."""
        return replace(self, rows=self.rows[chosen])

    def uniform(self, *shape: int) -> Tensor:
        """Return (n, *shape) float32 numbers in [0, 1)."""
        return torch.rand((self.total, *shape), generator=self.generator)[self.rows]

    def seeds(self) -> Tensor:
        """Return (n,) int64 numbers in [0, 2^62)."""
        return self.integers(0, 2**62)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return (n, *shape) int64 numbers in [low, high)."""
        return torch.randint(low, high, (self.total, *shape), generator=self.generator)[self.rows]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to a batch; the fields are the options of the same names in TrainOptions.

    Attributes:
        grey: share of the images that lose their colours.
    """

    size: int
    flip: bool
    shift: float
    min_scale: float
    colour: float
    erase: float
    erase_with: str = "mean"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey: float = 0.0


def train_batch(images: Tensor, how: Augmentation, rng: BatchRng) -> Tensor:
    """Augment and normalise images (B, C, S, S) uint8: (B, C, T, T) float32, in channels_last order."""
    pixels = recoloured(random_geometry(images.shape[-1], how, rng).pixels(images), how, rng)
    return pixels.contiguous(memory_format=torch.channels_last)


def eval_batch(images: Tensor, how: Augmentation) -> Tensor:
    """Cut the centre and normalise: (B, C, S, S) uint8 to (B, C, T, T) float32."""
    start = centre_start(images.shape[-1], how.size)
    centre = images[:, :, start : start + how.size, start : start + how.size]
    return normalised(centre.float() / 255.0, how)


def random_geometry(side: int, how: Augmentation, rng: BatchRng, uncut: Tensor | None = None) -> Geometry:
    """Return a random crop or shift, and a random flip, of each image; ``side`` is S."""
    if how.min_scale < 1.0:
        return _random_crop(how, rng, uncut)
    most = round(how.shift * how.size)
    offsets = rng.integers(-most, most + 1, 2, 1)
    return Geometry.shift(offsets, _random_flips(how, rng), side, how.size)


def recoloured(images: Tensor, how: Augmentation, rng: BatchRng) -> Tensor:
    """Change colours, normalise and erase: (B, C, T, T), 0..255, to (B, C, T, T) float32."""
    pixels = images / 255.0
    if how.colour > 0.0:
        pixels = jittered(pixels, how.colour, rng)
    if how.grey > 0.0:
        chosen = (rng.uniform(1, 1, 1) < how.grey).to(pixels.device)
        pixels = torch.where(chosen, pixels.mean(dim=1, keepdim=True), pixels)
    pixels = normalised(pixels, how)
    return erased(pixels, how.erase, rng, with_noise=how.erase_with == "noise") if how.erase > 0.0 else pixels


def normalised(pixels: Tensor, how: Augmentation) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel; pixels in 0..1."""
    frames = pixels.shape[1] // len(how.mean)
    mean = torch.tensor(how.mean * frames, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(how.std * frames, device=pixels.device).view(1, -1, 1, 1)
    return (pixels - mean).div_(std)


def _random_crop(how: Augmentation, rng: BatchRng, uncut: Tensor | None) -> Geometry:
    """Draw a part of each image (area at least ``min_scale``, aspect ratio 3/4 to 4/3)."""
    area = how.min_scale + (1.0 - how.min_scale) * rng.uniform()
    ratio = torch.exp((rng.uniform() * 2 - 1) * torch.log(torch.tensor(4.0 / 3.0)))
    extent = torch.stack([area * ratio, area / ratio], dim=1).sqrt().clamp(max=1.0)
    if uncut is not None:
        extent[uncut] = 1.0
    x, y = ((rng.uniform() * 2 - 1) * (1 - extent[:, axis]) for axis in (0, 1))
    return Geometry.crop(torch.stack([x, y], dim=1), extent, _random_flips(how, rng), how.size)


def _random_flips(how: Augmentation, rng: BatchRng) -> Tensor:
    return rng.uniform() < 0.5 if how.flip else torch.zeros(len(rng.rows), dtype=torch.bool)


def jittered(pixels: Tensor, strength: float, rng: BatchRng) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors within 1 +- ``strength``; pixels in 0..1."""
    factor = (1 + strength * (2 * rng.uniform(3, 1, 1, 1) - 1)).to(pixels.device)
    frames = pixels.split(3, dim=1)
    return _jittered(pixels, factor) if len(frames) == 1 else torch.cat([_jittered(one, factor) for one in frames], 1)


def _jittered(pixels: Tensor, factor: Tensor) -> Tensor:
    brightness, contrast, saturation = factor.unbind(1)
    pixels = pixels * brightness
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    return (middle + (pixels - middle) * contrast).clamp(0.0, 1.0)


def erased(pixels: Tensor, probability: float, rng: BatchRng, *, with_noise: bool = False) -> Tensor:
    """Fill a random rectangle (2 to 33 % of the area) of some normalised images with 0, their mean colour, or noise.

    Random erasing: Zhong et al. 2020, arXiv 1708.04896.
    """
    side = pixels.shape[-1]
    area = 0.02 + 0.31 * rng.uniform(1)
    ratio = torch.exp((rng.uniform(1) * 2 - 1) * torch.log(torch.tensor(3.3)))
    height, width = (area * ratio).sqrt() * side, (area / ratio).sqrt() * side
    top = rng.uniform(1) * (side - height).clamp(min=0)
    left = rng.uniform(1) * (side - width).clamp(min=0)
    chosen = rng.uniform(1) < probability
    line = torch.arange(side)
    rows = (line >= top) & (line < top + height) & chosen
    columns = (line >= left) & (line < left + width)
    hole = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(pixels.device)
    return torch.where(hole, _noise(pixels, rng), pixels) if with_noise else pixels.masked_fill(hole, 0.0)


def _noise(pixels: Tensor, rng: BatchRng) -> Tensor:
    """Return normal noise of the shape of ``pixels``: one strip is drawn, and each image starts somewhere in it."""
    length = pixels[0].numel()
    strip = torch.randn(2 * length, generator=rng.generator).to(pixels.device)
    starts = rng.integers(0, length).to(pixels.device)
    return strip.unfold(0, length, 1)[starts].view(pixels.shape)


def mix(images: Tensor, rows: Tensor, mixup_alpha: float, cutmix_alpha: float) -> Tensor:
    """Mix some images of a batch with each other, by mixup, CutMix or one of both (timm).

    Images pass for their own classes (image i has class i), so that timm's soft targets are the mixing matrix.

    Args:
        images: (B, C, H, W) float; mixed in place.
        rows: (M,) int64 which of them; of an odd number the last stays as it is.
        mixup_alpha, cutmix_alpha: 0 for none.

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
