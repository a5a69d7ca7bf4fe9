"""Multi-label classification: any number of classes per image; each is present, absent or not known.

Targets are stored as (B, 2, K): how much of an image counts for a class, and how much of that says "present". Sums of
such targets are targets again, so that mixup, soft labels and missing labels need no special case.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from gpt4image.artifacts.probabilities import to_columns
from gpt4image.base.errors import DataError
from gpt4image.data.annotation import Labels, known
from gpt4image.data.geometry import Geometry
from gpt4image.parallel.processes import gather
from gpt4image.tasks.base import Floats, Metric, Task
from gpt4image.tasks.classification import ranked
from gpt4image.tasks.decision import USUAL, Decision, binary_temperatures, log_odds

NOT_KNOWN = -1
PRIOR = 2.0
"""Present labels of a class that count as much as the model's own probabilities."""
AT_ONCE = 50  # resamples whose sums are in memory


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of K classes per image; labels are (N, K) int8: 1 present, 0 absent, -1 not known."""

    name: ClassVar[str] = "multilabel"
    primary: ClassVar[Metric] = Metric(name="mAP", title="mean average precision")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="f1_macro", title="F1, mean over classes"),
        Metric(name="f1_micro", title="F1, all classes together"),
        Metric(name="ranking_precision", title="label ranking average precision"),
    )
    image_score: ClassVar[str] = "label ranking average precision"
    mixes: ClassVar[bool] = True
    learns_targets: ClassVar[bool] = True
    no_target: ClassVar[float] = float("nan")

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        if labels.ndim != 2:
            raise DataError(f"{spec} has one label per image, which is --task classification: give a column 'labels'.")

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        given = torch.from_numpy(labels.astype(np.float32) if soft is None else soft)
        counts = (given >= 0).float()
        return torch.stack([counts, given.clamp(min=0.0).nan_to_num()], dim=1)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        return np.asarray(((labels if soft is None else soft) >= 0).any(axis=1))

    def with_labels(self, soft: Floats, labels: Labels, trust: float) -> Floats:
        """Return a teacher's probabilities, ``trust`` of which is a known label; where it says nothing, all of it."""
        given = labels.astype(np.float32)
        both = np.where(np.isnan(soft), given, (1 - trust) * soft + trust * given)
        return np.where(labels != NOT_KNOWN, both, soft).astype(np.float32)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        return binary_loss(outputs, targets, smoothing)

    def tail(self) -> nn.Module:
        return nn.Sigmoid()

    def measured(self, predictions: Floats, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return mAP, F1 by ``thresholds`` and average precision per class; what is not known does not count."""
        from torchmetrics.functional.classification import binary_average_precision

        given, scores = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(predictions)
        support = (given == 1).sum(dim=0).tolist()
        counts = given != NOT_KNOWN
        per_class = [
            float(binary_average_precision(scores[counts[:, k], k], given[counts[:, k], k])) if support[k] else None
            for k in range(len(classes))
        ]
        measured = [value for value in per_class if value is not None]
        loss = F.binary_cross_entropy(scores.clamp(1e-7, 1 - 1e-7), given.clamp(min=0).float(), reduction="none")
        return {
            "mAP": float(np.mean(measured)) if measured else 0.0,
            **_f1(self.present(predictions), labels),
            "ranking_precision": float(self.scores(predictions, labels).mean()),
            "loss": float(loss[counts].mean()),
            "thresholds": self.decision.thresholds,
            "class_metric": "average precision",
            "support": support,
            "per_class": per_class,
        }

    def scores(self, predictions: Floats, labels: Labels) -> NDArray[np.float64]:
        there = known(labels)
        return np.array([_ranking(row, given) for row, given in zip(predictions[there], labels[there], strict=True)])

    def resampled(
        self, columns: Mapping[str, list[Any]], labels: Labels, classes: int, times: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        predictions = np.array(columns["probabilities"], np.float32)
        found = np.stack([_average_precisions(*pair, times) for pair in zip(predictions.T, labels.T, strict=True)])
        there = ~np.isnan(found)
        return np.where(there, found, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)

    def columns(self, predictions: Floats, labels: Labels | None) -> Mapping[str, Any]:
        present = [np.flatnonzero(row).tolist() for row in self.present(predictions)]
        found = {"prediction": present, **to_columns(predictions, exclusive=False)}
        return found if labels is None else {"label": list(labels), **found}

    def rows(self, predictions: Floats, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        every, present = np.argsort(-predictions, axis=1, kind="stable"), self.present(predictions)
        for best, order, there in zip(ranked(predictions, classes, top), every, present, strict=True):
            yield {**best, "present": [classes[k] for k in order if there[k]]}

    def present(self, predictions: Floats) -> NDArray[np.int64]:
        """Return (N, K) 1 for each class that counts as present, else 0."""
        return (predictions >= np.asarray(self.decision.thresholds or USUAL)).astype(np.int64)

    def agreement(self, ours: Floats, theirs: Floats) -> NDArray[np.float64]:
        return (self.present(ours) == self.present(theirs)).mean(axis=1)

    def temperature(self, predictions: Floats, labels: Labels, soft: Any) -> tuple[float, ...]:
        return binary_temperatures(predictions, np.where(labels == NOT_KNOWN, np.nan if soft is None else soft, labels))

    def calibrated(self, predictions: Floats, temperature: tuple[float, ...]) -> Floats:
        return expit(log_odds(predictions) / np.asarray(temperature)).astype(np.float32)

    def decide(self, predictions: Floats, labels: Labels) -> Decision:
        pairs = zip(predictions.astype(np.float64).T, labels.T, strict=True)
        return Decision(thresholds=tuple(_best_threshold(*pair) for pair in pairs))


def _average_precisions(scores: Floats, labels: NDArray[np.int8], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (R,) average precisions of one class in resamples ``times`` (R, n), NaN where none shows it."""
    order = np.argsort(-scores, kind="stable")
    order = order[labels[order] != NOT_KNOWN]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))[: len(order)]
    found = np.full(len(times), np.nan)
    for start in range(0, len(times), AT_ONCE):
        counts = times[start : start + AT_ONCE, order].astype(np.float64)
        every, present = (each.cumsum(axis=1)[:, ends] for each in (counts, counts * (labels[order] == 1)))
        more = np.diff(present, axis=1, prepend=0.0)
        support = more.sum(axis=1)
        total = (more * present / np.maximum(every, 1.0)).sum(axis=1)
        np.divide(total, support, out=found[start : start + AT_ONCE], where=support > 0)
    return found


