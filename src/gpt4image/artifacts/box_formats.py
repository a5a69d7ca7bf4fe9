"""Coordinates of boxes: read in whichever convention a model writes them, and made fit for use.

Models follow the convention that they were trained with, whatever they are asked for. So the store keeps the numbers as
they were written, and the convention by describer: a wrong one is corrected without asking again.

Legend: N boxes, M other boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.answers import Answer
from gpt4image.config import BOX_FORMATS

AS_ASKED = BOX_FORMATS[0]
"""The convention of the question, and of files."""
BOX_FAULTS = ("unusable", "clipped", "no_area", "duplicates", "whole_image")
"""What may be wrong with boxes. All but the clipped ones are left out."""
_SAME, _BORDER, _ROUNDING = 0.9, 10.0, 1.0  # IoU; thousandths
_PLACES = {"xyxy": (0, 1, 2, 3), "yxyx": (1, 0, 3, 2), "xywh": (0, 1, 2, 3), "yxhw": (1, 0, 3, 2)}


def in_thousandths(answer: Answer, name: str = AS_ASKED, max_side: int | None = None) -> Answer:
    """Return an answer whose boxes are clipped to the image, in thousandths, with what was wrong with them counted.

    Boxes without area, boxes of the same class with an IoU above 0.9, and, beside other boxes, those of the whole image
    are left out. ``max_side`` is the longer side of the image that was sent, where it was made smaller.
    """
    if answer.boxes is None:
        return answer
    sides = (1, 1) if answer.picture is None else answer.picture
    given = corners([box["box_2d"] for box in answer.boxes], name, sides, max_side)
    inside = np.clip(given, 0, 1000).round(3)
    has_area = np.all(inside[:, 2:] > inside[:, :2], axis=1)
    kept = _distinct(inside, [box["label"] for box in answer.boxes], np.flatnonzero(has_area))
    whole = np.all((inside <= _BORDER) == [True, True, False, False], axis=1)
    whole &= np.all((inside >= 1000 - _BORDER) == [False, False, True, True], axis=1)
    chosen = kept[~whole[kept]] if not whole[kept].all() else kept
    faults = dict(answer.box_faults or {}) | {
        "clipped": int((np.abs(given - inside)[chosen] > _ROUNDING).any(axis=1).sum()),
        "no_area": int((~has_area).sum()),
        "duplicates": int(has_area.sum()) - len(kept),
        "whole_image": len(kept) - len(chosen),
    }
    plain = [[int(value) if value == int(value) else value for value in box] for box in inside.tolist()]
    boxes = tuple({**answer.boxes[i], "box_2d": plain[i]} for i in chosen)
    return replace(answer, boxes=boxes, picture=None, box_faults={what: n for what, n in faults.items() if n} or None)


def corners(
    written: Sequence[Sequence[float]], name: str, picture: tuple[int, int], max_side: int | None = None
) -> NDArray[np.float64]:
    """Return boxes (N, 4), written in the convention ``name``, as left, top, right, bottom in thousandths.

    ``picture`` is width and height in pixels: without it, boxes in pixels are empty.
    """
    order, unit = name.split("-")
    found = np.asarray(written, np.float64).reshape(-1, 4)[:, _PLACES[order]]
    if order in ("xywh", "yxhw"):
        found[:, 2:] += found[:, :2]
    if unit in ("1000", "1"):
        return found * (1000 / int(unit))
    sent = sent_size(picture, max_side) if unit == "sent" else picture
    return found * ([1000 / side for side in sent] * 2 if min(sent) > 0 else 0.0)


def sent_size(picture: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return width and height of an image that is sent, with its longer side at most ``max_side``."""
    longer = max(picture)
    if max_side is None or longer <= max_side:
        return picture
    width, height = (max(1, round(side * max_side / longer)) for side in picture)
    return width, height


def overlap(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the IoU of boxes (N, 4) with boxes (M, 4) as (N, M), as torchvision's ``box_iou``, without torch."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    area_a, area_b = (np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b))
    return common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-12)


def box_counts(answers: Iterable[Answer], classes: Iterable[str] = ()) -> dict[str, int]:
    """Return how many boxes answers have, outside the list of ``classes`` too, and with which fault; {} without any."""
    known, counts = frozenset(classes), dict.fromkeys(("boxes", "boxes_outside_list"), 0)
    counts |= {f"boxes_{fault}": 0 for fault in BOX_FAULTS}
    asked = [answer for answer in answers if answer.boxes is not None]
    for answer in asked:
        boxes = answer.boxes or ()
        counts["boxes"] += len(boxes)
        counts["boxes_outside_list"] += sum(bool(known) and box["label"] not in known for box in boxes)
        for fault, count in (answer.box_faults or {}).items():
            counts[f"boxes_{fault}"] += count
    return counts if asked else {}


def _distinct(inside: NDArray[np.float64], labels: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    classes = np.unique(labels, return_inverse=True)[1][rows] if len(rows) else rows
    same = (overlap(inside[rows], inside[rows]) > _SAME) & (classes[:, None] == classes[None])
    kept: list[int] = []
    for place in range(len(rows)):
        if not same[place, kept].any():
            kept.append(place)
    return rows[kept]


def max_side_of(describer: Mapping[str, Any]) -> int | None:
    """Return to how many pixels a describer, by its settings, makes images smaller; None where it does not."""
    side = describer.get("max_side")
    return side if isinstance(side, int) and side > 0 else None


def formats_of(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the conventions of a store by the settings of describers, without those that are not known here."""
    return {settings: name for settings, name in rows if name in BOX_FORMATS}
