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

    ``place`` is for shifts (B, T) int64 each, the stored row and column of each target one; for resized crops (B, 2, 3)
    float32, as of ``affine_grid``. ``window`` (B, 4) is the part that is shown, as fractions of the stored
    image: left, top, right, bottom. ``flipped`` (B,) bool says which are mirrored left to right; ``size`` is T.
    """

    size: int
    flipped: Tensor
    place: tuple[Tensor, Tensor] | Tensor
    window: Tensor

    @classmethod
    def shift(cls, offsets: Tensor, flipped: Tensor, side: int, size: int) -> Geometry:
        """Return shifts by ``offsets`` (B, 2, 1) int64 pixels (rows, columns) from the centre; borders are mirrored."""
        rows, columns = (torch.arange(size) + (side - size) // 2 + offsets).unbind(1)
        corner = torch.stack([columns[:, 0], rows[:, 0]], dim=1)
        window = torch.cat([corner, corner + size], dim=1) / side
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
        return cls(size=size, flipped=flipped, place=(_mirrored(rows, side), _mirrored(columns, side)), window=window)

    @classmethod
    def crop(cls, centre: Tensor, extent: Tensor, flipped: Tensor, size: int) -> Geometry:
        """Return crops that are resized to T x T.

        ``centre`` (B, 2) float32 is (x, y) from -1 to 1, ``extent`` (B, 2) width and height as parts of the stored
        sides.
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
        """Return where boxes (B, D, 4) are in the target, as fractions of it; parts outside lie below 0 or above 1."""
        window = self.window.to(corners)[:, None]
        sides = window[..., 2:] - window[..., :2]
        moved = (corners.unflatten(2, (2, 2)) - window[..., None, :2]) / sides[..., None, :]
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
