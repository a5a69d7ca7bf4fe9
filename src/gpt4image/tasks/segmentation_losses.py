"""What masks, tags and boxes teach a segmentation model: targets of a batch, and a loss of each.

Legend: B images of a batch, K classes, D boxes of an image, S side of masks in pixels, h and w sides of the outputs in
cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.data.regions import NO_ANNOTATION, VOID
from gpt4image.parallel.processes import gather
from gpt4image.tasks.detection import without_boxes
from gpt4image.tasks.multilabel import binary_loss

LEAST_LOG = -1e4
"""Stands in for log 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelTargets:
    """Targets of a batch.

    Attributes:
        masks: (B, S, S) uint8 classes, VOID where none is known.
        presence: (B, 2, K) float32: how much an image counts for a class, and how much of that says "present".
        background: the class that nobody is asked for; -1 for none.
        share: (B,) float32: part of the whole mask that is background, where ``masks`` may be cut; NaN without one.
        boxes: (B, D, 6) float32 as of ``Boxes.padded``, of images without a mask; None if no image has boxes.
    """

    masks: Tensor
    presence: Tensor
    background: int
    share: Tensor
    boxes: Tensor | None = None

    def to(self, device: torch.device) -> PixelTargets:
        """Return them on a device."""
        masks, presence, share = (tensor.to(device) for tensor in (self.masks, self.presence, self.share))
        boxes = None if self.boxes is None else self.boxes.to(device)
        return replace(self, masks=masks, presence=presence, share=share, boxes=boxes)

    def without(self, images: Tensor) -> PixelTargets:
        """Return targets in which some images (B,) count for nothing."""
        rows = images[:, None, None]
        return replace(
            self,
            masks=self.masks.masked_fill(rows, VOID),
            presence=self.presence.masked_fill(rows, 0.0),
            share=self.share.masked_fill(images, torch.nan),
            boxes=None if self.boxes is None else without_boxes(self.boxes, images),
        )


def pixel_loss(logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of pixels, the mean over those of all masks on all processes."""
    pixels = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(pixels, masks.long(), ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
    sums = gather(torch.stack([total, (masks != VOID).sum().to(total.dtype)])[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=1.0)


def presence_loss(logits: Tensor, targets: PixelTargets) -> Tensor:
    """Loss of what images are known to show, on all processes::

        q = softmax(logits[i, :, cell]);  p = softmax(logits[i, k != background, cell]);  z[k] = log(p[k] / (1 - p[k]))
        score(i, k) = mean of z[k] over the cells of image i, each weighted by p[k] / (1 - p[k]) * (1 - q[background])
        loss = binary_loss(score, presence)

    Nobody is asked for the background, and tags must not take cells from it: only masks teach what belongs to it. So it
    has no part in p, unless there is only one other class, and q gives no gradient.

    Returns:
        Scalar >= 0, the same on every process; 0 where nothing is known.
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

    Tags say nothing of how much is background. In a long run the model knows the masks by heart, and a class that
    nearly all images show spreads over the background of images without one. So the share of the background is held
    there: expectation regularization (Mann and McCallum 2007, "Simple, robust, scalable semi-supervised learning").

    Returns:
        Scalar >= 0, the same on every process; 0 where there is no background, or no image of one of both kinds.
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


def box_loss(logits: Tensor, boxes: Tensor, background: int) -> Tensor:
    """Loss of the boxes of images without a mask, on all processes::

        p = softmax(logits[i, :, cell])
        outside = mean over cells of -log(sum of p[k] over background and the classes of the boxes around the cell)
        inside = mean over boxes, by weight, of the mean over their rows and columns of -log(max of p[class] in it)
        loss = outside + inside

    No class is where it has no box, and each row and column of a box holds some of its object, since boxes are tight
    (Lempitsky et al. 2009, "Image segmentation with a bounding box prior"; Hsu et al. 2019). A box of weight 0 only
    allows its class.

    Args:
        logits: (B, K, h, w) float32 or better.
        boxes: (B, D, 6) as of ``Boxes.padded``.
        background: its class; -1 for none, where cells outside all boxes count for nothing.

    Returns:
        Scalar >= 0, the same on every process; 0 where no image has boxes.
    """
    log_p = F.log_softmax(logits, dim=1)
    height, width = logits.shape[2:]
    y, x = ((torch.arange(side, device=logits.device) + 0.5) / side for side in (height, width))
    left, top, right, bottom, numbers, weights = boxes.to(logits.dtype).unbind(dim=2)
    real, classes = numbers >= 0, numbers.clamp(min=0).long()
    columns = (x > left[..., None]) & (x < right[..., None]) & real[..., None]  # (B, D, w)
    rows = (y > top[..., None]) & (y < bottom[..., None]) & real[..., None]  # (B, D, h)
    around = rows[..., :, None] & columns[..., None, :]  # (B, D, h, w)
    of_class = F.one_hot(classes, logits.shape[1]).to(logits.dtype)
    allowed = torch.einsum("bdk,bdhw->bkhw", of_class, around.to(logits.dtype)) > 0
    if background >= 0:
        allowed[:, background] = True
    counts = allowed.any(dim=1) & (numbers[:, 0] != NO_ANNOTATION)[:, None, None]
    possible = torch.where(allowed, log_p, LEAST_LOG).logsumexp(dim=1)
    outside = -torch.where(counts, possible, 0.0).sum()

    own = log_p.gather(1, classes[..., None, None].expand(-1, -1, height, width))
    own = torch.where(around, own, LEAST_LOG)
    lines = torch.cat([own.amax(dim=3), own.amax(dim=2)], dim=2)  # (B, D, h + w)
    held = torch.cat([rows & columns.any(dim=2, keepdim=True), columns & rows.any(dim=2, keepdim=True)], dim=2)
    length = held.sum(dim=2)
    means = -torch.where(held, lines, 0.0).sum(dim=2) / length.clamp(min=1)
    weights = torch.where(length > 0, weights, 0.0)
    inside = (weights * means).sum()

    totals = torch.stack([outside, counts.sum().to(outside.dtype), inside, weights.sum()])
    sums = gather(totals[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=1.0) + sums[2] / sums[3].clamp(min=1.0)
