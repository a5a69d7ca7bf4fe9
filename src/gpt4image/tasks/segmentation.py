"""Semantic segmentation: a class for every pixel, from masks of some images and from what others are known to show.

Images with a mask teach every pixel. Of the others it is enough to know which classes they show, from tags of people or
from a teacher: the pixels that speak most for a class are to say whether it is there, as in Pinheiro and Collobert 2015
(arXiv 1411.6228). Background is a class like any other, except that nobody is asked whether an
image shows it.

Legend: N images of a set, B of a batch, K classes, S side of masks in pixels, h and w sides of the
outputs in cells.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import DataError
from gpt4image.data.dataset import Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import VOID, Masks
from gpt4image.models.hugging_face import STRIDE, OfTransformers
from gpt4image.parallel.processes import gather
from gpt4image.tasks.base import Floats, Labels, Metric, Predictions, Task
from gpt4image.tasks.multilabel import NOT_KNOWN, MultiLabel, binary_loss

UNCUT = 224
"""Side of masks that no geometry gives a size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelTargets:
    """Targets of a batch.

    Attributes:
        masks: (B, S, S) uint8 classes, VOID where none is known.
        presence: (B, 2, K) float32: how much an image counts for a class, and how much of that says "present".
        background: the class that nobody is asked for; -1 for none.
        share: (B,) float32: part of the whole mask that is background, where ``masks`` may be cut; NaN without one.
    """

    masks: Tensor
    presence: Tensor
    background: int
    share: Tensor

    def to(self, device: torch.device) -> PixelTargets:
        """Return them on a device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def without(self, images: Tensor) -> PixelTargets:
        """Return targets in which some images (B,) count for nothing."""
        rows = images[:, None, None]
        return replace(
            self,
            masks=self.masks.masked_fill(rows, VOID),
            presence=self.presence.masked_fill(rows, 0.0),
            share=self.share.masked_fill(images, torch.nan),
        )


def pixel_loss(logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of pixels, the mean over those of all masks on all processes."""
    pixels = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(pixels, masks.long(), ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
    sums = gather(torch.stack([total, (masks != VOID).sum().to(total.dtype)])[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=1.0)


def presence_loss(logits: Tensor, targets: PixelTargets) -> Tensor:
    """Loss of what images are known to show, on all processes; 0 where nothing is known::

        q = softmax(logits[i, :, cell]);  p = softmax(logits[i, k != background, cell]);  z[k] = log(p[k] / (1 - p[k]))
        score(i, k) = mean of z[k] over the cells of image i, each weighted by p[k] / (1 - p[k]) * (1 - q[background])
        loss = binary_loss(score, presence)

    Nobody is asked for the background, and tags must not take cells from it: only masks teach what belongs to it. So it
    has no part in p, unless there is only one other class, and q gives no gradient.
    """
    cells, background = logits.flatten(2), targets.background
    asked = [k for k in range(cells.shape[1]) if k != background]
    log_p = F.log_softmax(cells[:, asked], dim=1) if len(asked) > 1 else F.log_softmax(cells, dim=1)[:, asked]
    # log(p / (1 - p)); the clamp keeps it finite where one class has all
    odds = log_p - _log_of_rest(log_p)
    weights = odds
    if background >= 0:
        weights = odds + _log_of_rest(F.log_softmax(cells.detach(), dim=1)[:, background, None])
    return binary_loss((weights.softmax(dim=2) * odds).sum(dim=2), targets.presence[:, :, asked])


def share_loss(logits: Tensor, targets: PixelTargets, smoothing: float) -> Tensor:
    """Divergence of the background's share of images without a mask from that of masks, on all processes::

        a = mean over images i without a mask, of which something is known, of the mean over cells of
            softmax(logits[i, :, cell])[background]
        s = (1 - smoothing) * mean of share + smoothing / K
        loss = s * log(s / a) + (1 - s) * log((1 - s) / (1 - a))

    Tags say nothing of how much is background, and in a long run a class that nearly all images show spreads over it.
    So its share is held: expectation regularization (Mann and McCallum 2007, "Simple, robust, scalable semi-supervised
    learning"). 0 where there is no background, or no image of one of both kinds.
    """
    if targets.background < 0:
        return logits.new_zeros(())
    found = logits.softmax(dim=1)[:, targets.background].flatten(1).mean(dim=1)
    masked = ~targets.share.isnan()
    weak = ~masked & targets.presence[:, 0].any(dim=1)
    parts = (targets.share.nan_to_num(), masked, found * weak, weak)
    sums = gather(torch.stack([part.sum().to(found.dtype) for part in parts])[None]).sum(dim=0)
    share = (1 - smoothing) * sums[0] / sums[1].clamp(min=1.0) + smoothing / logits.shape[1]
    mean = sums[2] / sums[3].clamp(min=1.0)
    both = (sums[1] > 0) & (sums[3] > 0)
    divergence = F.binary_cross_entropy(mean, share) - F.binary_cross_entropy(share, share)
    return torch.where(both, divergence, 0.0)


def _log_of_rest(log_p: Tensor) -> Tensor:
    return torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))