def _f1(decided: NDArray[np.int64], labels: NDArray[np.int8]) -> dict[str, float]:
    """Return F1 of what is decided, (N, K) 0 or 1: the mean over classes, and of all classes together."""
    right = ((decided == 1) & (labels == 1)).sum(axis=0)
    wrong = ((decided != labels) & (labels != NOT_KNOWN)).sum(axis=0)
    there = right + wrong > 0
    of_classes = 2 * right[there] / (2 * right + wrong)[there]
    return {
        "f1_macro": float(of_classes.mean()) if there.any() else 0.0,
        "f1_micro": float(2 * right.sum() / max((2 * right + wrong).sum(), 1)),
    }


def _ranking(scores: Floats, labels: NDArray[np.int8]) -> float:
    """Return the label ranking average precision of one image, (K,) scores and labels; see ``MultiLabel.scores``."""
    present, counts = scores[labels == 1], scores[labels != NOT_KNOWN]
    if not len(present):
        return 1.0
    right, above = ((some >= present[:, None]).sum(axis=1) for some in (present, counts))
    return float((right / above).mean())


def binary_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy against soft targets, the mean over what counts, on all processes::

        p = sigmoid(logits[i, k]);  count, present = targets[i, :, k]
        term(i, k) = -present * log(p) - (count - present) * log(1 - p)

    ``logits`` (B, K) are computed in float32 or better; ``targets`` (B, 2, K) say how much an image counts for a class,
    and how much of that says "present". A scalar >= 0, the same on every process; 0 where nothing counts.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    count, present = targets.to(logits.dtype).unbind(dim=1)
    present = (1 - smoothing) * present + smoothing * count / 2
    absent = (count - present) * (-F.logsigmoid(-logits))
    total = (absent - present * F.logsigmoid(logits)).sum()
    sums = gather(torch.stack([total, count.sum()])[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=torch.finfo(logits.dtype).tiny)


def _best_threshold(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Return the threshold of largest F1 of a class, where few present labels count beside the probabilities."""
    weight = (labels == 1).sum() / ((labels == 1).sum() + PRIOR)
    order = np.argsort(-probabilities, kind="stable")
    descending: NDArray[np.float64] = probabilities[order]
    given = labels[order]
    present = weight * (given == 1) + (1 - weight) * descending
    counted = weight * (given >= 0) + (1 - weight)
    f1 = 2 * present.cumsum() / (present.sum() + counted.cumsum())
    ends = np.flatnonzero(np.append(descending[1:] < descending[:-1], True))  # equal probabilities go together
    best = int(ends[f1[ends].argmax()])
    below, above = [*descending.tolist(), 0.0][best + 1], float(descending[best])
    return USUAL if f1[best] == 0.0 else _between(below, above)


def _between(below: float, above: float) -> float:
    """Return the number of fewest digits near the middle of ``below``, which it exceeds, and ``above``."""
    rounded = (round((below + above) / 2, digits) for digits in range(2, 17))
    return next((number for number in rounded if below < number <= above), above)
