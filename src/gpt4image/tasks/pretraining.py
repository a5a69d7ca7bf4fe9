"""Pretraining: a backbone learns from images alone, or with their descriptions, and no label is read.

What is learned are the objectives of ``--pretrain``; the task itself has no loss. The one output of its model means
nothing and is left out where the weights are fine-tuned (``--init``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.config.pretraining import PRETRAIN
from gpt4image.data.geometry import Geometry
from gpt4image.data.image_set import NO_LABEL, ImageSet
from gpt4image.tasks.base import Floats, Labels, Metric, Predictions, Task


@dataclass(frozen=True)
class Pretraining(Task):
    """No label, no prediction; see ``tasks.base.Task``."""

    name: ClassVar[str] = PRETRAIN
    primary: ClassVar[Metric] = Metric(name="pretraining_loss", title="loss", higher_is_better=False)
    image_score: ClassVar[str] = "nothing"
    smooths: ClassVar[bool] = False

    def annotations(self, image_set: ImageSet) -> Labels:
        """Return (N,) no class for any image."""
        return np.full(len(image_set), NO_LABEL)

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        """Take any labels, and none."""

    def outputs(self, classes: Sequence[str]) -> int:
        """Return 1, the least that a classifier can have."""
        return 1

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        """Return (B, 1) zeros."""
        return torch.zeros(len(labels), outputs)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        """Return (B,) True: all images take part."""
        return np.ones(len(labels), np.bool_)

    def without_target(self, targets: Tensor, images: Tensor) -> Tensor:
        """Return the targets as they are."""
        return targets

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Return 0, by which each parameter of the classifier has a gradient, as processes that share a run need."""
        return 0.0 * outputs.sum()

    def tail(self) -> nn.Module:
        """Return what leaves outputs as they are."""
        return nn.Identity()

    def measure(self, predictions: Predictions, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return the number of images: there is nothing to measure predictions by."""
        return {"images": len(labels), "labelled": 0, "classes": list(classes)}

    def scores(self, predictions: Predictions, labels: Labels) -> NDArray[np.float64]:
        """Return the score of no image."""
        return np.zeros(0)

    def columns(self, predictions: Predictions, labels: Labels | None) -> Mapping[str, Any]:
        """Return no column."""
        return {}

    def rows(self, predictions: Predictions, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        """Yield an empty row for each image."""
        yield from ({} for _ in predictions)
