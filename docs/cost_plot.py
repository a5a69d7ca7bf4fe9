"""The plot of docs/cost.md, from the records: test accuracy against what labels, descriptions and answers cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from front_page import comparisons

PLOT = Path(__file__).parent / "images" / "points-per-dollar.svg"
IMAGES, CLASSES = 2_000, 10
LABEL_DOLLARS = (0.02, 0.10)
"""Lowest and highest price of a human label of one image."""
TOKENS_IN, OUT_OF_DESCRIPTION, OUT_OF_ANSWER = 1_100, 130, 40
"""Tokens per call, as docs/cost.md assumes them; a class answer is JSON of a class, a second one and a confidence."""
DOLLARS_PER_MILLION = (0.40, 1.60)
"""Tokens in and out of gpt-4.1-mini, price list of November 2026."""
ALONE, TEXTS, ANSWERS, BOTH = "human labels only", "labels and descriptions", "answers", "labels, answers, descriptions"
COLOURS = {ALONE: "#a9480b", TEXTS: "#0b5fa5", ANSWERS: "#1f7a4d", BOTH: "#7a4fa3"}
TAKEN: tuple[tuple[str, str, str, str, int], ...] = (
    ("cifar10-few-and-wrong-10-rest", "labels-4", "baseline", ALONE, 0),
    ("cifar10-few-and-wrong-10", "labels-10", "baseline", ALONE, 0),
    ("cifar10-few-and-wrong-10-rest", "labels-25", "baseline", ALONE, 0),
    ("cifar10-few-and-wrong-10", "labels-10", "oracle", ALONE, 0),
    ("cifar10-few-and-wrong-10-rest", "labels-4", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-few-and-wrong-10", "labels-10", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-few-and-wrong-10-rest", "labels-25", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-asked-0", "", "asked", ANSWERS, OUT_OF_ANSWER),
    ("cifar10-asked-10", "", "asked", ANSWERS, OUT_OF_ANSWER),
    ("cifar10-asked-10", "", "fused", BOTH, OUT_OF_DESCRIPTION + OUT_OF_ANSWER),
)
"""Points: record, comparison in it, arm, what it is called here, and tokens out of a call; 0 where nobody is asked."""


class Point(NamedTuple):
    """Human labels in all, test accuracy, and US dollars at the lowest and at the highest price of a label."""

    labels: int
    accuracy: float
    dollars: tuple[float, float]


def points(records: Path) -> dict[str, list[Point]]:
    """Return the points by what they are called, from few labels to many."""
    found: dict[str, list[Point]] = {}
    for record, name, arm, called, tokens_out in TAKEN:
        comparison = comparisons(records, record)[name]
        per_class = IMAGES // CLASSES if arm == "oracle" else comparison["data"]["labels_per_class"]
        tokens = (TOKENS_IN, tokens_out) if tokens_out else (0, 0)
        asking = IMAGES * sum(n * price for n, price in zip(tokens, DOLLARS_PER_MILLION, strict=True)) / 1e6
        low, high = (round(asking + CLASSES * per_class * price, 2) for price in LABEL_DOLLARS)
        found.setdefault(called, []).append(Point(CLASSES * per_class, comparison["arms"][arm]["mean"], (low, high)))
    return found


def described(records: Path) -> str:
    """Return the numbers of the plot as the text that its file carries, by which it is known to be up to date."""
    return json.dumps(points(records), separators=(",", ":"))


def is_current(records: Path) -> bool:
    """Return whether the plot on disk shows the numbers of the records."""
    return PLOT.exists() and described(records) in PLOT.read_text(encoding="utf-8")


def draw(records: Path) -> None:
    """Write the plot: a bar from the lowest to the highest price of each point, and how many human labels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    settings: Any = {"svg.hashsalt": "gpt4image", "svg.fonttype": "path", "font.size": 12}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axis = figure.subplots()
        for called, several in points(records).items():
            for number, point in enumerate(several):
                low, high = point.dollars
                axis.plot(
                    [low, high], [point.accuracy] * 2, "-o", color=COLOURS[called], label=None if number else called
                )
                if called == ALONE or not point.labels:  # those of other bars would lie on each other
                    place = {"xytext": (0, 7), "textcoords": "offset points", "fontsize": 9}
                    axis.annotate(f"{point.labels} labels", (high, point.accuracy), ha="center", **place)
        axis.set(
            xscale="log", xlabel="US dollars, human label at 2 to 10 cents", ylabel="test accuracy", ylim=(0.2, 0.72)
        )
        axis.xaxis.set_major_formatter(lambda value, _place: f"${value:g}")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(color="#dddcd6", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="lower right", frameon=False)
        figure.savefig(PLOT, metadata={"Date": None, "Description": described(records)})
