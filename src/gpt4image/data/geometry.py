"""Crop, shift and flip of the images of a batch: chosen once, applied to pixels, boxes and masks alike.

Legend: B images, C channels, D boxes, S stored side, T target side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where each image of a batch is cut, and whether it is flipped.

    Attributes:
        size: T.
        flipped: (B,) bool, which images are mirrored left to right.
        place: for shifts (B, T) int64 each, the stored row and column that each target row and column shows; for crops
            that are resized (B, 2, 3) float32, as of ``affine_grid``.
        window: (B, 4) float32, the part of the stored image that is shown: left, top, right, bottom as fractions of it.
    """

    size: int
    flipped: Tensor
    place: tuple[Tensor, Tensor] | Tensor
    window: Tensor

    @classmethod
    def shift(cls, offsets: Tensor, flipped: Tensor, side: int, size: int) -> Geometry:
        """Return shifts by ``offsets`` (B, 2, 1) int64 pixels (rows, columns) from the centre; borders are mirrored.

        ``flipped`` is (B,) bool, ``side`` S and ``size`` T.
        """
        rows, columns = (torch.arange(size) + (side - size) // 2 + offsets).unbind(1)
        corner = torch.stack([columns[:, 0], rows[:, 0]], dim=1)
        window = torch.cat([corner, corner + size], dim=1) / side
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
        return cls(size=size, flipped=flipped, place=(_mirrored(rows, side), _mirrored(columns, side)), window=window)

    @classmethod
    def crop(cls, centre: Tensor, extent: Tensor, flipped: Tensor, size: int) -> Geometry:
        """Return crops that are resized to T x T.

        Args:
            centre: (B, 2) float32 (x, y), -1 to 1 from left to right and from top to bottom.
            extent: (B, 2) float32 (width, height) as parts of the stored sides.
            flipped: (B,) bool.
            size: T.
        """
        sign = 1 - 2 * flipped.float()
        theta = torch.zeros(len(centre), 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = extent[:, 0] * sign, centre[:, 0]
        theta[:, 1, 1], theta[:, 1, 2] = extent[:, 1], centre[:, 1]
        middle = (centre + 1) / 2
        window = torch.cat([middle - extent / 2, middle + extent / 2], dim=1)
        return cls(size=size, flipped=flipped, place=theta, window=window)

    def pixels(self, images: Tensor) -> Tensor:
        """Return (B, C, T, T) of images (B, C, S, S): of the same dtype for shifts, float32 for resized crops."""
        return self._moved(images, "bilinear")

    def masks(self, masks: Tensor) -> Tensor:
        """Return (B, T, T) of masks (B, S, S) of the same dtype; no value is averaged with another."""
        return self._moved(masks[:, None], "nearest")[:, 0].to(masks.dtype)

    def boxes(self, corners: Tensor) -> Tensor:
        """Return where boxes (B, D, 4) are in the target: left, top, right, bottom as fractions of it.

        Parts outside lie below 0 or above 1; what a mirrored border shows of a box again is not another box.
        """
        window = self.window.to(corners)[:, None]
        moved = (corners.unflatten(2, (2, 2)) - window[..., None, :2]) / (window[..., 2:] - window[..., :2])[
            ..., None, :
        ]
        x, y = moved.unbind(-1)
        x = torch.where(self.flipped.to(corners.device)[:, None, None], 1 - x.flip(2), x)
        return torch.stack([x, y], dim=-1).flatten(2)

    def _moved(self, images: Tensor, mode: str) -> Tensor:
        if isinstance(self.place, tuple):
            rows, columns = (index.to(images.device) for index in self.place)
            count, channels, _, side = images.shape
            planes = torch.arange(count * channels, device=images.device)[:, None] * side
            chosen = (planes + rows.repeat_interleave(channels, dim=0)).flatten()
            # A stored row is copied as one piece, which takes a fifth of the time of gathering pixel by pixel.
            kept = images.reshape(-1, side).index_select(0, chosen).view(count, channels, -1, side)
            return kept.gather(3, columns[:, None, None].expand(*kept.shape[:3], -1))
        shape = [len(images), images.shape[1], self.size, self.size]
        grid = F.affine_grid(self.place.to(images.device), shape, align_corners=False)
        floats = images.float().contiguous(memory_format=torch.channels_last)
        return F.grid_sample(floats, grid, mode=mode, padding_mode="reflection", align_corners=False)


def _mirrored(index: Tensor, side: int) -> Tensor:
    folded = index.abs()
    return torch.where(folded >= side, 2 * (side - 1) - folded, folded).clamp(0, side - 1)
