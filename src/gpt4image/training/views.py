"""What the CPU makes of the pixels of a batch before the device gets them: policies of timm, and second views.

Policies work image by image, so this is done where pixels are decoded: in worker processes, where there are some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.data.geometry import Geometry
from gpt4image.training.augment import Augmentation, drawn
from gpt4image.training.draws import Draws
from gpt4image.training.policies import Policy


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Makes the views of a batch; a function of the seed, the number of the batch and the place in it.

    Attributes:
        how: how images are cropped, shifted and flipped.
        policy: what else is done to the images that get no second view; None for nothing.
        strong: what else is done to second views; None where there are none.
        second: (N,) bool, which images of the set get a second view.
        seed: of the run.
        total: images of a batch over all processes that share it.
        rows: (B,) int64, which of them are here.
    """

    how: Augmentation
    policy: Policy | None
    strong: Policy | None
    second: NDArray[np.bool_]
    seed: int
    total: int
    rows: Tensor

    def __call__(self, pixels: Tensor, images: NDArray[np.int64], number: int) -> Tensor:
        """Return the views of batch ``number``.

        Args:
            pixels: (B, 3, S, S) uint8 on the CPU.
            images: (B,) their positions in the set.
            number: of the batch in the run.

        Returns:
            (B + U, 3, T, T) uint8: a view of each image, then the second views of the U images that get one.
        """
        one, two = self.split(images)
        draws = self._draws(number, 0)
        views = self._moved(pixels, draws)
        if self.policy is not None:
            views[one] = self.policy(views[one], draws.of(one).seeds())
        if self.strong is None:
            return views
        draws = self._draws(number, 1).of(two)
        return torch.cat([views, self.strong(self._moved(pixels[two], draws), draws.seeds())])

    def split(self, images: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the rows of a batch of images that get one view, and those that get a second one; int64."""
        two = torch.from_numpy(self.second[images])
        return (~two).nonzero().flatten(), two.nonzero().flatten()

    def geometry(self, side: int, number: int) -> Geometry:
        """Return where the first views of batch ``number`` are cut from stored images of ``side`` pixels."""
        return drawn(side, self.how, self._draws(number, 0))

    def _draws(self, number: int, view: int) -> Draws:
        state = int(np.random.SeedSequence((self.seed, number, view)).generate_state(1, np.uint64)[0])
        return Draws(generator=torch.Generator().manual_seed(state), total=self.total, rows=self.rows)

    def _moved(self, pixels: Tensor, draws: Draws) -> Tensor:
        views = drawn(pixels.shape[-1], self.how, draws).pixels(pixels)
        return views if views.dtype == torch.uint8 else views.round_().to(torch.uint8)
