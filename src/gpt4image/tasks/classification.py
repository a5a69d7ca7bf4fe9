"""Classification: the task loss on hard, soft, mixed or missing labels, and the metrics of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.parallel.processes import gather

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


def measure(probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Measure predictions of one split.

    Args:
        probabilities: (N, K).
        labels: (N,), -1 where there is none; such images do not count.
        classes: K names.

    Returns:
        top1, top5 (of min(5, K)), mean_class_accuracy, ece (15 bins, Guo et al. 2017), loss; support; per_class (None
        for a class without images). Fractions in 0..1.
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    count = len(classes)
    has_label = labels >= 0
    scores, truth = torch.from_numpy(probabilities[has_label]), torch.from_numpy(labels[has_label])
    facts: dict[str, Any] = {"images": len(labels), "labelled": int(has_label.sum()), "classes": list(classes)}
    if not has_label.any():
        return facts
    support = truth.bincount(minlength=count).tolist()
    right = truth[scores.argmax(dim=1) == truth].bincount(minlength=count).tolist()
    per_class = [hits / n if n else None for hits, n in zip(right, support, strict=True)]

    def accuracy(top_k: int) -> float:
        return float(multiclass_accuracy(scores, truth, num_classes=count, average="micro", top_k=min(top_k, count)))

    return {
        **facts,
        "top1": accuracy(1),
        "top5": accuracy(5),
        "mean_class_accuracy": float(np.mean([value for value in per_class if value is not None])),
        "ece": float(multiclass_calibration_error(scores, truth, num_classes=count, n_bins=CALIBRATION_BINS)),
        "loss": float(F.nll_loss(scores.clamp(min=1e-12).log(), truth)),
        "support": support,
        "per_class": per_class,
    }


def confused(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[list[int]]:
    """Return [class, other class, images of the first taken for the second], most frequent first.

    That is the confusion matrix without its diagonal and its zeros, of which K classes have K x K.

    Args:
        probabilities: (N, K).
        labels: (N,), -1 where there is none; such images do not count.
    """
    taken = probabilities.argmax(axis=1)
    wrong = (labels >= 0) & (taken != labels)
    pairs, counts = np.unique(np.stack([labels, taken], axis=1)[wrong], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.column_stack([pairs, counts])[order].tolist()
