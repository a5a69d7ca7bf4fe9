"""What a task is: how annotations become targets, how outputs are judged, and what a deployed model returns.

Training, evaluation, comparison, reports, export and prediction know tasks only through this interface. A new task is
one module beside this one and one line in ``tasks/registry.py``. What has a body here is right for one class per image.

Legend: N images of a set, B of a batch, K outputs of a model (one per class where there are classes), S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts.probabilities import Probabilities, take
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data.annotation import Labels, known
from gpt4image.data.dataset import Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.video import Frames
from gpt4image.tasks.decision import Decision

Target = Any
"""Targets of a batch: a tensor, or what has ``to`` as a tensor has."""
Floats = NDArray[np.float32]
Predictions = NDArray[Any]
"""(N, ...) what the tail of a task returns: (N, K) float32 probabilities, or rows of boxes, or masks."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that says how good predictions are: its key in records, and its words for people."""

    name: str
    title: str
    higher_is_better: bool = True

    def better(self, one: float, other: float) -> bool:
        """Return whether ``one`` is better than ``other``."""
        return one > other if self.higher_is_better else one < other


@dataclass(frozen=True)
class Task:
    """A task. Implementations derive from it; they are small objects without state, pickled to worker processes."""

    name: ClassVar[str]
    """As in ``--task`` and in records."""
    primary: ClassVar[Metric]
    """The metric that records, statistics and the choice of weights use."""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    """The other metrics of every run."""
    image_score: ClassVar[str]
    """What ``scores`` gives; its mean over images need not be the primary metric."""
    mixes: ClassVar[bool] = False
    """Whether targets may be averaged over images (mixup, CutMix)."""
    exclusive: ClassVar[bool] = False
    """Whether an image has one class, so that predictions are probabilities that sum to 1."""
    no_target: ClassVar[float] = 0.0
    """Probability of every class in the target of an image without one."""
    learns_targets: ClassVar[bool] = False
    """Whether targets can be predicted from descriptions (``label``)."""
    targets_from: ClassVar[tuple[str, ...]] = ()
    """Tasks whose text labels are targets for it; its own without one."""
    in_timm: ClassVar[bool] = True
    """Whether the model is one of timm, which loads it without more."""
    hub_task: ClassVar[str] = "image-classification"
    """Its name on the Hugging Face hub."""
    output: ClassVar[str] = "probabilities"
    """Name of the output of an exported model."""
    value: ClassVar[str] = "probability"
    """What ``rows`` gives of each class."""
    smooths: ClassVar[bool] = True
    """Whether its loss has labels that can be smoothed."""
    decision: Decision = field(default=Decision(), kw_only=True)
    """What the validation images of a run spoke for."""

    @property
    def boxes(self) -> bool:
        """Whether annotations and predictions are boxes of objects."""
        return self.output == "boxes"

    @property
    def squash(self) -> bool:
        """Whether pictures are stretched to the square, so that nothing at their borders is lost or cut off."""
        return self.output != "probabilities"

    @property
    def frames(self) -> Frames | None:
        """Which frames of a clip are read; None for a task on images."""
        return None

    def annotations(self, image_set: Dataset) -> Labels:
        """Return what the task learns of a set. Raises DataError: the set has no such annotations."""
        if image_set.clips and self.frames is None:
            raise DataError(f"{image_set.spec} holds clips, which --task {self.name} does not read: give --task video.")
        return image_set.labels

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        """Refuse annotations of another task, or that nothing can be learned from. Raises DataError."""

    def outputs(self, classes: Sequence[str]) -> int:
        """Return K, the outputs of the model."""
        return len(classes)

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        """Return the model of a backbone with K outputs for inputs of ``size`` pixels; most tasks use it as it is."""
        return backbone

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Target:
        """Return (B, ...) targets of annotations, or of ``soft`` (B, K) by a teacher, moved as ``geometry`` says."""
        raise NotImplementedError

    def has_target(self, labels: Labels, soft: Any) -> NDArray[np.bool_]:
        """Return (B,) which images have a target."""
        return known(labels)

    def weak(self, labels: Labels, soft: Any) -> NDArray[np.bool_]:
        """Return (B,) which of them have a target of a weaker kind; a batch has a share of its own for them."""
        return np.zeros(len(labels), np.bool_)

    def with_labels(self, soft: Any, labels: Labels, trust: float) -> Probabilities:
        """Return a teacher's targets (B, K) of which ``trust`` is the given label where there is one."""
        raise ConfigError(f"--targets: task {self.name} learns from no class probabilities; leave it out.")

    def without_target(self, targets: Target, images: Tensor) -> Target:
        """Return targets in which the images of a mask (B,) count for nothing."""
        return targets.masked_fill(images.view(-1, *[1] * (targets.ndim - 1)), 0.0)

    def loss(self, outputs: Tensor, targets: Target, smoothing: float) -> Tensor:
        """Return the loss of the batches of all processes, a scalar that is the same on each."""
        raise NotImplementedError

    def tail(self) -> nn.Module:
        """Return what turns outputs into predictions (softmax, sigmoid, ...); part of every exported model."""
        raise NotImplementedError

    def shape(self, classes: int, size: int) -> tuple[int, ...]:
        """Return the shape of the prediction of an image of ``size`` pixels."""
        return (classes,)

    def difference(self, ours: Predictions, theirs: Predictions) -> float:
        """Return the largest difference of two models' predictions (N, ...) for the same images; NaN if one has NaN."""
        return float(np.abs(ours - theirs).max())

    def agreement(self, ours: Predictions, theirs: Predictions) -> NDArray[np.float64]:
        """Return (N,) the part of each image on which two models agree: its class, each of several, pixels, boxes."""
        return (ours.argmax(axis=1) == theirs.argmax(axis=1)).astype(np.float64)

    def measure(self, predictions: Predictions, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return the record of the predictions of a split: counts, and ``measured`` if something is annotated."""
        there = known(labels)
        facts = {"images": len(labels), "labelled": int(there.sum()), "classes": list(classes)}
        return facts | (self.measured(take(predictions, there), labels[there], classes) if there.any() else {})

    def measured(self, predictions: Any, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return metrics, ``loss`` if there is one, and per class ``support`` and ``per_class`` (None: no image)."""
        raise NotImplementedError

    def scores(self, predictions: Predictions, labels: Labels) -> NDArray[np.float64]:
        """Return (n,) ``image_score`` of each image with an annotation, for statistics paired by image."""
        raise NotImplementedError

    def resampled(
        self, columns: Mapping[str, list[Any]], labels: Labels, classes: int, times: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return (R,) the primary metric of resamples ``times`` (R, n); only where it is no mean of ``scores``."""
        raise NotImplementedError

    def columns(self, predictions: Predictions, labels: Labels | None) -> Mapping[str, Any]:
        """Return the columns (N rows) of the predictions of a split on disk, apart from keys and digests."""
        return {self.output: list(predictions)}

    def rows(self, predictions: Predictions, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        """Yield what ``predict`` writes for each image: JSON-serialisable, the ``top`` most probable classes."""
        yield from ({self.output: prediction} for prediction in predictions.tolist())

    def temperature(self, predictions: Predictions, labels: Labels, soft: Any) -> tuple[float, ...]:
        """Return by what to divide the logits behind predictions (N, ...): one number, or one per class. The labels of
        their images say so, or a teacher's targets (N, K) where there is no label."""
        return (1.0,)

    def calibrated(self, predictions: Predictions, temperature: tuple[float, ...]) -> Predictions:
        """Return predictions (N, ...) with their logits divided by a temperature."""
        return predictions

    def decide(self, predictions: Predictions, labels: Labels) -> Decision:
        """Return what calibrated predictions (N, ...) and labels speak for beside the temperature."""
        return Decision()

    def with_decision(self, decision: Decision) -> Task:
        """Return the task with what was decided for a run or an exported model."""
        return replace(self, decision=decision)
