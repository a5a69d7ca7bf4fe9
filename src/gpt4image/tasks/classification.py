"""Classification: one class per image or clip; soft, mixed and missing labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts.top_k_probs import Probabilities, TopKProbs, as_columns, built, chosen, zeros
from gpt4image.base.errors import DataError, first_few
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.video import USUAL_FRAMES, FrameOrder, Frames
from gpt4image.models.hugging_face import OfTransformers
from gpt4image.models.temporal import temporal
from gpt4image.parallel.processes import gather
from gpt4image.tasks.base import Floats, Labels, Metric, Task

CALIBRATION_BINS = 15


def soft_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy against class probabilities, averaged over the images that have a target, on all processes.

    Args:
        logits: (B, K) of any float dtype; computed in float32 or better.
        targets: (B, K) class probabilities. A row sums to 1, to 0 for an image without a target, or to something
            between for a mixed image of which only one part has a target; it counts by that sum.
        label_smoothing: share of each target spread evenly over the classes (Szegedy et al. 2016).

    Returns:
        Scalar >= 0, the same on every process; 0 where no image has a target. With one-hot rows it equals
        ``F.cross_entropy(logits, labels, label_smoothing=...)``.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    targets = targets.to(logits.dtype)
    mass = targets.sum(dim=1, keepdim=True)
    smooth = (1 - label_smoothing) * targets + label_smoothing * mass / targets.shape[1]
    total = -(smooth * F.log_softmax(logits, dim=1)).sum()
    sums = torch.stack([total, mass.sum()])
    total, mass = gather(sums[None]).sum(dim=0)
    return total / mass.clamp(min=torch.finfo(logits.dtype).tiny)


def measure(probabilities: Probabilities, labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Measure predictions of one split.

    Args:
        probabilities: (N, K).
        labels: (N,), -1 where there is none; such images do not count.
        classes: K names.

    Returns:
        top1, top5 (of min(5, K)), mean_class_accuracy, ece (15 bins, Guo et al. 2017), loss; support; per_class (None
        for a class without images). Fractions in 0..1. Of ``TopKProbs``, the loss of a class that is not among the
        most probable ones is that of their ``rest``.
    """
    count = len(classes)
    has_label = labels >= 0
    found, truth = chosen(probabilities, has_label), labels[has_label]
    facts: dict[str, Any] = {"images": len(labels), "labelled": int(has_label.sum()), "classes": list(classes)}
    if not has_label.any():
        return facts
    right = found.argmax(axis=1) == truth
    support = np.bincount(truth, minlength=count).tolist()
    hits = np.bincount(truth[right], minlength=count).tolist()
    per_class = [hit / n if n else None for hit, n in zip(hits, support, strict=True)]
    own = torch.from_numpy(found[np.arange(len(truth)), truth])

    return {
        **facts,
        "top1": _share(right),
        "top5": _share((_best(found, min(5, count)) == truth[:, None]).any(axis=1)),
        "mean_class_accuracy": float(np.mean([value for value in per_class if value is not None])),
        "ece": calibration_error(found.max(axis=1), right),
        "loss": float(F.nll_loss(own.clamp(min=1e-12).log()[:, None], torch.zeros(len(own), dtype=torch.int64))),
        "support": support,
        "per_class": per_class,
    }


def calibration_error(confidence: Floats, right: NDArray[Any]) -> float:
    """Return the expected calibration error of (N,) confidences, given which predictions are right."""
    from torchmetrics.functional.classification import binary_calibration_error

    return float(binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(right), CALIBRATION_BINS))


def _share(right: NDArray[np.bool_]) -> float:
    """Return the share of those that are right, rounded as torchmetrics does."""
    return float(np.float32(right.sum()) / np.float32(len(right)))


def _best(found: Probabilities, count: int) -> NDArray[np.int64]:
    """Return (N, count) the most probable classes, in no order beyond the first."""
    if isinstance(found, TopKProbs):
        return found.classes[:, :count].astype(np.int64)
    return torch.from_numpy(found).topk(count, dim=1).indices.numpy()


