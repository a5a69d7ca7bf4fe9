"""The plot of docs/cost.md, from the records: test accuracy against what labels, descriptions and answers cost."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from front_page import comparisons
from plots import drawing, plain

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
TAKEN: tuple[tuple[str, str, str, int], ...] = (
    ("cifar10-asked-4", "baseline", ALONE, 0),
    ("cifar10-asked-10", "baseline", ALONE, 0),
    ("cifar10-asked-25", "baseline", ALONE, 0),
    ("cifar10-asked-10", "oracle", ALONE, 0),
    ("cifar10-asked-4", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-asked-10", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-asked-25", "text-labels", TEXTS, OUT_OF_DESCRIPTION),
    ("cifar10-asked-0", "asked", ANSWERS, OUT_OF_ANSWER),
    ("cifar10-asked-10", "asked", ANSWERS, OUT_OF_ANSWER),
    ("cifar10-asked-0", "fused", BOTH, OUT_OF_DESCRIPTION + OUT_OF_ANSWER),
    ("cifar10-asked-10", "fused", BOTH, OUT_OF_DESCRIPTION + OUT_OF_ANSWER),
)
"""Points: record, arm, what it is called here, and tokens out of a call; 0 where nobody is asked."""


class Point(NamedTuple):
    """Human labels in all, test accuracy, and US dollars at the lowest and at the highest price of a label."""

    labels: int
    accuracy: float
    dollars: tuple[float, float]


def points(records: Path) -> dict[str, list[Point]]:
    """Return the points by what they are called, from few labels to many."""
    found: dict[str, list[Point]] = {}
    for record, arm, called, tokens_out in TAKEN:
        comparison = comparisons(records, record)[""]
        per_class = IMAGES // CLASSES if arm == "oracle" else comparison["data"]["labels_per_class"]
        tokens = (TOKENS_IN, tokens_out) if tokens_out else (0, 0)
        asking = IMAGES * sum(n * price for n, price in zip(tokens, DOLLARS_PER_MILLION, strict=True)) / 1e6
        low, high = (round(asking + CLASSES * per_class * price, 2) for price in LABEL_DOLLARS)
        found.setdefault(called, []).append(Point(CLASSES * per_class, comparison["arms"][arm]["mean"], (low, high)))
    return found


def draw(records: Path) -> None:
    """Write the plot: a bar from the lowest to the highest price of each point, and how many human labels."""
    from matplotlib.ticker import PercentFormatter

    with drawing(PLOT, points(records), (9, 4.2), 12) as figure:
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
        plain(axis)
        axis.legend(loc="lower right", frameon=False)