class Largest(nn.Module):
    """Logits (B, K, h, w) to the most probable class of each pixel of the input, uint8."""

    def forward(self, outputs: Tensor) -> Tensor:
        """Return (B, STRIDE * h, STRIDE * w) classes."""
        pixels = F.interpolate(outputs, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        return pixels.argmax(dim=1).to(torch.uint8)


@dataclass(frozen=True)
class Segmentation(Task):
    """A class out of K per pixel; ``presence`` weighs the losses of images without a mask. Annotations are
    ``Masks``."""

    presence: float = 1.0
    name: ClassVar[str] = "segmentation"
    primary: ClassVar[Metric] = Metric(name="mIoU", title="mean intersection over union")
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="pixel_accuracy", title="pixel accuracy"),)
    image_score: ClassVar[str] = "intersection over union, mean over the classes of the image"
    learns_targets: ClassVar[bool] = True
    no_target: ClassVar[float] = MultiLabel.no_target
    targets_from: ClassVar[tuple[str, ...]] = (MultiLabel.name,)
    in_timm: ClassVar[bool] = False
    hub_task: ClassVar[str] = "image-segmentation"
    output: ClassVar[str] = "mask"
    value: ClassVar[str] = "area"

    def annotations(self, image_set: Dataset) -> Masks:
        if not isinstance(image_set.regions, Masks):
            raise DataError(f"{image_set.spec} has no masks, which --task segmentation needs: give masks:DIR.")
        names = [name.lower() for name in image_set.classes]
        return replace(image_set.regions, background=next((names.index(n) for n in UNSEEN if n in names), -1))

    def require(self, labels: Labels, classes: Sequence[str], spec: str) -> None:
        if len(classes) < 2:
            raise DataError(f"{spec} has masks of {len(classes)} class(es); two are needed, background among them.")

    def model(self, backbone: nn.Module, size: int) -> nn.Module:
        from gpt4image.models.pyramid import Segmenter  # torchvision takes a second: reports need none

        return backbone if isinstance(backbone, OfTransformers) else Segmenter(backbone, size)

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> PixelTargets:
        """Return masks and presence; what the cut mask shows is present, unless void pixels may hide it."""
        whole = torch.from_numpy(labels.pixels(UNCUT if geometry is None else geometry.size))
        masks = whole if geometry is None else geometry.masks(whole)
        tags = labels.presence(outputs).astype(np.float32) if soft is None else soft
        shown = torch.from_numpy(np.nan_to_num(tags, nan=NOT_KNOWN))
        known = torch.from_numpy(labels.known)[:, None]
        counts = [np.bincount(mask.ravel(), minlength=VOID + 1) for mask in masks.numpy()]
        cut = torch.from_numpy(np.reshape(counts, (-1, VOID + 1)) > 0)  # (B, 256), which values masks hold
        hidden = cut[:, VOID, None] & torch.from_numpy(labels.presence(outputs) != 0)
        of_mask = torch.where(hidden & ~cut[:, :outputs], float(NOT_KNOWN), cut[:, :outputs].float())
        shown = torch.where(known, of_mask, shown)
        if labels.background >= 0:
            shown[:, labels.background] = NOT_KNOWN
        sure = torch.where(shown >= 0, (2 * shown - 1).abs(), 0.0)
        presence = torch.stack([sure, sure * (shown >= 0.5)], dim=1)
        share = (whole == labels.background).sum(dim=(1, 2)) / (whole != VOID).sum(dim=(1, 2))  # 0 / 0 without a mask
        return PixelTargets(masks=masks, presence=presence, background=labels.background, share=share)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        return labels.known | self.weak(labels, soft)

    def weak(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        tags: NDArray[np.bool_] = (labels.presence_of_classes if soft is None else soft) >= 0
        return ~labels.known & tags.any(axis=1) & (self.presence > 0.0)

    def with_labels(self, soft: Floats, labels: Labels, trust: float) -> Floats:
        """Return a teacher's probabilities ``beyond_usual``: what all images have alike moves no logits."""
        return MultiLabel().with_labels(beyond_usual(soft), labels, trust)

    def without_target(self, targets: PixelTargets, images: Tensor) -> PixelTargets:
        return targets.without(images)

    def loss(self, outputs: Tensor, targets: PixelTargets, smoothing: float) -> Tensor:
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        total = pixel_loss(outputs, targets.masks, smoothing)
        if self.presence == 0.0:
            return total
        return total + self.presence * (presence_loss(outputs, targets) + share_loss(outputs, targets, smoothing))

    def tail(self) -> nn.Module:
        return Largest()

    def shape(self, classes: int, size: int) -> tuple[int, ...]:
        return (size // STRIDE * STRIDE,) * 2

    def difference(self, ours: Predictions, theirs: Predictions) -> float:
        return float((ours != theirs).mean())

    def agreement(self, ours: Predictions, theirs: Predictions) -> NDArray[np.float64]:
        return (ours == theirs).mean(axis=(1, 2))

    def measured(self, predictions: Predictions, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
        """Return mIoU, pixel accuracy and IoU per class of the pixels of all masks, at predictions' size."""
        count = len(classes)
        total, support = np.zeros((count, count), np.int64), np.zeros(count, np.int64)
        for table in confusions(predictions, labels, count):
            total += table
            support += table.any(axis=1)
        ious, counts = class_ious(total), total.sum()
        metrics = {"mIoU": float(np.nanmean(ious)), "pixel_accuracy": float(np.trace(total) / counts)} if counts else {}
        return {
            **metrics,
            "measured_at": list(predictions.shape[1:]),
            "class_metric": "IoU",
            "support": support.tolist(),
            "per_class": [None if np.isnan(value) else float(value) for value in ious],
        }

    def scores(self, predictions: Predictions, labels: Labels) -> NDArray[np.float64]:
        count = labels.presence_of_classes.shape[1]
        means = [class_ious(table) for table in confusions(predictions, labels, count)]
        return np.array([np.nan if np.isnan(ious).all() else np.nanmean(ious) for ious in means], np.float64)

    def resampled(
        self, columns: Mapping[str, list[Any]], labels: Labels, classes: int, times: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        from PIL import Image

        masks = (np.asarray(Image.open(io.BytesIO(file))) for file in columns["mask"])
        tables = [next(confusions(mask[None], labels[i : i + 1], classes)).ravel() for i, mask in enumerate(masks)]
        totals = (times @ np.stack(tables)).reshape(-1, classes, classes)
        return np.array([np.nanmean(class_ious(total)) for total in totals], np.float64)

    def columns(self, predictions: Predictions, labels: Labels | None) -> Mapping[str, Any]:
        found = {"prediction": [np.unique(mask).tolist() for mask in predictions], "mask": list(map(png, predictions))}
        if labels is None:
            return found
        shown = labels.presence(labels.presence_of_classes.shape[1])
        return {"label": [np.flatnonzero(row == 1).tolist() for row in shown], **found}

    def rows(self, predictions: Predictions, classes: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
        for mask in predictions:
            areas = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
            order = [k for k in np.argsort(-areas, kind="stable").tolist() if areas[k] > 0]
            yield {
                "classes": [classes[k] for k in order[:top]],
                "probabilities": [float(areas[k]) for k in order[:top]],
                "present": [classes[k] for k in order],
            }


def beyond_usual(probabilities: Floats) -> Floats:
    """Return probabilities (N, K) as distances from the mean of their class: 0 and 1 stay, the mean becomes 0.5."""
    known = ~np.isnan(probabilities)
    given = np.where(known, probabilities, 0.0)
    usual = (given.sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)).clip(1e-6, 1 - 1e-6)
    further = np.where(given >= usual, (given - usual) / (1 - usual), given / usual - 1)
    return np.where(known, (1 + further) / 2, np.nan).astype(np.float32)


def png(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask (S, S) as a PNG file of one number per pixel."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def confusions(predictions: Predictions, labels: Masks, classes: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each image with a mask the (K, K) pixels of each class (row) that are taken for each (column)."""
    for i in np.flatnonzero(labels.known):
        truth = labels[i : i + 1].pixels(predictions.shape[1])[0]
        counts = truth != VOID
        pairs = truth[counts].astype(np.int64) * classes + predictions[i][counts]
        yield np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_ious(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (K,) the intersection over union of each class, NaN where the truth lacks it, of a (K, K) confusion."""
    right, truth, taken = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return np.where(truth > 0, right / np.maximum(truth + taken - right, 1), np.nan)
