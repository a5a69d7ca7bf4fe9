"""Classification: one class per image or clip; soft, mixed and missing labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from gpt4image.artifacts.probabilities import Probabilities, from_blocks, to_columns
from gpt4image.base.errors import DataError, first_few
from gpt4image.data.annotation import Labels
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.video import USUAL_FRAMES, FrameOrder, Frames
from gpt4image.models.hugging_face import OfTransformers
from gpt4image.parallel.processes import gather
from gpt4image.tasks.base import Floats, Metric, Task
from gpt4image.tasks.calibration import calibration_error
from gpt4image.tasks.decision import exclusive_temperature


def soft_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy against class probabilities, averaged over the images that have a target, on all processes.

    ``logits`` (B, K) are computed in float32 or better. A row of ``targets``, (B, K), sums to 1, to 0 for one without
    a target, or to something between for a mixed image of which only one part has one; it counts by that sum.
    ``label_smoothing`` spreads a share of each target over the classes (Szegedy et al. 2016). A scalar >= 0.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    targets = targets.to(logits.dtype)
    mass = targets.sum(dim=1, keepdim=True)
    smooth = (1 - label_smoothing) * targets + label_smoothing * mass / targets.shape[1]
    total = -(smooth * F.log_softmax(logits, dim=1)).sum()
    sums = torch.stack([total, mass.sum()])
    total, mass = gather(sums[None]).sum(dim=0)
    return total / mass.clamp(min=torch.finfo(logits.dtype).tiny)


def _share(right: NDArray[np.bool_]) -> float:
    """Return the share of those that are right, rounded as torchmetrics does."""
    return float(np.float32(right.sum()) / np.float32(len(right)))


@dataclass(frozen=True)
class Classification(Task):
    """One class out of K per image; labels (N,) int64, NO_LABEL where there is none. See ``tasks.base.Task``."""

    name: ClassVar[str] = "classification"
    primary: ClassVar[Metric] = Metric(name="top1", title="accuracy")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="top5", title="top-5 accuracy"),
        Metric(name="mean_class_accuracy", title="mean class accuracy"),
        Metric(name="ece", title="calibration error", higher_is_better=False),
    )
    image_score: ClassVar[str] = "whether the class is right"
    mixes: ClassVar[bool] = True
    exclusive: ClassVar[bool] = True
    learns_targets: ClassVar[bool] = True

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        if labels.ndim != 1:
            raise DataError(f"{spec} has several labels per image, which is --task multilabel, not classification.")
        if len(classes) == 1:
            raise DataError(f"{spec} has one class, {first_few(classes)}: there is nothing to tell apart.")

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        return torch.from_numpy(one_hot(labels, outputs) if soft is None else soft)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        return labels != NO_LABEL if soft is None else np.asarray(soft.any(axis=1))

    def with_labels(self, soft: Probabilities, labels: Labels, trust: float) -> Probabilities:
        share = np.where(labels != NO_LABEL, np.float32(trust), np.float32(0))[:, None]

        def mixed(rows: slice) -> Floats:
            return (1 - share[rows]) * soft[rows] + share[rows] * one_hot(labels[rows], soft.shape[1])

        return from_blocks(len(soft), soft.shape[1], mixed)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        return soft_cross_entropy(outputs, targets, smoothing)

    def tail(self) -> nn.Module:
        return nn.Softmax(dim=1)

    def measured(self, predictions: Probabilities, labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
        """Return accuracies, ``ece`` of bins with as many images each, ``confused`` [class, other, images]."""
        count, taken = len(classes), predictions.argmax(axis=1)
        best = torch.from_numpy(predictions).topk(min(5, count), dim=1).indices.numpy()
        right = taken == labels
        support = np.bincount(labels, minlength=count).tolist()
        hits = np.bincount(labels[right], minlength=count).tolist()
        per_class = [hit / n if n else None for hit, n in zip(hits, support, strict=True)]
        own = torch.from_numpy(predictions[np.arange(len(labels)), labels])
        pairs, counts = np.unique(np.stack([labels, taken], axis=1)[~right], axis=0, return_counts=True)
        confused = np.column_stack([pairs, counts])[np.argsort(-counts, kind="stable")]
        return {
            "top1": _share(right),
            "top5": _share((best == labels[:, None]).any(axis=1)),
            "mean_class_accuracy": float(np.mean([value for value in per_class if value is not None])),
            "ece": calibration_error(predictions.max(axis=1), right),
            "loss": float(F.nll_loss(own.clamp(min=1e-12).log()[:, None], torch.zeros(len(own), dtype=torch.int64))),
            "support": support,
            "per_class": per_class,
            "confused": confused.tolist(),
        }

    def scores(self, predictions: Probabilities, labels: Labels) -> NDArray[np.float64]:
        return (predictions.argmax(axis=1) == labels)[labels != NO_LABEL].astype(np.float64)

    def columns(self, predictions: Probabilities, labels: Labels | None) -> Mapping[str, Any]:
        given = {} if labels is None else {"label": labels}
        best = {"prediction": predictions.argmax(axis=1), "confidence": predictions.max(axis=1)}
        return {**given, **best, **to_columns(predictions, exclusive=True)}

    def rows(self, predictions: Floats, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        yield from ranked(predictions, classes, top)

    def temperature(self, predictions: Probabilities, labels: NDArray[np.int64], soft: Any) -> tuple[float, ...]:
        targets = one_hot(labels, predictions.shape[1])
        if soft is not None:
            targets = np.where(labels[:, None] == NO_LABEL, soft, targets)
        there = targets.any(axis=1)
        return (exclusive_temperature(predictions[there], targets[there]) if there.any() else 1.0,)

    def calibrated(self, predictions: Probabilities, temperature: tuple[float, ...]) -> Floats:
        return softmax(np.log(np.maximum(predictions, np.finfo(np.float32).tiny)) / temperature[0], axis=1)


@dataclass(frozen=True)
class Video(Classification):
    """One class per clip, of which ``count`` frames are read in an ``order``; or the ``differences`` of frames."""

    name: ClassVar[str] = "video"
    in_timm: ClassVar[bool] = False
    hub_task: ClassVar[str] = "video-classification"
    count: int = USUAL_FRAMES
    order: FrameOrder = "kept"
    differences: bool = False

    @property
    def frames(self) -> Frames:
        return Frames(self.count, self.order)

    def annotations(self, image_set: Dataset) -> Labels:
        if not image_set.clips:
            raise DataError(f"{image_set.spec} holds images, and --task video reads clips: give --data clips:PATH.")
        return image_set.labels

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        if labels.ndim != 1:
            raise DataError(f"{spec} has several labels per clip; --task video takes one, in a column 'label'.")
        super().require(labels, classes, spec)

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        from gpt4image.models.temporal import temporal  # timm takes a second: `label` needs none

        clips = isinstance(backbone, OfTransformers)  # it reads them as it is
        return backbone if clips else temporal(backbone, size, differences=self.differences)


def one_hot(labels: NDArray[np.int64], classes: int) -> Floats:
    """Return (N, K) float32 one-hot rows; zeros for NO_LABEL."""
    targets = np.zeros((len(labels), classes), np.float32)
    has = np.flatnonzero(labels != NO_LABEL)
    targets[has, labels[has]] = 1.0
    return targets


def ranked(predictions: Floats, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
    """Yield ``{"classes": [...], "probabilities": [...]}`` for each row (N, K): the ``top`` classes, best first."""
    order: NDArray[np.int64] = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    best = np.take_along_axis(predictions, order, axis=1)
    for columns, values in zip(order.tolist(), best.tolist(), strict=True):
        yield {"classes": [classes[column] for column in columns], "probabilities": values}
