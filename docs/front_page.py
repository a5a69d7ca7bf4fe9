"""The table of README.md and the plot of docs/research/results.md, from the records."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

from plots import drawing, plain

PLOT = Path(__file__).parent / "images" / "labels-per-class.svg"
PHOTOGRAPHS, PICTOGRAMS = "CIFAR-10 photographs", "OpenMoji pictograms, own categories"
FEW = {
    PHOTOGRAPHS: ("cifar10-asked-4", "cifar10-asked-10", "cifar10-asked-25"),
    PICTOGRAMS: ("openmoji-asked-4", "openmoji-asked-10", "openmoji-asked-25"),
}
"""Records of the plot, by panel, from few labels to many."""
NO_LABEL = {PHOTOGRAPHS: "cifar10-asked-0", PICTOGRAMS: "openmoji-asked-0"}
"""Records of the arms that read no label, with the same seeds."""
READS_NO_LABEL = "zero-shot"
"""The arm whose accuracy does not depend on the labels, so that one comparison serves all of its seeds."""
ARMS = {
    "oracle": ("all labels (reference)", "#5c6570"),
    "asked": ("answers of the LLM", "#1b7f4d"),
    "text-labels": ("text labels", "#0b5fa5"),
    "zero-shot": ("zero-shot by class name", "#7a4fa3"),
    "baseline": ("labels only", "#a9480b"),
}
"""Arms of the plot: what they are called there and their colours."""
COLUMNS = {
    "photographs, 10 per class": ("cifar10-asked-10", "cifar10-rivals", "cifar10"),
    "photographs, 40 % wrong": ("cifar10-asked-wrong-40", "cifar10-rivals", "cifar10"),
    "photographs, 40 % wrong by class": ("cifar10-asked-wrong-40-by-class",),
    "pictograms, 10 per class": ("openmoji-asked-10", "openmoji-few-rivals", "openmoji"),
    "pictograms, 40 % wrong": ("openmoji-asked-wrong-40", "openmoji-few-rivals", "openmoji"),
}
"""Columns of the table and the records of their arms; the first that has an arm counts."""
METHODS = {
    "baseline": "labels only",
    "self-training": "self-training †",
    "fixmatch": "FixMatch †",
    "aligned": "alignment †",
    "zero-shot": "zero-shot by class name",
    "text-labels": "**text labels**",
    "asked": "**answers: asked for the class**",
    "fused": "**answers and text labels fused**",
    "oracle": "all labels (reference)",
}
"""Rows of the table: arms and what they are called there."""
CLOTHES = "clothes/demo"
"""Record of the demo, with the comparisons that its table is made of."""
FEW_LABELS, NO_LABELS, TEN_LABELS = "5 labels per class", "no label", "10 labels per class"
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("labels", "5 per class", FEW_LABELS, "baseline"),
    ("labels", "10 per class", TEN_LABELS, "baseline"),
    ("**the LLM's answers**", "**none**", NO_LABELS, "asked"),
    ("answers, descriptions and labels", "5 per class", FEW_LABELS, "fused"),
    ("all labels (reference)", "all", NO_LABELS, "oracle"),
)
"""Rows of the table of README.md: what the model learned from, human labels, comparison and arm."""


def comparisons(records: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the comparisons of a record by name; a single one has an empty name."""
    record = json.loads((records / f"{name}.json").read_text(encoding="utf-8"))
    return record.get("comparisons", {"": record})


def points(records: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Return what the plot shows: by panel and arm, rows of labels per class, mean, and bounds of the 95 % interval."""
    drawn: dict[str, dict[str, list[list[float]]]] = {}
    for panel, names in FEW.items():
        few = [comparisons(records, name)[""] for name in names]
        of_none = comparisons(records, NO_LABEL[panel])[""]
        drawn[panel] = {arm: [] for arm in ARMS}
        for comparison, arm in product(few, ARMS):
            found = (of_none if arm == READS_NO_LABEL else comparison)["arms"][arm]
            drawn[panel][arm].append([comparison["data"]["labels_per_class"], found["mean"], *found["ci95"]])
    return drawn


def draw(records: Path) -> None:
    """Write the plot, with the same bytes for the same records and matplotlib."""
    from matplotlib.ticker import NullLocator, PercentFormatter

    with drawing(PLOT, points(records), (9, 3.9), 12) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (panel, arms) in zip(axes, points(records).items(), strict=True):
            ticks = [number for number, *_ in arms["baseline"]]
            for arm, rows in arms.items():
                kept, mean, low, high = zip(*rows, strict=True)
                name, colour = ARMS[arm]
                style = "--" if arm in ("oracle", "zero-shot") else "-o"
                axis.fill_between(kept, low, high, color=colour, alpha=0.18, linewidth=0)
                axis.plot(kept, mean, style, color=colour, label=name)
            axis.set(title=panel, xscale="log", xlabel="human labels per class", xticks=ticks, ylim=(0.2, 0.7))
            axis.set_xticklabels([f"{number:g}" for number in ticks])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            plain(axis)
        axes[0].set_ylabel("test accuracy (axis from 20 %)")
        axes[1].legend(loc="lower right", frameon=False)


def table(records: Path) -> str:
    """Return the table of README.md: test accuracy of the small model in the demo, a row per source of labels."""
    found = comparisons(records, CLOTHES)
    lines = ["| the small model learned from | human labels | test accuracy | 95 % interval |", "|---|---|---:|---:|"]
    for source, labels, comparison, name in ROWS:
        arm = found[comparison]["arms"][name]
        low, high = arm["ci95"]
        lines.append(_row(source, labels, arm["mean"], low, high))
    mapped = json.loads((records / f"{CLOTHES}.json").read_text(encoding="utf-8"))["demo"]["imagenet_classes"]
    own = _row(
        "nothing: its ImageNet classes mapped by hand", "none", *(mapped[key] for key in ("accuracy", "low", "high"))
    )
    return "\n".join([*lines[:2], own, *lines[2:]])


def _row(source: str, labels: str, mean: float, low: float, high: float) -> str:
    return f"| {source} | {labels} | {100 * mean:.1f} % | {100 * low:.1f} to {100 * high:.1f} % |"


def overview(records: Path) -> str:
    """Return the table of docs/research/results.md: accuracy in percent, a row per method."""
    lines = [f"| test accuracy, % | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for arm, name in METHODS.items():
        cells = [_cell(records, column, arm) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(records: Path, column: str, arm: str) -> str:
    kept, noise = (10, 0.0) if "10 per class" in column else (None, 0.4)
    kind = "class-dependent" if "by class" in column else "uniform"
    if arm == READS_NO_LABEL:
        return f"{100 * comparisons(records, NO_LABEL[_panel(column)])['']['arms'][arm]['mean']:.1f}"
    for name in COLUMNS[column]:
        for comparison in comparisons(records, name).values():
            data, arms = comparison["data"], comparison["arms"]
            same = (data["labels_per_class"], data["label_noise"]) == (kept, noise) and data["noise_kind"] == kind
            if arm in arms and same:
                return f"{100 * arms[arm]['mean']:.1f}"
    return "–"


def _panel(column: str) -> str:
    return PHOTOGRAPHS if column.startswith("photographs") else PICTOGRAMS
