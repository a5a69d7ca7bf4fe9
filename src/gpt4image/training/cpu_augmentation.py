"""What the CPU makes of the pixels of a batch before the device gets them: policies of timm, and second views.

Policies (RandAugment, AutoAugment, ...) work image by image, so this is done where pixels are decoded: in worker
processes, where there are some.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.data.geometry import Geometry
from gpt4image.training.augment import Augmentation, BatchRng, random_geometry

# FixMatch (arXiv 2001.07685, section 2.3) draws two operations, each with a magnitude out of the whole range.
STRONG = "rand-m10-n2-p1-mstd101-inc1"
# At magnitude 10 Posterize keeps no bit, which Pillow refuses.
LARGEST_MAGNITUDE = 9.99


class Policy:
    """A policy of timm by its name, such as ``rand-m9-mstd0.5-inc1``; see timm.data.auto_augment.

    timm draws from the global random states of Python and numpy. Both are set for each image and put back at the end,
    so that an image is changed as its own seed says. What comes from outside an image gets the ``mean`` colour (0..1).

    Raises:
        ConfigError: timm knows no such policy, or it sets the largest magnitude (mmax).
    """

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
                f"--auto-augment {name}: timm knows no such policy ({error}). Names look like rand-m9-mstd0.5-inc1, "
                "augmix-m3-w3, original, v0 or 3a; see timm.data.auto_augment."
            ) from None

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return changed images (B, C, S, S) uint8 on the CPU, in channels_last order; ``seeds`` is (B,) int64 >= 0."""
        if (frames := images.shape[1] // 3) > 1:
            apart = images.reshape(-1, 3, *images.shape[2:])
            return self(apart, seeds.repeat_interleave(frames)).reshape(images.shape)
        before = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        after = np.empty_like(before)
        with _random_states_kept():
            for row, seed in enumerate(seeds.tolist()):
                random.seed(seed)
                np.random.seed(seed % 2**32)
                after[row] = np.asarray(self._transform(Image.fromarray(before[row])))
        return torch.from_numpy(after).permute(0, 3, 1, 2)


@contextmanager
def _random_states_kept() -> Generator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@dataclass(frozen=True, kw_only=True, eq=False)
class CpuAugmentation:
    """Makes the views of a batch; a function of the seed, the number of the batch and the place in it.

    Attributes:
        how: how images are cropped, shifted and flipped.
        policy: what else is done to the images that get no second view, and where ``alike`` to all; None for nothing.
        strong: what else is done to second views; None for nothing.
        second: (N,) bool, which images of the set get a second view.
        seed: of the run.
        total: images of a batch over all processes that share it.
        rows: (B,) int64, which of them are here.
        alike: whether both views of an image are made in the same way.
    """

    how: Augmentation
    policy: Policy | None
    strong: Policy | None
    second: NDArray[np.bool_]
    seed: int
    total: int
    rows: Tensor
    alike: bool = False

    def __call__(self, pixels: Tensor, images: NDArray[np.int64], number: int) -> Tensor:
        """Return the views of batch ``number``."""
        one, two = self.split(images)
        rng = self._rng(number, 0)
        views = self._moved(pixels, rng)
        if self.policy is not None:
            changed = torch.cat([one, two]).sort().values if self.alike else one
            views[changed] = self.policy(views[changed], rng.of(changed).seeds())
        if not len(two):
            return views
        rng = self._rng(number, 1).of(two)
        second, policy = self._moved(pixels[two], rng), self.policy if self.alike else self.strong
        return torch.cat([views, second if policy is None else policy(second, rng.seeds())])

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
