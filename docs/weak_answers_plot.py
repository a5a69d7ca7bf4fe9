"""The plot of how right a model is by how right its answers are, from the record of weak answerers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from plots import drawing, plain

RECORD = Path(__file__).parent / "research" / "records" / "where-it-ends" / "weak.json"
PLOT = Path(__file__).parent / "images" / "weak-answers.svg"
SIZE, ANSWERERS = 2_000, ("lite2@3", "lite2@10", "lite2@30", "lite2@100")
LINES = {"": ("answers alone", "#a9480b"), "~pictures+10": ("answers and 10 labels per class", "#0b5fa5")}


def points(_records: Path | None = None) -> dict[str, list[float]]:
    """Return means over seeds, in percent: how right the answers are, and the model by what it learned from."""
    cells = [row for row in json.loads(RECORD.read_text(encoding="utf-8"))["cells"] if row["cell"][2] == SIZE]

    def mean(targets: str, fact: str = "accuracy") -> float:
        return round(100 * float(np.mean([row[fact] for row in cells if row["cell"][3] == targets])), 2)

    found = {"answers": [mean(one, "answers") for one in ANSWERERS]}
    found |= {more: [mean(one + more) for one in ANSWERERS] for more in LINES}
    return found | {targets: [mean(targets)] for targets in ("true", "labels+10")}


def draw(_records: Path) -> None:
    """Write the plot."""
    numbers = points()
    with drawing(PLOT, numbers, (6.4, 4.2), 11) as figure:
        axis, right = figure.subplots(), numbers["answers"]
        for more, (name, colour) in LINES.items():
            axis.plot(right, numbers[more], "-o", color=colour, label=name)
        for targets, name in (("true", "all labels, right"), ("labels+10", "10 labels per class alone")):
            axis.axhline(numbers[targets][0], color="#5c6570", linewidth=1.2)
            axis.annotate(name, (right[-1], numbers[targets][0]), (0, 4), textcoords="offset points", ha="right")
        axis.plot([right[0], right[-1]], [right[0], right[-1]], ":", color="#5c6570", label="as right as the answers")
        axis.set(xlabel="answers that are right, %", ylabel="test accuracy of the model, %")
        plain(axis)
        axis.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 0.06))
