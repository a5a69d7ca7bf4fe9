"""RT-DETRv2 (Lv et al. 2024, arXiv 2407.17140) of transformers, and the loss of its sets of boxes.

Each layer predicts a set of boxes, and the matcher of transformers gives each true box one of them. The loss is that of
transformers too, in a form in which boxes have weights and ignored regions count for nothing. There are no denoising
queries: a model here sees no targets.

Legend: B images, L layers (first the encoder), Q queries, K classes, D boxes of an image. Places are fractions of the
picture.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

from gpt4image.data.regions import NO_ANNOTATION
from gpt4image.parallel.processes import gather

SIDES = 4
"""Numbers of an output beside the class logits: centre, width and height."""
ALPHA, GAMMA = 0.75, 2.0
"""Of the varifocal loss (arXiv 2008.13367): weight and focusing exponent of what is no object."""
L1, GIOU = 5.0, 2.0
"""Weights of the losses of boxes; the one of classes is 1."""


class RtDetr(nn.Module):
    """Images (B, 3, S, S) to outputs (B, L, Q, K + SIDES): class logits and boxes of every layer.

    The pooled feature that texts are aligned to is the mean of what the encoder's score layer reads.

    Args:
        network: an ``RTDetrV2ForObjectDetection``; only what it trains without denoising is kept.
    """

    pretrained_cfg: ClassVar[dict[str, Any]] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    """How images are normalised: not at all."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.model
        self.network.generate_anchors = functools.partial(_anchors, type(network.model))

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.network(images)
        logits = torch.cat([found.enc_topk_logits[:, None], found.intermediate_logits], dim=1)
        boxes = torch.cat([found.enc_topk_bboxes[:, None], found.intermediate_reference_points], dim=1)
        return torch.cat([logits, boxes], dim=-1)

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """Return the layers that give logits."""
        return self.network.enc_score_head, *self.network.decoder.class_embed


def _anchors(kind: Any, shapes: Any, *, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the anchors in float32 at least: all boxes follow from them, and bfloat16 has steps of 2 pixels in 640."""
    return kind.generate_anchors(kind, shapes, device=device, dtype=torch.promote_types(dtype, torch.float32))


def set_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Varifocal loss of the classes, L1 and GIoU loss of the boxes, summed over layers, per object::

        (sum over layers and queries: w * varifocal(p, IoU) + (1 - w) * varifocal(p, 0) + w * boxes) / sum(w)

    A box of weight w < 1 is there with probability w. Queries without a box whose centre is in an ignored region count
    for nothing. The sums are those of all processes.

    Args:
        outputs: (B, L, Q, K + SIDES) of an ``RtDetr``.
        targets: (B, D, 6) left, top, right, bottom, class, weight, as of ``Boxes.padded``.

    Returns:
        Scalar >= 0, the same on every process.
    """
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    objects = (targets[..., 4] >= 0) & (targets[..., 5] > 0)
    total = torch.stack([_layer_loss(layer, targets, objects) for layer in outputs.unbind(dim=1)]).sum()
    sums = gather(torch.stack([total, targets[..., 5][objects].sum().to(total)])[None]).sum(dim=0)
    return sums[0] / sums[1].clamp(min=1.0)


def _layer_loss(outputs: Tensor, targets: Tensor, objects: Tensor) -> Tensor:
    """Return the sum over the queries of one layer, of outputs (B, Q, K + SIDES)."""
    logits, boxes = outputs.split([outputs.shape[-1] - SIDES, SIDES], dim=-1)
    image, query, own = matched(logits.detach(), boxes.detach(), targets, objects)
    counts = _background(boxes.detach(), targets)
    counts[image, query] = True
    weights, classes = own[:, 5], own[:, 4].long()
    corners = box_convert(boxes[image, query], "cxcywh", "xyxy")
    overlap = box_iou(corners.detach(), own[:, :4]).diagonal()
    absent = ALPHA * logits.detach().sigmoid() ** GAMMA * F.softplus(logits)
    one = logits[image, query, classes]
    present = overlap * F.binary_cross_entropy_with_logits(one, overlap, reduction="none")
    # Of the class of an object, the term of a background query gives way by its weight.
    both = present - absent[image, query, classes]
    apart = (boxes[image, query] - box_convert(own[:, :4], "xyxy", "cxcywh")).abs().sum(dim=-1)
    places = L1 * apart + GIOU * generalized_box_iou_loss(corners, own[:, :4])
    return (absent.sum(dim=-1) * counts).sum() + (weights * (both + places)).sum()


@torch.no_grad()
def matched(logits: Tensor, boxes: Tensor, targets: Tensor, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each object one query, by the matcher of transformers: return image, query and target row (6) of the pairs.

    Args:
        logits: (B, Q, K).
        boxes: (B, Q, SIDES).
        targets: (B, D, 6).
        objects: (B, D) bool, which of them are objects.
    """
    rows = [own[there].to(boxes) for own, there in zip(targets, objects, strict=True)]
    given = [{"class_labels": own[:, 4].long(), "boxes": box_convert(own[:, :4], "xyxy", "cxcywh")} for own in rows]
    # Boxes that are no numbers would end in an error of transformers; the trainer names the loss that is none.
    pairs = _matcher()({"logits": logits, "pred_boxes": boxes.nan_to_num(0.5)}, given)
    image = torch.cat([torch.full_like(query, number) for number, (query, _) in enumerate(pairs)])
    own = torch.cat([mine[box.to(mine.device)] for mine, (_, box) in zip(rows, pairs, strict=True)])
    return image.to(boxes.device), torch.cat([query for query, _ in pairs]).to(boxes.device), own


def _background(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (B, Q) which queries are background if they have no box: none in images that nobody annotated."""
    ignored = (targets[..., 4] >= 0) & (targets[..., 5] <= 0)
    centre = boxes[:, :, None, :2]
    inside = ((centre > targets[:, None, :, :2]) & (centre < targets[:, None, :, 2:4])).all(dim=-1)
    return ~(inside & ignored[:, None]).any(dim=-1) & (targets[:, :1, 4] != NO_ANNOTATION)


@functools.cache
def _matcher() -> nn.Module:
    from transformers import RTDetrV2Config
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    return RTDetrHungarianMatcher(RTDetrV2Config())
