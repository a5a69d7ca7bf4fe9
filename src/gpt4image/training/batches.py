"""Which images make up a batch: a pure function of seed and step, so that a resumed run sees the same batches.

An epoch has as many steps as the whole train split has batches, labelled or not. Otherwise an arm with few labels
would also train less.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.parallel import processes
from gpt4image.training.augment import BatchRng

Indices = NDArray[np.int64]
Placing = Literal["among", "apart", "on-top"]
NO_TARGET = (
    "No training image has a label or a text label: label some (one folder per class), or let a describer name the "
    "classes: `gpt4image distill DATA --describer SPEC --classes LIST`."
)


@dataclass(kw_only=True)
class Stream:
    """An endless sequence of images: one shuffled pass after the other, in an order that ``seed`` and its number give.

    Each image comes ``repeats`` times in a row (repeated augmentation, Hoffer et al. 2020, arXiv 1901.09335).
    """

    images: Indices
    seed: tuple[int, ...]
    repeats: int = 1
    _pass: tuple[int, Indices] = field(default=(-1, np.empty(0, np.int64)), init=False)

    def take(self, start: int, count: int) -> Indices:
        """Return elements ``start`` to ``start + count`` of the sequence."""
        parts: list[Indices] = []
        while count > 0:
            number, offset = divmod(start, len(self.images) * self.repeats)
            part = self._order(number)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def _order(self, number: int) -> Indices:
        if self._pass[0] != number:
            order = np.random.default_rng((*self.seed, number)).permutation(self.images)
            self._pass = (number, np.repeat(order, self.repeats))
        return self._pass[1]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Batches of ``size`` images, drawn from those with a target and, where a loss uses them, ``others_per_batch``
    others.

    ``rows``, (B,), belong to this process; ``two_views``: all images are seen twice, and not only the others.
    """

    targeted: Stream
    others: Stream | None
    size: int
    others_per_batch: int
    rows: Indices
    two_views: bool = False

    def batch(self, number: int) -> Indices:
        """Return the images of batch ``number``, counted from 0, that belong to this process."""
        own = self.size - self.others_per_batch
        images = self.targeted.take(number * own, own)
        if self.others is None:
            return images[self.rows]
        others = self.others.take(number * self.others_per_batch, self.others_per_batch)
        return np.concatenate([images, others])[self.rows]

    def rng(self, generator: torch.Generator) -> BatchRng:
        """Return random numbers for the images of a batch that belong to this process."""
        return BatchRng(generator=generator, total=self.size, rows=torch.from_numpy(self.rows))

    def seen(self, *, second: bool) -> tuple[int, Indices]:
        """Return how many views all processes see, with ``second`` ones of the others or of all, and the rows here."""
        more = 0 if not second else self.size if self.two_views else self.others_per_batch
        return self.size + more, np.concatenate([self.rows, self.rows[self.rows >= self.size - more] + more])


def make_batches(
    targeted: Indices,
    others: Indices,
    *,
    size: int,
    labelled_share: float,
    seed: int,
    repeats: int = 1,
    mixing: bool = False,
    placing: Placing = "among",
) -> Batches:
    """Return the batches of a run, ``labelled_share`` of each from ``targeted`` images, where there are others.

    ``others`` have no target, but alignment or consistency uses them. They are "among" the images with a target (few
    are drawn as often as these), "apart" from them, not mixed and seen twice, or "on-top" of ``size`` images with a
    target, in the same proportion. ``mixing``: images are mixed in pairs, from both ends.
    """
    if not len(targeted):
        raise DataError(NO_TARGET)
    if placing == "among" and len(others) <= (1 - labelled_share) * (len(targeted) + len(others)):
        targeted, others = np.union1d(targeted, others), others[:0]
    n_others = 0 if len(others) == 0 else max(size - round(size * labelled_share), 1)
    if placing == "on-top" and n_others:
        more = round(size * min(n_others / max(size - n_others, 1), len(others) / len(targeted)))
        n_others = -(-max(more, 1) // processes.count()) * processes.count()
        size += n_others
    n_others = min(n_others, size - 1)
    return Batches(
        targeted=Stream(images=targeted, seed=(seed, 0), repeats=repeats),
        others=Stream(images=others, seed=(seed, 1), repeats=repeats) if n_others else None,
        size=size,
        others_per_batch=n_others,
        rows=own_rows(size - n_others, n_others, mixing=mixing, apart=placing != "among"),
    )


def own_rows(own: int, others: int, *, mixing: bool, apart: bool) -> Indices:
    """Return which rows of a batch of ``own`` images with a target, then ``others``, belong to this process."""
    count, size = processes.count(), own + others
    unit = 2 * count if mixing else count
    if count == 1 and apart:  # of an odd number with a target, one is not mixed
        return np.arange(size)
    if own % unit or others % count if apart else size % unit:
        why = ["--mixup and --cutmix mix pairs"] * mixing + [f"{count} processes share each batch"] * (count > 1)
        need = f"--batch-size {size} must be a multiple of {unit}"
        if apart:
            need = f"of --batch-size {size}, {own} have a target, which must be a multiple of {unit}"
        raise ConfigError(f"{', and '.join(why)}: {need}.")
    if not apart:
        return processes.rows(size)
    return np.concatenate([processes.rows(own), own + processes.rows(others)])


def all_have_targets(option: str, count: int) -> str:
    """Return why an option that learns from images without a target is refused."""
    return f"{option} learns from images without a label or text label, and all {count:,} have one: leave it out."
