"""Plots of the pages, from the records: one look, and the numbers inside the file, so that a stale plot is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from records import rows
from tables import STUDENTS, gaps, sizes

IMAGES = Path(__file__).resolve().parents[1] / "images"
GREY, BLUE, GREEN, RED, VIOLET = "#5c6570", "#0b5fa5", "#1f7a4d", "#a9480b", "#7a4fa3"
PANELS = {"CIFAR-10 photographs": "cifar10", "OpenMoji pictograms, own categories": "openmoji"}
ARMS = {
    "oracle": ("all labels (reference)", GREY),
    "asked": ("answers of the LLM", GREEN),
    "text-labels": ("text labels", BLUE),
    "zero-shot": ("zero-shot by class name", VIOLET),
    "baseline": ("labels only", RED),
}
WEAK = ("lite2@3", "lite2@10", "lite2@30", "lite2@100")
"""Answerers, by how many labels per class they learned from."""


def labels_per_class(figure: Figure) -> None:
    """Accuracy by labels per class, for each source of labels."""
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (panel, name) in zip(axes, PANELS.items(), strict=True):
        for arm, (label, colour) in ARMS.items():
            records = [f"{name}-asked-{0 if arm == 'zero-shot' else kept}" for kept in (4, 10, 25)]
            found = [rows()[record, "", arm] for record in records]
            lows, highs = zip(*(row.interval for row in found), strict=True)
            axis.fill_between((4, 10, 25), lows, highs, color=colour, alpha=0.18, linewidth=0)
            style = "--" if arm in ("oracle", "zero-shot") else "-o"
            axis.plot((4, 10, 25), [row.mean for row in found], style, color=colour, label=label)
        axis.set(title=panel, xscale="log", xlabel="human labels per class", xticks=(4, 10, 25), ylim=(0.2, 0.7))
        axis.set_xticklabels(["4", "10", "25"])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_ylabel("test accuracy (axis from 20 %)")
    axes[1].legend(loc="lower right", frameon=False)


def scale(figure: Figure) -> None:
    """CPU seconds and largest memory of each stage by number of images."""
    axes = figure.subplots(1, 2)
    for axis, place, title in zip(axes, (1, 2), ("CPU seconds", "largest memory, MB"), strict=True):
        for stage, found in sizes().items():
            axis.plot([row[0] for row in found], [row[place] for row in found], "-o", label=stage, markersize=4)
        axis.set(xscale="log", yscale="log", xlabel="images", ylabel=title)
    axes[0].legend(frameon=False, fontsize=9)


def where_it_ends(figure: Figure) -> None:
    """The errors of the students, and the gaps with their intervals, by number of photographs."""
    left, right = figure.subplots(1, 2)
    for (student, found), colour in zip(gaps("evenly").items(), (BLUE, GREEN, RED), strict=False):
        counts, name = [one.size for one in found], STUDENTS[student]
        left.plot(counts, [100 * (1 - one.true) for one in found], "-o", color=colour, label=f"{name}, true labels")
        left.plot(counts, [100 * (1 - one.answers) for one in found], "--o", color=colour, mfc="white")
        right.plot(counts, [100 * one.gap.mean for one in found], "-o", color=colour, label=name)
        for side in (-1, 1):
            known = [one for one in found if one.gap.low]
            ends = [100 * one.gap.interval[side > 0] for one in known]
            right.plot([one.size for one in known], ends, ":", color=colour, linewidth=1)
    left.plot([], [], "--o", color=GREY, mfc="white", label="the same, answers")
    right.axhline(0, color=GREY, linewidth=1.2)
    for axis, title in ((left, "test error, %"), (right, "gap: answers below true labels, points")):
        axis.set(xscale="log", xlabel="training photographs", ylabel=title)
        axis.set_xticks([2_000, 5_000, 10_000, 20_000, 50_000], ["2k", "5k", "10k", "20k", "50k"])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=8)
    left.set_ylim(0, None)


def weak_answers(figure: Figure) -> None:
    """How right a model is by how right its answers are."""
    axis = figure.subplots()

    def mean(targets: str, cell: str = "accuracy") -> float:
        return 100 * rows()["where-it-ends/weak", f"weak lite0 2000 {targets}", cell].mean

    right = [mean(one, "answers") for one in WEAK]
    for more, name, colour in (("", "answers alone", RED), ("~pictures+10", "answers and 10 labels per class", BLUE)):
        axis.plot(right, [mean(one + more) for one in WEAK], "-o", color=colour, label=name)
    for targets, name in (("true", "all labels, right"), ("labels+10", "10 labels per class alone")):
        axis.axhline(mean(targets), color=GREY, linewidth=1.2)
        axis.annotate(name, (right[-1], mean(targets)), (0, 4), textcoords="offset points", ha="right")
    axis.plot([right[0], right[-1]], [right[0], right[-1]], ":", color=GREY, label="as right as the answers")
    axis.set(xlabel="answers that are right, %", ylabel="test accuracy of the model, %")
    axis.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 0.06))


PLOTS = {
    "labels-per-class.svg": (labels_per_class, (9, 3.9)),
    "scale.svg": (scale, (9, 4.2)),
    "where-it-ends.svg": (where_it_ends, (9, 4.2)),
    "weak-answers.svg": (weak_answers, (6.4, 4.2)),
}


def stale(*, renew: bool) -> list[Path]:
    """Return the plots whose file shows other numbers than the records, and draw these anew if ``renew``."""
    found: list[Path] = []
    with mpl.rc_context({"svg.hashsalt": "gpt4image", "svg.fonttype": "path", "font.size": 11}):
        for name, (draw, inches) in PLOTS.items():
            figure = Figure(figsize=inches, layout="constrained")
            draw(figure)
            for axis in figure.axes:
                axis.grid(color="#dddcd6", linewidth=0.7)
                axis.spines[["top", "right"]].set_visible(False)
            numbers, path = _numbers(figure), IMAGES / name
            if not path.exists() or numbers not in path.read_text(encoding="utf-8"):
                found.append(path)
                if renew:
                    figure.savefig(path, metadata={"Date": None, "Description": numbers})
    return found


def _numbers(figure: Figure) -> str:
    lines: list[Any] = [[round(float(y), 4) for y in line.get_ydata()] for axis in figure.axes for line in axis.lines]  # pyright: ignore
    return json.dumps(lines, separators=(",", ":"))
