"""Semantic segmentation on any timm classifier: the head of a panoptic FPN over the maps of its stages.

Kirillov et al. 2019, arXiv 1901.02446: each map of the pyramid is convolved, enlarged to the finest and added; a last
convolution gives the logits of each cell. The classifier, which sees the whole picture, has no part in them: added to
every cell, its logits would tell that a class is there, but not where.

Legend: B images, K classes, C channels of the pyramid, S side of the input in pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gpt4image.models.hugging_face import STRIDE
from gpt4image.models.pyramid import PyramidModel

WIDTH, GROUPS = 64, 8


class Segmenter(PyramidModel):
    """Images (B, 3, S, S) to logits (B, K, S // STRIDE, S // STRIDE).

    Args:
        backbone: a timm classifier of K classes.
        size: S.

    Raises:
        ModelError: the model does not give its feature maps.
    """

    def __init__(self, backbone: nn.Module, size: int) -> None:
        super().__init__(backbone, size, finest=STRIDE, coarsest=1, width=WIDTH)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, WIDTH), nn.ReLU())
            for _ in self.sides
        )
        self.of_cells = nn.Conv2d(WIDTH, self.backbone.num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each cell."""
        maps, whole = self.read(images)
        finest = maps[0].shape[2:]
        parts = [_enlarged(branch(found), finest) for branch, found in zip(self.branches, maps, strict=True)]
        logits = self.of_cells(sum(parts[1:], parts[0]))
        if whole is not None:  # so that each parameter has a gradient, which DistributedDataParallel waits for
            logits = logits + 0.0 * whole[:, :, None, None]
        return _enlarged(logits, (images.shape[2] // STRIDE, images.shape[3] // STRIDE))


def _enlarged(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps (B, C, h, w) at another size, by bilinear interpolation."""
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)
