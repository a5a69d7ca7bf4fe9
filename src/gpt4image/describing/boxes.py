"""Boxes that a describer wrote: the convention of their coordinates, found on human boxes, and what was wrong."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.answers import AS_ASKED, Description, box_counts, corners, max_side_of, overlap
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import DescriberError
from gpt4image.config import BOX_FORMATS
from gpt4image.data import Dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.answer_json import CUT_OFF

IMAGES_PROBED = 32
LEAST_IOU = 0.5
FEWEST_PAIRS = 5
"""Human boxes with a box of the describer, without which the convention of the question is taken."""


def probed_images(images: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return a few training images with human boxes, by digest: always the same ones, with their boxes (n, 4).

    Of masks these are boxes around classes in one piece: several objects have a box each, in answers.
    """
    regions = images.regions
    if regions is None:
        return {}
    drawn = regions.only(regions.weights > 0) if isinstance(regions, Boxes) else regions
    shown = np.diff(drawn.starts) > 0 if isinstance(drawn, Boxes) else drawn.known
    rows = np.flatnonzero((images.splits == "train") & shown).tolist()
    chosen = sorted(rows, key=lambda row: images.digests[row][-16:])[:IMAGES_PROBED]
    boxes = drawn[chosen] if isinstance(drawn, Boxes) else drawn[chosen].around()
    return {images.digests[row]: boxes.image(i)[0].astype(np.float64) * 1000 for i, row in enumerate(chosen)}


def find_box_format(store: DescriptionStore, settings: Mapping[str, Any], images: Dataset) -> dict[str, Any]:
    """Note in the store in which convention the boxes of a describer fit the human ones best, and return how well.

    Nothing is noted or returned where too few answers are about images with human boxes. Raises DescriberError.
    """
    from scipy.optimize import linear_sum_assignment

    if not (human := probed_images(images)):
        return {}
    own = max_side_of(settings)
    overlaps: dict[str, list[float]] = {name: [] for name in BOX_FORMATS}
    for stored in store.answers(digests=sorted(human), describer=settings, as_written=True):
        answer = stored.answer
        if answer.boxes and answer.picture is not None:
            written = [box["box_2d"] for box in answer.boxes]
            for name, found in overlaps.items():
                there = np.clip(corners(written, name, answer.picture, own), 0, 1000)
                shared = overlap(human[stored.digest], there)
                found += shared[linear_sum_assignment(shared, maximize=True)].tolist()
    pairs = len(overlaps[AS_ASKED])
    if pairs < FEWEST_PAIRS:
        return {}
    means = {name: round(float(np.mean(found)), 3) for name, found in overlaps.items()}
    best = max(means, key=means.__getitem__)  # of equal ones the first, so that of the question
    if means[best] < LEAST_IOU:
        table = ", ".join(f"{name} {mean:.2f}" for name, mean in sorted(means.items(), key=lambda item: -item[1]))
        raise DescriberError(
            f"The boxes of this describer fit {pairs} human boxes in no convention: {table}. That is the mean IoU, of "
            f"which {LEAST_IOU} is needed. Look at them with `gpt4image inspect`. To take a convention all "
            f"the same, give --box-format, e.g. {best}; no answer is paid for again."
        )
    store.set_box_format(settings, best, {"pairs": pairs, "iou": means})
    return {"box_format_iou": means[best], "box_format_human_boxes": pairs}


def box_facts(result: Description, classes: Iterable[str] = ()) -> dict[str, int]:
    """Return what ``box_counts`` says of a result, and whether it was cut off within its boxes; {} without any."""
    if result.answer is None or result.answer.boxes is None:
        return {}
    return box_counts([result.answer], classes) | {"boxes_cut_off": int(result.finish_reason == CUT_OFF)}
