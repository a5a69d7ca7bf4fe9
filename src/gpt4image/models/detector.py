"""FCOS on any timm classifier: boxes from the points of a feature pyramid (Tian et al. 2019, arXiv 1904.01355).

The head is torchvision's, and so are the rule by which points are given boxes and the loss; this form has no loop over
images or boxes. An output says of each point also where it is, so that loss and tail need nothing else.

Legend: B images, P points, K classes, D boxes of an image. All places are fractions of the picture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from gpt4image.data.regions import LEAST_SCORE, MOST_BOXES, NO_ANNOTATION
from gpt4image.models.pyramid import WIDEST, PyramidModel
from gpt4image.parallel.processes import gather

POINT = 5 + 3
"""Numbers of an output beside the class logits: 4 distances, centerness; x, y and stride of the point."""
FINEST, COARSEST = 8, 128
"""Strides of the feature pyramid, in pixels."""
FIRST, LAST = 4.0, 8.0
"""Distances from a point to the farthest side of its box, in strides, that are left to the points of its level."""
RADIUS = 1.5
"""Strides around the centre of a box in which points learn it."""
START = 2.0
"""Distance to each side that an untrained model predicts, in strides."""
OVERLAP = 0.6
"""IoU above which the better of two boxes of a class is kept."""
CANDIDATES = 1000
"""Boxes of an image that are looked at, at most."""
ROUNDS = 32
"""Boxes in a row, each of which hangs on the one before: more were never seen."""


class Detector(PyramidModel):
    """Images to outputs (B, P, K + POINT): class logits, distances in strides, centerness, and the point."""

    def __init__(self, backbone: nn.Module, size: int, classes: int) -> None:
        super().__init__(backbone, size, finest=FINEST, coarsest=min(COARSEST, (size - 1) // int(FIRST)))
        self.head = FCOSHead(self.width, 1, classes, num_convs=4 if self.width == WIDEST else 2)
        start: Any = self.head.regression_head.bbox_reg.bias
        nn.init.constant_(start, START)  # at 0 its ReLU gives no gradient
        points = [points_of(side) for side in self.sides]
        self.register_buffer("points", torch.cat(points), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs of images (B, 3, S, S), in float32 at least, as points are."""
        maps, logits = self.read(images)
        found = self.head(maps)
        points: Any = self.points
        classes = found["cls_logits"]
        if logits is not None:  # without a share in the loss, processes would miss the gradients of the classifier
            classes = classes + 0.0 * logits.sum()
        parts = [classes, found["bbox_regression"], found["bbox_ctrness"], points.expand(images.shape[0], -1, -1)]
        return torch.cat(parts, dim=-1)


def points_of(side: int) -> Tensor:
    """Return (side ** 2, 3): x, y and stride of the cells of a map, row by row."""
    middle = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, 1 / side)], dim=-1).flatten(0, 1)


class Outputs(NamedTuple):
    """The parts of outputs (B, P, K + POINT)."""

    classes: Tensor
    distances: Tensor
    centerness: Tensor
    points: Tensor

    @classmethod
    def of(cls, outputs: Tensor) -> Outputs:
        """Return the parts."""
        classes, distances, centerness, points = outputs.split([outputs.shape[-1] - POINT, 4, 1, 3], dim=-1)
        return cls(classes, distances, centerness[..., 0], points)

    @property
    def corners(self) -> Tensor:
        """(B, P, 4) boxes: left, top, right, bottom."""
        moved = self.distances * self.points[..., 2:]
        return torch.cat([self.points[..., :2] - moved[..., :2], self.points[..., :2] + moved[..., 2:]], dim=-1)


class Assigned(NamedTuple):
    """The box of each point (B, P), its weight, 0 for none, and which points are an object or background."""

    box: Tensor
    weight: Tensor
    counts: Tensor


def assign(points: Tensor, targets: Tensor) -> Assigned:
    """Give points (P, 3) boxes (B, D, 6), as of ``Boxes.padded``: the smallest of those whose centre is near and whose
    size suits the point's level.
    """
    sides = distances_to(points[:, None], targets[:, None, :, :4])  # (B, P, D, 4), in strides
    inside = sides.amin(dim=-1) > 0
    farthest = sides.amax(dim=-1)
    stride = points[:, 2]
    first = torch.where(stride > stride.min(), FIRST, 0.0)[:, None]
    last = torch.where(stride < stride.max(), LAST, torch.inf)[:, None]
    off_centre = (sides[..., :2] - sides[..., 2:]).abs().amax(dim=-1) / 2
    weights, classes = targets[:, None, :, 5], targets[:, None, :, 4]
    fits = inside & (off_centre < RADIUS) & (farthest > first) & (farthest < last) & (classes >= 0) & (weights > 0)
    areas = (targets[..., 2:4] - targets[..., :2]).prod(dim=-1)[:, None].masked_fill(~fits, torch.inf)
    smallest, box = areas.min(dim=-1)
    matched = smallest < torch.inf
    weight = torch.where(matched, targets[..., 5].gather(1, box), 0.0)
    ignored = (inside & (classes >= 0) & (weights <= 0)).any(dim=-1) & ~matched
    return Assigned(box, weight, ~ignored & (targets[:, :1, 4] != NO_ANNOTATION))


def distances_to(points: Tensor, corners: Tensor) -> Tensor:
    """Return how far the sides of boxes (..., 4) are from points (..., 3): left, top, right, bottom, in strides."""
    return torch.cat([points[..., :2] - corners[..., :2], corners[..., 2:] - points[..., :2]], -1) / points[..., 2:]


