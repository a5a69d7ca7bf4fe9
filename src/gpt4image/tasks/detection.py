"""Detection: boxes of objects and their classes, by FCOS (models/detector.py), and COCO's mean average precision.

Sides of boxes are fractions, so that areas are taken as of a picture of 640 x 480 pixels: a small box has less than
32 x 32 of them. Legend: N images, K classes, M predicted boxes of all of them, T thresholds, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts.answers import overlap
from gpt4image.base.errors import DataError
from gpt4image.data.dataset import Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import LEAST_SCORE, MOST_BOXES, NO_ANNOTATION, NO_BOX, Boxes
from gpt4image.tasks.base import Floats, Metric, Predictions, Task
from gpt4image.tasks.decision import Decision, score_sigmoid

LEAST_PART = 0.25
"""Part of a box that a crop must keep: less of it is no object to learn."""
LEAST_PIXELS = 2.0
"""Width and height of a box, in pixels of the input, from which it is one to learn."""
SURE = 0.5
"""Score of the boxes that a picture is said to show."""


@dataclass(frozen=True)
class Detection(Task):
    """Boxes of K classes; predictions (N, MOST_BOXES, 6): left, top, right, bottom, score, class; zeros for fewer."""

    name: ClassVar[str] = "detection"
    primary: ClassVar[Metric] = Metric(name="mAP", title="mean average precision of boxes (COCO)")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="AP50", title="average precision at IoU 0.5"),
        Metric(name="AP75", title="average precision at IoU 0.75"),
        Metric(name="AP_small", title="average precision of small boxes"),
        Metric(name="AP_medium", title="average precision of medium boxes"),
        Metric(name="AP_large", title="average precision of large boxes"),
    )
    image_score: ClassVar[str] = "average precision of the boxes of one image, all classes together"
    learns_targets: ClassVar[bool] = True
    in_timm: ClassVar[bool] = False
    hub_task: ClassVar[str] = "object-detection"
    output: ClassVar[str] = "boxes"
    smooths: ClassVar[bool] = False

    def annotations(self, image_set: Dataset) -> Boxes:
        if not isinstance(image_set.regions, Boxes):
            raise DataError(f"{image_set.spec} has no boxes, which --task detection learns from: give coco:FILE.json.")
        return image_set.regions

    def require(self, labels: Boxes, classes: Sequence[str], spec: str) -> None:
        if not len(labels.labels):
            raise DataError(f"{spec} has no box at all, so there is nothing to learn: give annotations with boxes.")

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        from gpt4image.models.detector import Detector  # torchvision takes a second: `label` needs none

        classes: Any = backbone.num_classes
        return Detector(backbone, size, int(classes))

    def targets(self, labels: Boxes, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        rows = torch.from_numpy(labels.padded())
        if geometry is None:
            return rows
        whole = geometry.boxes(rows[..., :4])
        inside = whole.clamp(0.0, 1.0)
        sides, before = inside[..., 2:] - inside[..., :2], whole[..., 2:] - whole[..., :2]
        enough = sides.prod(dim=-1) >= LEAST_PART * before.prod(dim=-1)
        kept = (enough | (rows[..., 5] <= 0)) & (sides * geometry.size >= LEAST_PIXELS).all(dim=-1)
        classes = torch.where(kept | (rows[..., 4] < 0), rows[..., 4], float(NO_BOX))
        return torch.cat([inside, classes[..., None], rows[..., 5:]], dim=-1)

    def without_target(self, targets: Tensor, images: Tensor) -> Tensor:
        return without_boxes(targets, images)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        from gpt4image.models.detector import detection_loss

        return detection_loss(outputs, targets)

    def tail(self) -> nn.Module:
        from gpt4image.models.detector import BestBoxes

        return BestBoxes(*self.decision.score)

    def shape(self, classes: int, size: int) -> tuple[int, ...]:
        return MOST_BOXES, 6

    def difference(self, ours: Predictions, theirs: Predictions) -> float:
        if np.isnan(ours).any() or np.isnan(theirs).any():
            return float("nan")
        return max(
            (_unlike(*pair) for a, b in zip(ours, theirs, strict=True) for pair in ((a, b), (b, a))), default=0.0
        )

    def agreement(self, ours: Predictions, theirs: Predictions) -> NDArray[np.float64]:
        return np.array([min(_found(a, b), _found(b, a)) for a, b in zip(ours, theirs, strict=True)])

    def measured(self, predictions: Predictions, labels: Boxes, classes: Sequence[str]) -> dict[str, Any]:
        """Return COCO's metrics, and of each class the average precision and how many images show it."""
        found = coco_metrics(predictions, labels, len(classes))
        there = labels.weights > 0
        shown = np.unique(np.column_stack([labels.image_of[there], labels.labels[there]]), axis=0)[:, 1]
        support = np.bincount(shown, minlength=len(classes)).tolist()
        return {"mAP": 0.0, "AP50": 0.0, "AP75": 0.0} | found | {"class_metric": "AP", "support": support}

    def scores(self, predictions: Predictions, labels: Boxes) -> NDArray[np.float64]:
        known = labels.known
        classes = int(max(labels.labels.max(initial=0), predictions[..., 5].max(initial=0))) + 1
        return Matches.of(predictions[known], labels[known], classes).of_images()

    def resampled(
        self, columns: Mapping[str, list[Any]], labels: Boxes, classes: int, times: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        predictions = np.zeros((len(labels), MOST_BOXES, 6), np.float32)
        for index, boxes in enumerate(columns["boxes"]):
            if boxes:
                predictions[index, : len(boxes)] = boxes
        return Matches.of(predictions, labels, classes).mean_average_precision(times)

    def columns(self, predictions: Predictions, labels: Boxes | None) -> Mapping[str, Any]:
        import pyarrow as pa

        found = [rows[rows[:, 4] > 0] for rows in predictions]
        boxes = pa.array([rows.tolist() for rows in found], pa.list_(pa.list_(pa.float32(), 6)))
        sure = [np.unique(rows[rows[:, 4] >= SURE, 5]).astype(np.int64).tolist() for rows in found]
        columns = {"prediction": pa.array(sure, pa.list_(pa.int64())), "boxes": boxes}
        if labels is None:
            return columns
        given = [
            np.unique(labels.image(i)[1]).tolist() if known else None for i, known in enumerate(labels.known.tolist())
        ]
        return {"label": pa.array(given, pa.list_(pa.int64())), **columns}

    def rows(self, predictions: Predictions, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        for rows in predictions:
            found = rows[rows[:, 4] > 0]
            yield {
                "classes": [classes[int(k)] for k in found[:, 5]],
                "probabilities": found[:, 4].tolist(),
                "boxes": found[:, :4].tolist(),
            }

    def decide(self, predictions: Predictions, labels: Boxes) -> Decision:
        there = labels.known
        if not there.any():
            return Decision()
        classes = 1 + int(max(labels.labels.max(initial=0), predictions[..., 5].max(initial=0)))
        found = Matches.of(predictions[there], labels[there], classes)
        counted = found.counts[:, 0]
        return Decision(score=score_sigmoid(found.score[counted], found.right[counted, 0]))


def without_boxes(rows: Tensor, images: Tensor) -> Tensor:
    """Return rows (B, D, 6) of ``Boxes.padded`` in which some images (B,) are not annotated."""
    blank = rows.new_tensor([0.0, 0.0, 0.0, 0.0, float(NO_ANNOTATION), 0.0])
    return torch.where(images[:, None, None], blank, rows)


def _unlike(ours: Floats, theirs: Floats) -> float:
    """Return by how much a box (MOST_BOXES, 6) of ours differs at most from the one of theirs most like it."""
    ours, theirs = (rows[rows[:, 4] > 0] for rows in (ours, theirs))
    if not len(ours):
        return 0.0
    last = theirs[:, 4].min() if len(theirs) == MOST_BOXES else LEAST_SCORE
    apart = np.abs(ours[:, None] - theirs[None]).max(axis=2, initial=0.0)
    nearest = apart.min(axis=1, initial=np.inf)
    return float(np.minimum(nearest, np.abs(ours[:, 4] - last)).max())


def _found(ours: Floats, theirs: Floats) -> float:
    """Return the share of sure boxes (MOST_BOXES, 6) of ours that overlap one of theirs of the same class."""
    ours, theirs = ours[ours[:, 4] >= GIVEN], theirs[theirs[:, 4] >= GIVEN / 2]
    same = (overlap(ours[:, :4], theirs[:, :4]) >= THRESHOLDS[0]) & (ours[:, None, 5] == theirs[None, :, 5])
    return float(same.any(axis=1).mean()) if len(ours) else 1.0


GIVEN = 0.3
"""Score from which ``predict`` gives a box."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU from which a box is found."""
RECALLS = np.linspace(0.0, 1.0, 101)
PICTURE = 640.0 * 480.0
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
AT_ONCE = 256
"""Images that are matched at once."""
Doubles = NDArray[np.float64]


def coco_metrics(predictions: NDArray[np.float32], boxes: Boxes, classes: int) -> dict[str, Any]:
    """Return what COCO reports of predictions (N, most, 6), best first."""
    once = np.ones(len(boxes), np.int64)
    every = Matches.of(predictions, boxes, classes)
    whole = {"mAP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
    found = {name: every.by_class(once, thresholds) for name, thresholds in whole.items()}
    found |= {
        f"AP_{name}": Matches.of(predictions, boxes, classes, area).by_class(once) for name, area in AREAS.items()
    }
    means = {name: float(np.mean(list(values.values()))) for name, values in found.items() if values}
    return {**means, "per_class": [found["mAP"].get(k) for k in range(classes)]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Which of M predicted boxes of N images are right, best score first.

    ``right``, (M, T): whether it finds a box that no better one has found; ``counts``, (M, T): whether it counts, as
    one in an ignored region does not. ``support`` are (N, K) true boxes, ``image`` and ``label`` (M,) those of each.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    score: Floats
    right: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    support: NDArray[np.int64]

    @classmethod
    def of(
        cls, predictions: NDArray[np.float32], boxes: Boxes, classes: int, area: tuple[float, float] = (0.0, 1e10)
    ) -> Matches:
        """Match predictions (N, most, 6), best first, to the boxes of the same images as COCO does."""
        parts = [
            _matched(predictions[start : start + AT_ONCE], boxes[start : start + AT_ONCE], area)
            for start in range(0, len(predictions), AT_ONCE)
        ]
        right, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        image, row = np.nonzero(predictions[..., 4] > 0)
        order = np.argsort(-predictions[image, row, 4], kind="stable")
        image, row = image[order], row[order]
        support = np.zeros((len(predictions), classes), np.int64)
        there = (boxes.weights > 0) & _within(boxes.corners, area)
        np.add.at(support, (boxes.image_of[there], boxes.labels[there]), 1)
        return cls(
            image=image,
            label=predictions[image, row, 5].astype(np.int64),
            score=predictions[image, row, 4],
            right=right[image, row],
            counts=counts[image, row],
            support=support,
        )

    def mean_average_precision(self, times: NDArray[np.int64]) -> Doubles:
        """Return (R,) mAP where image i is there ``times[:, i]`` times; ``times`` is (R, N)."""
        return np.array([float(np.mean(list(self.by_class(row).values()) or [0.0])) for row in times])

    def by_class(self, times: NDArray[np.int64], thresholds: slice = slice(None)) -> dict[int, float]:
        """Return the average precision of each class that is there, where image i is there ``times[i]`` times."""
        support = times @ self.support
        weight = times[self.image]
        return {
            k: average_precision(
                self.right[own, thresholds], self.counts[own, thresholds] * weight[own, None], int(support[k])
            )
            for k, own in enumerate(self._rows_by_class)
            if support[k]
        }

    def of_images(self) -> Doubles:
        """Return (N,) the average precision of each image alone, all classes together."""
        order = np.argsort(self.image, kind="stable")
        ends = np.searchsorted(self.image[order], np.arange(len(self.support) + 1))
        found: list[float] = []
        for i, support in enumerate(self.support.sum(axis=1).tolist()):
            own = order[ends[i] : ends[i + 1]]
            right, counts = self.right[own], self.counts[own]
            found.append(average_precision(right, counts.astype(np.int64), support) if support else not counts.any())
        return np.array(found, np.float64)

    @cached_property
    def _rows_by_class(self) -> list[NDArray[np.int64]]:
        order = np.argsort(self.label, kind="stable")
        ends = np.searchsorted(self.label[order], np.arange(self.support.shape[1] + 1))
        return [order[ends[k] : ends[k + 1]] for k in range(self.support.shape[1])]


def average_precision(right: NDArray[np.bool_], weight: NDArray[np.int64], support: int) -> float:
    """Return COCO's precision at 101 recalls, mean over thresholds, of boxes ``right`` (M, T), best first."""
    if not len(right):
        return 0.0
    found = (right * weight).cumsum(axis=0)
    precision = found / np.maximum(weight.cumsum(axis=0), 1)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    places = [np.searchsorted(found[:, t] / support, RECALLS) for t in range(right.shape[1])]
    padded = np.concatenate([precision, np.zeros((1, precision.shape[1]))])
    return float(np.mean([padded[place, t] for t, place in enumerate(places)]))


def _within(corners: NDArray[Any], area: tuple[float, float]) -> NDArray[np.bool_]:
    """Return (...) whether the areas of boxes (..., 4) lie between two numbers of pixels of PICTURE."""
    pixels = PICTURE * (corners[..., 2:4] - corners[..., :2]).astype(np.float64).prod(axis=-1)
    return (pixels >= area[0]) & (pixels <= area[1])


def _matched(
    predictions: NDArray[np.float32], boxes: Boxes, area: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (N, most, T) which predictions are right, and which count; the best choose first."""
    truth = boxes.padded()
    is_box, region = truth[..., 4] >= 0, truth[..., 5] <= 0
    wanted = (is_box & ~region & _within(truth, area))[:, None]
    overlap = _overlaps(predictions, truth, is_box & region)
    images, most = predictions.shape[:2]
    free = np.repeat(is_box[:, None], len(THRESHOLDS), axis=1)  # (N, T, D)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)[None, :, None]
    right = np.zeros((images, most, len(THRESHOLDS)), np.bool_)
    counts = np.zeros_like(right)
    within = _within(predictions, area)
    for row in range(most):
        own = overlap[:, row, None, :]  # (N, 1, D)
        open_to = np.where((own >= limits) & free, own + wanted, -1.0)  # those that are wanted come first
        best = open_to.argmax(axis=2)[..., None]
        hit = np.take_along_axis(open_to, best, axis=2)[..., 0] >= 0
        right[:, row] = hit & np.take_along_axis(np.broadcast_to(wanted, free.shape), best, axis=2)[..., 0]
        counts[:, row] = right[:, row] | (~hit & within[:, row, None])
        again = np.take_along_axis(np.broadcast_to(region[:, None], free.shape), best, axis=2)[..., 0]
        np.put_along_axis(free, best, (np.take_along_axis(free, best, axis=2)[..., 0] & (~hit | again))[..., None], 2)
    return right, counts


def _overlaps(predictions: NDArray[np.float32], truth: NDArray[np.float32], ignored: NDArray[np.bool_]) -> Doubles:
    """Return (N, most, D) the IoU of boxes of one class, else -1; of ignored regions, the part of the prediction."""
    one, other = predictions[:, :, None].astype(np.float64), truth[:, None].astype(np.float64)
    shared = np.minimum(one[..., 2:4], other[..., 2:4]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(shared, 0).prod(axis=-1)
    area, others = ((part[..., 2:4] - part[..., :2]).prod(axis=-1) for part in (one, other))
    whole = np.where(ignored[:, None], area, area + others - shared)
    same = (one[..., 5] == other[..., 4]) & (one[..., 4] > 0)
    return np.where(same, shared / np.maximum(whole, 1e-12), -1.0)
