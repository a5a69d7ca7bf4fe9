"""Augmentation of whole batches on the device, and policies of timm image by image where pixels are decoded.

One gather moves and flips a batch of uint8 images at once, which is many times faster than one image at a time in
worker processes; the same functions serve sets in memory and sets decoded by workers.
Legend: B images or clips, C channels, S stored side, T target side. The channels of a clip are those of its frames, one
after the other (C = 3 per frame): a clip is moved, flipped, erased and mixed as one, and coloured frame by frame alike.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.mixup import Mixup
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.data.decode import centre_start
from gpt4image.data.geometry import Geometry

# FixMatch (arXiv 2001.07685, section 2.3) draws two operations, each with a magnitude out of the whole range.
STRONG = "rand-m10-n2-p1-mstd101-inc1"
# At magnitude 10 Posterize keeps no bit, which Pillow refuses.
LARGEST_MAGNITUDE = 9.99
SEEDS = 2**62


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRng:
    """Random numbers of the (n,) ``rows`` here of a batch of ``total``; ``generator`` has the same state everywhere."""

    generator: torch.Generator
    total: int
    rows: Tensor

    def of(self, chosen: Tensor) -> BatchRng:
        """Return those of some of the rows that are here; ``chosen`` is a mask or positions among them."""
        return replace(self, rows=self.rows[chosen])

    def uniform(self, *shape: int) -> Tensor:
        """Return (n, *shape) float32 numbers in [0, 1)."""
        return torch.rand((self.total, *shape), generator=self.generator)[self.rows]

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return (n, *shape) int64 numbers in [low, high)."""
        return torch.randint(low, high, (self.total, *shape), generator=self.generator)[self.rows]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to a batch, by the options of the same names; ``grey`` is a share of images."""

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
    """Mix the images ``rows`` of (B, C, H, W) in place (timm); return (B, B), the weights of the images in each."""
    rows = rows[: len(rows) // 2 * 2].to(images.device)
    matrix = torch.eye(len(images), device=images.device)
    if len(rows):
        mixup = Mixup(mixup_alpha, cutmix_alpha, label_smoothing=0.0, num_classes=len(rows))
        images[rows], weights = mixup(images[rows], torch.arange(len(rows), device=images.device))
        matrix[rows[:, None], rows] = weights.float()
    return matrix


class Policy:
    """A policy of timm, such as ``rand-m9-mstd0.5-inc1``; what comes from outside an image has the ``mean`` colour."""

    def __init__(self, name: str, mean: tuple[float, ...]) -> None:
        from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

        makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
        make = makers.get(name.split("-", maxsplit=1)[0], auto_augment_transform)
        fill = tuple(min(255, round(255 * value)) for value in mean)
        if "-mmax" in name:
            raise ConfigError(f"--auto-augment {name}: magnitudes end at 10 here; leave mmax out.")
        try:
            self._transform = make(name, {"img_mean": fill, "magnitude_max": LARGEST_MAGNITUDE})
        except (AssertionError, ValueError) as error:
            raise ConfigError(
                f"--auto-augment {name}: timm knows no such policy ({error}); see timm.data.auto_augment."
            ) from None

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return changed images (B, C, S, S) uint8 on the CPU, in channels_last order; ``seeds`` is (B,) int64 >= 0."""
        if (frames := images.shape[1] // 3) > 1:
            apart = images.reshape(-1, 3, *images.shape[2:])
            return self(apart, seeds.repeat_interleave(frames)).reshape(images.shape)
        before = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        after = np.empty_like(before)
        states = random.getstate(), np.random.get_state()  # timm draws from both; each image has its own seed
        for row, seed in enumerate(seeds.tolist()):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            after[row] = np.asarray(self._transform(Image.fromarray(before[row])))
        random.setstate(states[0])
        np.random.set_state(states[1])
        return torch.from_numpy(after).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class CpuAugmentation:
    """Makes the views of a batch; a function of the seed, the number of the batch and the place in it.

    ``second``, (N,), says which images get a second view, which ``strong`` changes; ``policy`` changes the others, or,
    where both are ``two_views`` of one kind, all. ``total`` images are a batch over all processes; ``rows`` are here.
    """

    how: Augmentation
    policy: Policy | None
    strong: Policy | None
    second: NDArray[np.bool_]
    seed: int
    total: int
    rows: Tensor
    two_views: bool = False

    def __call__(self, pixels: Tensor, images: NDArray[np.int64], number: int) -> Tensor:
        """Return the views of batch ``number``."""
        one, two = self.split(images)
        rng = self._rng(number, 0)
        views = self._moved(pixels, rng)
        if self.policy is not None:
            changed = torch.cat([one, two]).sort().values if self.two_views else one
            views[changed] = self.policy(views[changed], rng.of(changed).integers(0, SEEDS))
        if not len(two):
            return views
        rng = self._rng(number, 1).of(two)
        second, policy = self._moved(pixels[two], rng), self.policy if self.two_views else self.strong
        return torch.cat([views, second if policy is None else policy(second, rng.integers(0, SEEDS))])

    def split(self, images: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the rows of a batch of images that get one view, and those that get a second one; int64."""
        two = torch.from_numpy(self.second[images])
        return (~two).nonzero().flatten(), two.nonzero().flatten()

    def geometry(self, side: int, number: int) -> Geometry:
        """Return where the first views of batch ``number`` are cut from stored images of ``side`` pixels."""
        return random_geometry(side, self.how, self._rng(number, 0))

    def _rng(self, number: int, view: int) -> BatchRng:
        state = int(np.random.SeedSequence((self.seed, number, view)).generate_state(1, np.uint64)[0])
        return BatchRng(generator=torch.Generator().manual_seed(state), total=self.total, rows=self.rows)

    def _moved(self, pixels: Tensor, rng: BatchRng) -> Tensor:
        views = random_geometry(pixels.shape[-1], self.how, rng).pixels(pixels)
        return views if views.dtype == torch.uint8 else views.round_().to(torch.uint8)
