"""Augmentation policies of timm (RandAugment, AutoAugment, ...) on batches, each image by a seed of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpt4image.base.errors import ConfigError

# FixMatch (arXiv 2001.07685, section 2.3) draws two operations, each with a magnitude out of the whole range.
STRONG = "rand-m10-n2-p1-mstd101-inc1"
# At magnitude 10 Posterize keeps no bit, which Pillow refuses.
LARGEST_MAGNITUDE = 9.99


class Policy:
    """A policy of timm by its name.

    timm draws from the global random states of Python and numpy. Both are set for each image and put back at the end,
    so that an image of a batch is changed as its own seed says, whatever else is drawn and wherever it is done.

    Args:
        name: as timm spells it, e.g. ``rand-m9-mstd0.5-inc1``; see timm.data.auto_augment.
        mean: mean colour in 0..1, with which what comes from outside the image is filled.

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
        """Return the changed images.

        Args:
            images: (B, 3, S, S) uint8 on the CPU.
            seeds: (B,) int64 >= 0, the seed of each image.

        Returns:
            (B, 3, S, S) uint8, in channels_last order.
        """
        before = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        after = np.empty_like(before)
        with _random_states_kept():
            for row, seed in enumerate(seeds.tolist()):
                random.seed(seed)
                np.random.seed(seed % 2**32)
                after[row] = np.asarray(self._transform(Image.fromarray(before[row])))
        return torch.from_numpy(after).permute(0, 3, 1, 2)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
