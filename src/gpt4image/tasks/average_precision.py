"""How good boxes are: COCO's mean average precision, of resampled images too, and a score per image.

Sides of boxes are fractions, so that areas are taken as of a picture of 640 x 480 pixels: a small box has less than
32 x 32 of them, or 1/300 of the picture, a large one more than 96 x 96, or 3 %.

Legend: N images, K classes, M predicted boxes of all of them, D most boxes of an image, T thresholds, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.regions import Boxes

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU from which a box is found."""
RECALLS = np.linspace(0.0, 1.0, 101)
PICTURE = 640.0 * 480.0
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
AT_ONCE = 256
"""Images that are matched at once."""
Floats = NDArray[np.float64]


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
    """Which of M predicted boxes of N images are right, best score first; what any resample of the images is measured
    by.

    ``image`` and ``label``, (M,), are those of each box. ``right``, (M, T): whether it finds a box that no better one
    has found; ``counts``, (M, T): whether it counts, as one that finds only an ignored region does not. ``support`` are
    (N, K) boxes that can be found.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    right: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    support: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        predictions: NDArray[np.float32],
        boxes: Boxes,
        classes: int,
        area: tuple[float, float] = (0.0, 1e10),
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
            right=right[image, row],
            counts=counts[image, row],
            support=support,
        )

    def mean_average_precision(self, times: NDArray[np.int64], thresholds: slice = slice(None)) -> Floats:
        """Return (R,) mAP where image i is there ``times[:, i]`` times; ``times`` is (R, N)."""
        return np.array([float(np.mean(list(self.by_class(row, thresholds).values()) or [0.0])) for row in times])

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

    def of_images(self) -> Floats:
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
    """Return the mean over thresholds of the precision at 101 recalls, as COCO interpolates it.

    ``right`` says which boxes are right, (M, T), best score first, and ``weight`` how often each counts.
    """
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


def _overlaps(predictions: NDArray[np.float32], truth: NDArray[np.float32], ignored: NDArray[np.bool_]) -> Floats:
    """Return (N, most, D) the IoU of boxes of one class, else -1; of ignored regions, the part of the prediction."""
    one, other = predictions[:, :, None].astype(np.float64), truth[:, None].astype(np.float64)
    shared = np.minimum(one[..., 2:4], other[..., 2:4]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(shared, 0).prod(axis=-1)
    area, others = ((part[..., 2:4] - part[..., :2]).prod(axis=-1) for part in (one, other))
    whole = np.where(ignored[:, None], area, area + others - shared)
    same = (one[..., 5] == other[..., 4]) & (one[..., 4] > 0)
    return np.where(same, shared / np.maximum(whole, 1e-12), -1.0)
