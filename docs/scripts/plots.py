"""Plots of the pages, from the records: one look, and the numbers inside the file, so that a stale plot is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from records import rows
from tables import sizes

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


PLOTS = {"labels-per-class.svg": (labels_per_class, (9, 3.9)), "scale.svg": (scale, (9, 4.2))}


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
            lines: list[Any] = [line.get_ydata() for axis in figure.axes for line in axis.lines]
            numbers = json.dumps([[round(float(y), 4) for y in line] for line in lines], separators=(",", ":"))
            path = IMAGES / name
            if not path.exists() or numbers not in path.read_text(encoding="utf-8"):
                found.append(path)
                if renew:
                    figure.savefig(path, metadata={"Date": None, "Description": numbers})
    return found
