"""How well a model knows an image: by the training images that are nearest to it among the model's own features.

Nearest neighbours see what is far from all classes where probabilities do not (Sun et al. 2022, arXiv 2204.06507). What
is near a class and none of it they do not see, except where pictures of such things are there: then it also counts
whether an image is nearer to those (``strangers``). ``known`` is a share of the good training images, each of which was
left out when its own neighbours were looked for; so a border at 2 % refuses about 2 % of good images. A body that has
learned from these very images knows them better than any others, so images that no step learned from correct it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gpt4image.base.errors import ModelError
from gpt4image.models.weights import load_tensors, save_tensors

NEAREST = 10
"""Neighbours whose mean similarity counts."""
AS_LEARNED = 50
"""Images that would speak for no correction, beside those that no step learned from."""


class Neighbours(nn.Module):
    """From pooled features (N, C) to ``known`` (N,) float32 in 0..1: the share of good training images that are at
    least as strange as an image.

    Buffers: ``kept`` (M, C) and ``strangers`` (S, C), features of unit length of good images and of images of none of
    the classes; ``ladders`` (1 or 2, Q), how strange good images are by each sign, in order; ``lowest`` (Q,), the least
    of their shares by all signs; ``power`` (1,), to which ``known`` is raised.
    """

    kept: Tensor
    strangers: Tensor
    ladders: Tensor
    lowest: Tensor
    power: Tensor
    parts = ("kept", "strangers", "ladders", "lowest", "power")

    def __init__(self, kept: Tensor, strangers: Tensor, ladders: Tensor, lowest: Tensor, power: Tensor) -> None:
        super().__init__()
        for name, tensor in zip(self.parts, (kept, strangers, ladders, lowest, power), strict=True):
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, good: Tensor, strangers: Tensor, count: int, unseen: Tensor | None = None) -> Neighbours:
        """Return what the features of good images (N, C) and of strangers (S, C) say; the first ``count`` are kept.

        ``unseen`` (U, C) are good images that no step learned from. If their shares are u ** (1 / power) of uniform
        ones, this is the most likely power.
        """
        good, strangers = normalize(good.float(), dim=1), normalize(strangers.float(), dim=1)[:count].half()
        kept = good[:count].half()
        similar = good @ kept.float().T
        similar.fill_diagonal_(-1.0)  # of a kept one to itself
        found = signs(similar, good @ strangers.float().T)
        ladders = found.sort(dim=1).values
        made = cls(kept, strangers, ladders, _lowest(found, ladders).sort().values, torch.ones(1))
        if unseen is not None and len(unseen):
            surprise = -made(unseen).clamp(min=0.5 / len(good)).log().sum()
            made.power = ((AS_LEARNED + len(unseen)) / (AS_LEARNED + surprise)).reshape(1)
        return made

    def forward(self, features: Tensor) -> Tensor:
        """Return ``known``."""
        own = normalize(features.float(), dim=1)
        found = signs(own @ self.kept.float().T, own @ self.strangers.float().T)
        return (self.lowest <= _lowest(found, self.ladders)[:, None]).float().mean(dim=1) ** self.power

    def save(self, path: Path) -> None:
        """Write the buffers to a safetensors file."""
        save_tensors(path, {name: getattr(self, name) for name in self.parts})

    @classmethod
    def load(cls, path: Path) -> Neighbours:
        """Read what ``save`` wrote. Raises ModelError: it is missing, damaged or another file."""
        tensors, _ = load_tensors(path)
        if tensors.keys() != set(cls.parts):
            raise ModelError(f"{path} does not hold what tells strangers; bring back the file that `train` wrote.")
        return cls(**tensors)


def signs(similar: Tensor, to_strangers: Tensor) -> Tensor:
    """Return how strange N images are, (1, N), by their similarities (N, M) to good images; where there are strangers,
    (N, S), in a second row by how much nearer they are to these."""
    near = _nearest(similar)
    return torch.stack([-near, _nearest(to_strangers) - near] if to_strangers.shape[1] else [-near])


def _nearest(similar: Tensor) -> Tensor:
    return similar.topk(min(NEAREST, similar.shape[1]), dim=1).values.mean(dim=1)


def _lowest(found: Tensor, ladders: Tensor) -> Tensor:
    """Return the least share of good images that are at least as strange, (N,), over all signs (1 or 2, N)."""
    shares = [(ladder >= row[:, None]).float().mean(dim=1) for row, ladder in zip(found, ladders, strict=True)]
    return torch.stack(shares).amin(dim=0)
