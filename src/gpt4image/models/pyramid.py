"""Feature pyramids over any timm classifier: what dense tasks, detection and segmentation, build on.

A model with stages gives maps of several strides, which an FPN joins (Lin et al. 2017, arXiv 1612.03144). A plain ViT
has one stride; its last map is enlarged and shrunk (Li et al. 2022, arXiv 2203.16527).

Legend: B images, C channels of the pyramid, S side of the input in pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from gpt4image.base.errors import ModelError, first_line
from gpt4image.models.hugging_face import STRIDE

WIDEST = 256
"""Channels of a pyramid at most; narrower models get fewer."""


class Stage(NamedTuple):
    """A map of a model: its number in ``forward_intermediates``, its channels, and how many cells a side has."""

    number: int
    channels: int
    side: int


class PyramidModel(nn.Module):
    """A timm classifier with a feature pyramid over its stages; subclasses add a head.

    Weights of the classifier keep their names behind ``backbone.``, and it still gives its logits, whose input is the
    pooled feature that texts are aligned to. What is asked of a timm model is asked of it here.

    Args:
        backbone, size: a timm classifier, and S.
        finest: stride of the finest map in pixels, if the model has one as fine; a power of 2.
        coarsest: largest stride of a map; maps that the model lacks are made by convolutions of stride 2, until a map
            has two cells a side.
        width: C; without it, what suits the model.
    """

    def __init__(
        self, backbone: nn.Module, size: int, *, finest: int = 8, coarsest: int = 32, width: int | None = None
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.classifies = True
        """Whether the classifier runs too. Only texts that are aligned need it: a file to deploy goes without."""
        stages = stages_of(backbone, size)
        self.plain = len(stages) == 1
        if not self.plain:
            stages = [stage for stage in stages if stage.side <= size // finest] or stages[-1:]
        self.indices = [stage.number for stage in stages]
        self.width = width or min(WIDEST, -(-stages[-2:][0].channels // 32) * 32)
        sides = [stage.side for stage in stages]
        ups = 0
        if self.plain:
            while size // (sides[0] * 2) >= finest:
                sides, ups = [sides[0] * 2, *sides], ups + 1
        given = len(sides)
        while sides[-1] > 2 and 2 * size / sides[-1] <= coarsest:
            sides.append(-(-sides[-1] // 2))
        self.sides = tuple(sides)
        """Cells a side of each map, finest first."""
        more = Coarser(self.width, len(sides) - given)
        self.levels = (
            PlainPyramid(stages[0].channels, self.width, ups, more)
            if self.plain
            else FeaturePyramidNetwork([stage.channels for stage in stages], self.width, more)
        )

    def read(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return the maps of the pyramid, (B, C, side, side) each, finest first; and logits, if it ``classifies``."""
        if self.classifies:
            maps, last = self.forward_features(images)
            return maps, self.backbone.forward_head(last)
        wanted = {"indices": self.indices, "norm": self.plain, "intermediates_only": True}
        return self._joined(self.backbone.forward_intermediates(images, **wanted)), None

    def forward_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps of the pyramid, and what the classifier pools."""
        last, maps = self.backbone.forward_intermediates(images, indices=self.indices, norm=self.plain)
        return self._joined(maps), last

    def _joined(self, maps: list[Tensor]) -> list[Tensor]:
        if isinstance(self.levels, PlainPyramid):
            return self.levels(maps[-1])
        return list(self.levels({str(i): part for i, part in enumerate(maps)}).values())

    def __getattr__(self, name: str) -> Any:
        """Return what is asked of the classifier, such as ``get_classifier`` or ``pretrained_cfg``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("backbone"), name)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}


class PlainPyramid(nn.Module):
    """Maps of several strides from the one map of a plain ViT, the simple feature pyramid of Li et al. 2022."""

    def __init__(self, channels: int, width: int, ups: int, coarser: Coarser) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                *(nn.ConvTranspose2d(channels, channels, 2, stride=2) for _ in range(count)),
                *(nn.Conv2d(channels, width, 1), nn.GroupNorm(1, width), nn.Conv2d(width, width, 3, padding=1)),
            )
            for count in range(ups, -1, -1)
        )
        self.coarser = coarser

    def forward(self, last: Tensor) -> list[Tensor]:
        """Return the maps, finest first, of the last map (B, channels, side, side)."""
        return self.coarser([branch(last) for branch in self.branches], [], [])[0]


class Coarser(ExtraFPNBlock):
    """Coarser maps than a model has: each from the one before by a convolution of stride 2."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(count))

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Return all maps with the new ones behind them, and a name for each, as torchvision's FPN wants them."""
        found = list(results)
        for number, convolution in enumerate(self.convolutions):
            found.append(convolution(found[-1] if number == 0 else found[-1].relu()))
        return found, [*names, *(f"more{number}" for number in range(len(self.convolutions)))]


def stages_of(backbone: Any, size: int) -> list[Stage]:
    """Return the last feature map of each resolution of a timm model, the finest first; one blank image is read."""
    name = type(backbone).__name__
    if not hasattr(backbone, "forward_intermediates"):
        raise ModelError(f"{name} does not give its feature maps (timm's forward_intermediates): take another --model.")
    device = next(backbone.parameters()).device
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            _, maps = backbone.forward_intermediates(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(f"{name} does not give feature maps of {size} pixels: {first_line(error)}") from None
    finally:
        backbone.train(training)
    if any(found.ndim != 4 or found.shape[2] != found.shape[3] for found in maps):
        raise ModelError(f"{name} gives no square feature maps at {size} pixels: take another --model.")
    last = {found.shape[2]: Stage(number, found.shape[1], found.shape[2]) for number, found in enumerate(maps)}
    return [last[side] for side in sorted(last, reverse=True)]


PIXEL_WIDTH, GROUPS = 64, 8


class Segmenter(PyramidModel):
    """Images (B, 3, S, S) to logits (B, K, S // STRIDE, S // STRIDE): the head of a panoptic FPN.

    Kirillov et al. 2019, arXiv 1901.02446. The classifier has no part in the logits of cells: it sees the whole
    picture, and would tell that a class is there, but not where.
    """

    def __init__(self, backbone: nn.Module, size: int) -> None:
        super().__init__(backbone, size, finest=STRIDE, coarsest=1, width=PIXEL_WIDTH)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(PIXEL_WIDTH, PIXEL_WIDTH, 3, padding=1, bias=False),
                nn.GroupNorm(GROUPS, PIXEL_WIDTH),
                nn.ReLU(),
            )
            for _ in self.sides
        )
        self.of_cells = nn.Conv2d(PIXEL_WIDTH, self.backbone.num_classes, 1)

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
