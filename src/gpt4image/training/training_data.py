"""What a training run reads: pixels, the labels it may see, targets of a teacher and texts, joined by content."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import Probabilities, chosen
from gpt4image.base.outcome import Skipped
from gpt4image.data.geometry import Geometry
from gpt4image.data.image_set import ImageSet
from gpt4image.data.pixels import Pixels
from gpt4image.parallel import processes
from gpt4image.tasks.base import Labels, Targets, Task
from gpt4image.training.text_targets import TextTargets


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Everything a run reads; arms of a comparison differ in ``labels``, ``soft`` and ``text`` alone.

    Attributes:
        image_set: N images with their splits and true annotations; see ``all_labels``.
        pixels: their decoded pixels.
        usable: (N,) bool, which images can be decoded; the others belong to no split.
        task: what is learned; it says what labels and targets mean.
        labels: (N, ...) the labels that training may see.
        soft: (N, K) targets by a teacher, used instead of ``labels``; None without.
        text: text targets of the alignment; None without.
        from_text: (N,) bool, which images have a text label in ``soft``; None without.
        from_run: (N,) bool, which images have an annotation that another run predicted; None without.
        skipped: images known to be unusable before training.
    """

    image_set: ImageSet
    pixels: Pixels
    usable: NDArray[np.bool_]
    task: Task
    labels: Labels
    soft: Probabilities | None = None
    text: TextTargets | None = None
    from_text: NDArray[np.bool_] | None = None
    from_run: NDArray[np.bool_] | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names."""
        return self.image_set.classes

    @property
    def all_labels(self) -> Labels:
        """(N, ...) true annotations, of which training may see ``labels``."""
        return self.task.annotations(self.image_set)

    @property
    def unusable(self) -> tuple[Skipped, ...]:
        """Images that cannot be used, with those that worker processes have met since."""
        return tuple(dict.fromkeys((*self.skipped, *self.pixels.skipped)))

    @property
    def described(self) -> NDArray[np.bool_]:
        """(N,) bool, the images that learn from a description, by its embedding or by a text label."""
        found = np.zeros(len(self.usable), np.bool_)
        if self.text is not None:
            found |= np.asarray(self.text.described, np.bool_)
        return found if self.from_text is None else found | self.from_text

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) bool, the images that people labelled; boxes of a teacher stand where there are no human ones."""
        known = self.task.known(self.labels)
        return known & ~self.from_text if self.task.boxes and self.from_text is not None else known

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the usable images of one split, in order."""
        return np.flatnonzero((self.image_set.splits == split) & self.usable)

    def without_met(self) -> TrainingData:
        """Return the data without images that decoding has found to be broken since, in any process."""
        every = np.arange(len(self.usable))
        met = processes.united(every[self.pixels.broken(every)].tolist())
        return replace(self, usable=self.usable & ~np.isin(every, met)) if met else self

    def targets(self, indices: NDArray[np.int64], geometry: Geometry | None = None) -> Targets:
        """Return the targets (B, ...) of images, cut as ``geometry`` says; see ``Task.targets``."""
        soft = None if self.soft is None else self.soft[indices]
        return self.task.targets(self.labels[indices], soft, self.task.outputs(self.classes), geometry)

    def pools(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the training images with a target, and those without one, or with a weaker one where some are not."""
        train = self.indices("train")
        learned = self._learned(train)
        has_target = self.task.has_target(*learned)
        strong = has_target & ~self.task.weak(*learned)
        has_target = strong if strong.any() else has_target
        return train[has_target], train[~has_target]

    def has_target(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) which images have a target; see ``Task.has_target``."""
        return self.task.has_target(*self._learned(indices))

    def weak(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) which images have a weaker target; see ``Task.weak``."""
        return self.task.weak(*self._learned(indices))

    def _learned(self, indices: NDArray[np.int64]) -> tuple[Labels, Probabilities | None]:
        return self.labels[indices], None if self.soft is None else chosen(self.soft, indices)
