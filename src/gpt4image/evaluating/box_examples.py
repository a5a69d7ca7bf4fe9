"""Pictures with true and predicted boxes that a report shows, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.base.errors import DamagedError
from gpt4image.base.files import read_parquet, write_json
from gpt4image.base.visible import visible
from gpt4image.data.image_set import ImageSet
from gpt4image.data.regions import Boxes
from gpt4image.pages.cards import PICTURE, Thumbnails

SHOWN = 24
LEAST_SCORE = 0.3
"""Score of the predicted boxes that are drawn."""
NO_CLASS = "none of the classes"
"""Label of an annotated image that shows no class, and prediction of none."""


def write_box_examples(
    path: Path, images: ImageSet, usable: Any, run_dir: Path, name: str, split: str, comparison: str = ""
) -> bool:
    """Write the SHOWN pictures of a split with the lowest scores, and return True; False if the run predicts no boxes.

    Args:
        path: file to write.
        images: N images with boxes.
        usable: (N,) which of them can be decoded, as far as is known.
        run_dir: the run whose predictions of ``split`` are drawn.
        name: of the run.
        split: the held-out split.
        comparison: whose predictions these are, where a report has several.
    """
    truth = images.regions
    if not isinstance(truth, Boxes):
        return False
    try:
        table = read_parquet(run_dir / f"predictions-{split}.parquet", ["key", "score", "boxes"])
    except DamagedError:  # images with boxes may be classified too
        return False
    found: list[dict[str, Any]] = table.to_pylist()
    row_of = {key: row for row, key in enumerate(images.keys)}
    scores = np.array([row["score"] for row in found])
    worst = [found[place] for place in np.argsort(scores, kind="stable") if not np.isnan(scores[place])]
    pictures = Thumbnails(images, 2 * PICTURE)

    def card(row: dict[str, Any]) -> dict[str, Any] | None:
        index = row_of.get(row["key"])
        picture = None if index is None or not usable[index] else pictures.of(index)
        if index is None or picture is None:
            return None
        corners, labels, weights = truth.image(index)
        own = [
            _mark("true", images.classes[label], box, None)
            for box, label, weight in zip(corners, labels.tolist(), weights.tolist(), strict=True)
            if weight > 0
        ]
        predicted = [
            _mark("found", images.classes[int(box[5])], box, box[4]) for box in row["boxes"] if box[4] >= LEAST_SCORE
        ]
        return {
            "key": row["key"],
            "comparison": comparison,
            "label": ", ".join(dict.fromkeys(images.classes[label] for label in labels.tolist())) or NO_CLASS,
            "split": split,
            "picture": picture,
            "boxes": [*own, *predicted],
            "about": f"{name}: {len(predicted)} predicted, {len(own)} true, AP of the picture {row['score']:.2f}",
        }

    cards = (card(row) for row in worst[: 2 * SHOWN])
    write_json(path, [shown for shown in cards if shown][:SHOWN])
    return True


def _mark(kind: str, name: str, box: Sequence[float], score: float | None) -> dict[str, Any]:
    """Return a box in percent of the picture, with its words; a true one has none beside it."""
    left, top, right, bottom = (round(100 * float(np.clip(side, 0, 1)), 2) for side in box[:4])
    words = visible(name) if score is None else f"{visible(name)} {score:.2f}"
    place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {"kind": kind, "label": words if kind == "found" else "", "title": f"{kind}: {words}", "place": place}