def detection_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of the classes, GIoU loss of the boxes and cross-entropy of the centerness, per object point::

        (sum over points: w * focal(p, 1) + (1 - w) * focal(p, 0) + w * (giou + centerness)) / sum(w)

    ``outputs`` are (B, P, K + POINT), ``targets`` (B, D, 6) as of ``assign``; a box of weight w < 1 is there with
    probability w. The sums are those of all processes: a scalar >= 0, the same on each.
    """
    found = Outputs.of(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))
    with torch.no_grad():
        box, weight, counts = assign(found.points[0], targets)
        own = targets.gather(1, box[..., None].expand(-1, -1, 6))
        objects = weight > 0
        sides = distances_to(found.points, own[..., :4])[objects]
        small, large = torch.minimum(sides[:, :2], sides[:, 2:]), torch.maximum(sides[:, :2], sides[:, 2:])
        centred = (small / large).prod(dim=-1).sqrt()
        weights, classes = weight[objects], own[..., 4][objects].long()
    absent = sigmoid_focal_loss(found.classes, torch.zeros_like(found.classes)).sum(dim=-1)
    # Of the class of an object, the term of a background point gives way by its weight.
    logits = found.classes[objects].gather(1, classes[:, None])[:, 0]
    both = sigmoid_focal_loss(logits, torch.ones_like(logits)) - sigmoid_focal_loss(logits, torch.zeros_like(logits))
    # Around the point and in strides, so that no box is so small that its area is rounding.
    sign = sides.new_tensor([-1.0, -1.0, 1.0, 1.0])
    boxes = generalized_box_iou_loss(found.distances[objects] * sign, sides * sign)
    middle = F.binary_cross_entropy_with_logits(found.centerness[objects], centred, reduction="none")
    total = (absent * counts).sum() + (weights * (both + boxes + middle)).sum()
    sums = gather(torch.stack([total, weights.sum()])[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=1.0)


class BestBoxes(nn.Module):
    """Outputs to predictions (B, MOST_BOXES, 6): left, top, right, bottom, score, class; the best first, then zeros.

    Of boxes of one class that overlap, only the best is kept: greedy non-maximum suppression. Exported models do the
    same in ROUNDS, whose shapes are known beforehand; `export` checks that they come to the same boxes. ``slope`` and
    ``shift`` of their log odds make scores say how often such boxes are right.
    """

    def __init__(self, slope: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.slope, self.shift = slope, shift

    def forward(self, outputs: Tensor) -> Tensor:
        """Return the predictions."""
        found = Outputs.of(outputs)
        scores = (found.classes.sigmoid() * found.centerness.sigmoid()[..., None]).sqrt()
        rows = candidates(scores, found.corners, CANDIDATES)
        kept = settled(rows) if torch.compiler.is_exporting() else torch.stack([suppressed(each) for each in rows])
        if (self.slope, self.shift) == (1.0, 0.0):
            return kept
        score = kept[..., 4:5]
        sure = (self.slope * score.clamp(1e-7, 1 - 1e-7).logit() + self.shift).sigmoid()
        return torch.cat([kept[..., :4], torch.where(score > 0, sure, score), kept[..., 5:]], dim=-1)


def candidates(scores: Tensor, corners: Tensor, most: int) -> Tensor:
    """Return the ``most`` best rows (B, N, 6), best first, of scores (B, P, K) and corners (B, P, 4).

    Rows of zeros stand for boxes that score too little, or have no area within the picture.
    """
    count = scores.shape[-1]
    best, place = scores.flatten(1).topk(min(most, scores.shape[1] * count))
    point = (place // count)[..., None].expand(-1, -1, 4)
    rows = torch.cat(
        [corners.clamp(0.0, 1.0).gather(1, point), best[..., None], (place % count)[..., None].to(best)], dim=-1
    )
    has_area = (rows[..., 2:4] > rows[..., :2]).all(dim=-1)
    return torch.where(((best > LEAST_SCORE) & has_area)[..., None], rows, 0.0)


def suppressed(rows: Tensor) -> Tensor:
    """Return (MOST_BOXES, 6) of the candidates (N, 6) of one image, by torchvision's suppression."""
    rows = rows[rows[:, 4] > 0]
    exact = rows.double()  # torchvision moves classes apart, which costs digits
    kept = rows[batched_nms(exact[:, :4], exact[:, 4], exact[:, 5], OVERLAP)[:MOST_BOXES]]
    return F.pad(kept, (0, 0, 0, MOST_BOXES - len(kept)))


def settled(rows: Tensor) -> Tensor:
    """Return (B, MOST_BOXES, 6) of the candidates (B, N, 6), best first, by rounds in which all judge all at once."""
    number = torch.arange(rows.shape[1], device=rows.device)
    better = number[None, :] < number[:, None]
    same = rows[:, :, None, 5] == rows[:, None, :, 5]
    hides = (same & better & (pairwise_iou(rows[..., :4]) > OVERLAP)).to(rows.dtype)
    there = (rows[..., 4:5] > 0).to(rows.dtype)
    kept = there
    for _ in range(ROUNDS):
        kept = there * (hides @ kept < 0.5)
    rows = F.pad(rows * kept, (0, 0, 0, max(0, MOST_BOXES - rows.shape[1])))
    place = rows[..., 4].topk(MOST_BOXES).indices
    return rows.gather(1, place[..., None].expand(-1, -1, 6))


def pairwise_iou(corners: Tensor) -> Tensor:
    """Return (B, N, N) the IoU of boxes (B, N, 4) with each other; 0 of boxes without an area."""
    one, other = corners[:, :, None], corners[:, None]
    shared = (torch.minimum(one, other)[..., 2:] - torch.maximum(one, other)[..., :2]).clamp(min=0).prod(dim=-1)
    area = (corners[..., 2:] - corners[..., :2]).prod(dim=-1)
    return shared / (area[:, :, None] + area[:, None] - shared).clamp(min=1e-12)
