"""Detection: boxes of objects and their classes, by FCOS. See models/detector.py and tasks/average_precision.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import DataError
from gpt4image.data.dataset import Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import NO_ANNOTATION, NO_BOX, Boxes
from gpt4image.models.detector import LEAST_SCORE, MOST, BestBoxes, Detector, detection_loss
from gpt4image.tasks.average_precision import Matches, coco_metrics
from gpt4image.tasks.base import Floats, Metric, Predictions, Task

LEAST_PART = 0.25
"""Part of a box that a crop must keep: less of it is no object to learn."""
LEAST_PIXELS = 2.0
"""Width and height of a box, in pixels of the input, from which it is one to learn."""
SURE = 0.5
"""Score of the boxes that a picture is said to show."""


@dataclass(frozen=True)
class Detection(Task):
    """Boxes of objects of K classes; see ``tasks.base.Task``.

    Annotations are ``Boxes``, predictions (N, MOST, 6) float32: left, top, right, bottom, score, class; zeros where
    there are fewer.
    """

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
            raise DataError(
                f"{image_set.spec} has no boxes, which --task detection learns from: give coco:FILE.json, yolo:DIR, "
                "voc:DIR or hf:NAME with objects, or another --task."
            )
        return image_set.regions

    def require(self, labels: Boxes, classes: Sequence[str], spec: str) -> None:
        if not len(labels.labels):
            raise DataError(f"{spec} has no box at all, so there is nothing to learn: give annotations with boxes.")

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
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
        return detection_loss(outputs, targets)

    def tail(self) -> nn.Module:
        return BestBoxes()

    def shape(self, classes: int, size: int) -> tuple[int, ...]:
        return MOST, 6

    def difference(self, ours: Predictions, theirs: Predictions) -> float:
        if np.isnan(ours).any() or np.isnan(theirs).any():
            return float("nan")
        return max(
            (_unlike(*pair) for a, b in zip(ours, theirs, strict=True) for pair in ((a, b), (b, a))), default=0.0
        )

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
    ) -> NDArray[np.float64] | None:
        predictions = np.zeros((len(labels), MOST, 6), np.float32)
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


def without_boxes(rows: Tensor, images: Tensor) -> Tensor:
    """Return rows (B, D, 6) of ``Boxes.padded`` in which some images (B,) are not annotated."""
    blank = rows.new_tensor([0.0, 0.0, 0.0, 0.0, float(NO_ANNOTATION), 0.0])
    return torch.where(images[:, None, None], blank, rows)


def _unlike(ours: Floats, theirs: Floats) -> float:
    """Return by how much a box (MOST, 6) of ours differs at most from the one of theirs most like it."""
    ours, theirs = (rows[rows[:, 4] > 0] for rows in (ours, theirs))
    if not len(ours):
        return 0.0
    last = theirs[:, 4].min() if len(theirs) == MOST else LEAST_SCORE
    apart = np.abs(ours[:, None] - theirs[None]).max(axis=2, initial=0.0)
    nearest = apart.min(axis=1, initial=np.inf)
    return float(np.minimum(nearest, np.abs(ours[:, 4] - last)).max())
