"""Segmentations of COCO files, polygons and run lengths: checked before a library sees them, drawn when asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.box_checks import Corners, number
from gpt4image.data.decode import MAX_PIXELS
from gpt4image.data.regions import VOID

MAX_OUTLINE = 2_000_000
"""Pixels that the outline of one object may be long; drawing takes time and memory by them."""
_REFUSED = (RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError, KeyError)
"""What faster-coco-eval raises for what it cannot read."""
Polygons = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """The region of one object.

    Attributes:
        label: number that its pixels get; VOID for a region that counts for nothing.
        runs: compressed run lengths; empty where there are polygons.
        polygons: corners x, y, x, y and so on, in pixels.
    """

    label: int
    runs: bytes = b""
    polygons: Polygons = ()


def segment(value: object, size: tuple[float, float], label: int) -> Segment | str:
    """Return a segmentation as COCO writes it, or else why it cannot be used; ``size`` is that of its picture."""
    width, height = size
    if not 1 <= width * height <= MAX_PIXELS:
        return f"the size of its picture is missing or above {MAX_PIXELS:,} pixels"
    if isinstance(value, dict):
        runs = _runs(value, int(width), int(height))
        return runs if isinstance(runs, str) else Segment(label=label, runs=runs)
    if not isinstance(value, list) or not value:
        return "there is no segmentation"
    polygons = [_polygon(corners, width, height) for corners in value]
    faults = [fault for fault in polygons if isinstance(fault, str)]
    if faults:
        return faults[0]
    whole = tuple(polygon for polygon in polygons if not isinstance(polygon, str))
    # Each corner is in the picture: many are needed for a long outline, and only then is it measured.
    outline = 0.0
    if sum(map(len, whole)) * (width + height) > MAX_OUTLINE:
        outline = sum(float(np.abs(np.diff(polygon.reshape(-1, 2), axis=0)).sum()) for polygon in whole)
    return Segment(label=label, polygons=whole) if outline <= MAX_OUTLINE else "its outline is too long"


def bounds(value: object, size: tuple[float, float]) -> Corners | str:
    """Return left, top, right, bottom in pixels of a segmentation, or why it cannot be used."""
    found = segment(value, size, 0)
    if isinstance(found, str):
        return found
    if not found.runs:
        points = np.concatenate(found.polygons).reshape(-1, 2)
        left, top, right, bottom = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        return left, top, right, bottom
    from faster_coco_eval.core import mask

    x, y, width, height = mask.toBbox({"size": [int(size[1]), int(size[0])], "counts": found.runs}).tolist()
    return x, y, x + width, y + height


def box_segment(corners: Corners, size: tuple[float, float]) -> Segment | str:
    """Return the region of a box, which counts for nothing, or why the box cannot be used."""
    left, top, right, bottom = corners
    found = segment([[left, top, right, top, right, bottom, left, bottom]], size, VOID)
    if isinstance(found, Segment) and not (np.ptp(found.polygons[0].reshape(-1, 2), axis=0) > 0).all():
        return "its box has no area, or is outside of its picture"
    return found


def reach(value: object) -> tuple[float, float]:
    """Return the largest x and y of a segmentation, or the width and height of its run lengths; NaN without."""
    if isinstance(value, dict):
        size: Any = value.get("size")
        return (number(size[1]), number(size[0])) if isinstance(size, list) and len(size) == 2 else (math.nan, math.nan)
    polygons = [_polygon(corners, math.inf, math.inf) for corners in value] if isinstance(value, list) else []
    furthest = [one.reshape(-1, 2).max(axis=0) for one in polygons if not isinstance(one, str)]
    x, y = np.max(furthest, axis=0).tolist() if furthest else (math.nan, math.nan)
    return x, y


def _runs(value: dict[Any, Any], width: int, height: int) -> bytes | str:
    from faster_coco_eval.core import mask

    if value.get("size") != [height, width]:
        return "its run lengths are of another size than its picture"
    counts: Any = value.get("counts")
    lengths = _lengths(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not lengths:
        return "its run lengths are missing"
    whole = [int(length) for each in lengths if (length := number(each)) >= 0 and length.is_integer()]
    if len(whole) < len(lengths) or sum(whole) != width * height:
        return "its run lengths do not add up to its picture"
    packed: Any = mask.frPyObjects({"size": [height, width], "counts": whole}, height, width)
    return bytes(packed["counts"])


def _lengths(text: str) -> list[int]:
    """Return compressed run lengths as numbers; none where the text is damaged.

    The library refuses lengths that are too many, but not those that are too few. Five bits per letter from "0" on, the
    sixth where the number goes on; from the fourth number on the difference to the last but one.
    """
    codes = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if not len(ends) or ends[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        return []
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        return []
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values.tolist()


def _polygon(corners: object, width: float, height: float) -> NDArray[np.float32] | str:
    try:
        values = np.array(corners if isinstance(corners, list) else [], np.float64)
    except (ValueError, TypeError, OverflowError):
        return "a coordinate is missing or no number"
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        return "a polygon has not three corners or more, x and y each"
    if not np.isfinite(values).all():
        return "a coordinate is missing or no number"
    return np.clip(values.reshape(-1, 2), 0, (width, height)).astype(np.float32).reshape(-1)


class SegmentSource:
    """Masks that are drawn from segments, see ``regions.MaskSource``: small objects over large ones.

    Args:
        sizes: (N, 2) width and height of the pictures.
        segments: those of each picture.
    """

    def __init__(self, sizes: NDArray[np.float64], segments: Sequence[Sequence[Segment]]) -> None:
        self._sizes, self._segments = sizes, segments

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the classes of the pixels: (height, width) uint8, 0 where there is no object."""
        from faster_coco_eval.core import mask

        width, height = (int(side) for side in self._sizes[row])
        pixels = np.zeros((height, width), np.uint8)
        # Objects are sorted by their run lengths, and drawn one at a time: a picture may have hundreds.
        encoded = [(one.label, runs) for one in self._segments[row] if (runs := _encoded(one, width, height))]
        for label, runs in sorted(encoded, key=lambda pair: (pair[0] != VOID, -int(mask.area(pair[1])))):
            pixels[mask.decode(runs).astype(np.bool_)] = label
        return pixels

    def digest(self, row: int) -> str:
        """Return the sha256 hex digest of the segments."""
        content = hashlib.sha256(self._sizes[row].tobytes())
        for one in self._segments[row]:
            parts = [one.runs, *(polygon.tobytes() for polygon in one.polygons)]
            content.update(repr((one.label, [len(part) for part in parts])).encode() + b"".join(parts))
        return content.hexdigest()


def _encoded(one: Segment, width: int, height: int) -> Any:
    """Return the run lengths of a segment as the library takes them; None where they are damaged."""
    from faster_coco_eval.core import mask

    try:
        runs: Any = [{"size": [height, width], "counts": one.runs}]
        if not one.runs:
            runs = mask.frPyObjects([polygon.tolist() for polygon in one.polygons], height, width)
        return mask.merge(runs)
    except _REFUSED:
        return None