def confused(probabilities: Probabilities, labels: NDArray[np.int64]) -> list[list[int]]:
    """Return [class, other class, images of the first taken for the second], most frequent first."""
    taken = probabilities.argmax(axis=1)
    wrong = (labels >= 0) & (taken != labels)
    pairs, counts = np.unique(np.stack([labels, taken], axis=1)[wrong], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.column_stack([pairs, counts])[order].tolist()


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
        """Refuse several labels per image, and a single class. Raises DataError."""
        if labels.ndim != 1:
            raise DataError(f"{spec} has several labels per image, which is --task multilabel, not classification.")
        if len(classes) == 1:
            raise DataError(
                f"{spec} has one class, {first_few(classes)}: there is nothing to tell apart. Is it a folder above "
                "those of the classes?"
            )

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        """Return (B, K) class probabilities; a row of zeros where an image has no target."""
        return torch.from_numpy(one_hot(labels, outputs) if soft is None else soft)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        """Return (B,) which images have a class, or any probability."""
        return labels != NO_LABEL if soft is None else np.asarray(soft.any(axis=1))

    def placeholder(self, has_target: NDArray[np.bool_], outputs: int) -> Probabilities:
        """Return equal probabilities for all classes, zeros without a target."""
        found = zeros(len(has_target), outputs)
        found[has_target] = np.float32(1 / outputs)
        return found

    def with_labels(self, soft: Probabilities, labels: Labels, trust: float) -> Probabilities:
        """Return a teacher's class probabilities, ``trust`` of which is the given class where there is one."""
        share = np.where(labels != NO_LABEL, np.float32(trust), np.float32(0))[:, None]

        def mixed(rows: slice) -> Floats:
            return (1 - share[rows]) * soft[rows] + share[rows] * one_hot(labels[rows], soft.shape[1])

        return built(len(soft), soft.shape[1], mixed)

    def without_target(self, targets: Tensor, images: Tensor) -> Tensor:
        """Return targets with rows of zeros for some images."""
        return targets.masked_fill(images[:, None], 0.0)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Return the cross-entropy; see ``soft_cross_entropy``."""
        return soft_cross_entropy(outputs, targets, smoothing)

    def tail(self) -> nn.Module:
        """Return the softmax."""
        return nn.Softmax(dim=1)

    def measure(self, predictions: Probabilities, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return accuracies, calibration and what is confused; see ``measure`` and ``confused``."""
        return {**measure(predictions, labels, classes), "confused": confused(predictions, labels)}

    def scores(self, predictions: Probabilities, labels: Labels) -> NDArray[np.float64]:
        """Return (n,) 1 where the class is right, else 0, of the images with a class."""
        return (predictions.argmax(axis=1) == labels)[labels != NO_LABEL].astype(np.float64)

    def columns(self, predictions: Probabilities, labels: Labels | None) -> Mapping[str, Any]:
        """Return label, prediction, confidence and the probabilities of all classes."""
        given = {} if labels is None else {"label": labels}
        best = {"prediction": predictions.argmax(axis=1), "confidence": predictions.max(axis=1)}
        return {**given, **best, **as_columns(predictions)}

    def rows(self, predictions: Floats, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        """Yield the most probable classes of each image, the first one first."""
        yield from ranked(predictions, classes, top)


@dataclass(frozen=True)
class Video(Classification):
    """One class out of K per clip; see ``Classification``.

    Attributes:
        count: frames of a clip that are read.
        order: in which order; see ``data.video.Frames``.
        differences: whether the model reads differences of frames; see ``models.temporal``.
    """

    name: ClassVar[str] = "video"
    in_timm: ClassVar[bool] = False
    hub_task: ClassVar[str] = "video-classification"
    count: int = USUAL_FRAMES
    order: FrameOrder = "kept"
    differences: bool = False

    @property
    def frames(self) -> Frames:
        """Which frames of a clip are read."""
        return Frames(self.count, self.order)

    def annotations(self, image_set: Dataset) -> Labels:
        """Return the labels of clips. Raises DataError: these are images."""
        if not image_set.clips:
            raise DataError(f"{image_set.spec} holds images, and --task video reads clips: give --data clips:PATH.")
        return image_set.labels

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        """Refuse several labels per clip, and a single class. Raises DataError."""
        if labels.ndim != 1:
            raise DataError(f"{spec} has several labels per clip; --task video takes one, in a column 'label'.")
        super().require(labels, classes, spec)

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        """Return the model of images with temporal shift and attention over frames; one of transformers reads clips."""
        return (
            backbone if isinstance(backbone, OfTransformers) else temporal(backbone, size, differences=self.differences)
        )


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
