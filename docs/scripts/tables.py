"""Tables of README.md and docs/research/, made from the records."""

from __future__ import annotations

from collections.abc import Iterable

from gpt4image.pages.numbers import percent
from records import Row, parts, rows, table

DEMO = "clothes/demo"
DEMO_ROWS = (
    ("labels", "5 per class", "5 labels per class", "baseline"),
    ("labels", "10 per class", "10 labels per class", "baseline"),
    ("**the LLM's answers**", "**none**", "no label", "asked"),
    ("answers, descriptions and labels", "5 per class", "5 labels per class", "fused"),
    ("all labels (reference)", "all", "no label", "oracle"),
)
"""Rows of the table of README.md: what the model learned from, human labels, comparison and arm."""
COLUMNS = {
    "photographs, 10 per class": (("cifar10-asked-10", ""), ("cifar10", "labels-10")),
    "photographs, 40 % wrong": (("cifar10-asked-wrong-40", ""), ("cifar10", "wrong-40")),
    "photographs, 40 % wrong by class": (("cifar10-asked-wrong-40-by-class", ""),),
    "pictograms, 10 per class": (("openmoji-asked-10", ""), ("openmoji", "labels-10")),
    "pictograms, 40 % wrong": (("openmoji-asked-wrong-40", ""), ("openmoji", "wrong-40")),
}
"""Columns of the overview and the comparisons of their arms; the first that has an arm counts."""
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
"""Rows of the overview: arms and what they are called there."""
TEN = 10  # seeds of a comparison that the page shows
MILLION = 1_000_000


def markdown(head: str, lines: Iterable[Iterable[str]], rule: str) -> str:
    """Return a Markdown table; ``rule`` has "l" for a column of words and "r" for one of numbers."""
    rules = ["---:" if side == "r" else "---" for side in rule]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head.split(" | "), rules, *lines])


def front() -> str:
    """Return the table of README.md: test accuracy of the small model in the demo, a row per source of labels."""
    own = rows()[DEMO, "", "demo/imagenet_classes"]
    found = [("nothing: its ImageNet classes mapped by hand", "none", own)]
    found += [(source, labels, rows()[DEMO, part, arm]) for source, labels, part, arm in DEMO_ROWS]
    lines = [(*words, percent(row.mean), _interval(row)) for *words, row in found]
    return markdown("the small model learned from | human labels | test accuracy | 95 % interval", lines, "llrr")


def _interval(row: Row) -> str:
    low, high = row.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def overview() -> str:
    """Return accuracy in percent, a row per method."""
    lines = [(name, *(_best_known(places, arm) for places in COLUMNS.values())) for arm, name in METHODS.items()]
    return markdown(" | ".join(["test accuracy, %", *COLUMNS]), lines, "lrrrrr")


def _best_known(places: tuple[tuple[str, str], ...], arm: str) -> str:
    if arm == "zero-shot":  # it reads no label, so one comparison serves all
        places = ((f"{places[0][0].partition('-')[0]}-asked-0", ""),)
    found = [rows()[*place, arm] for place in places if (*place, arm) in rows()]
    return f"{100 * found[0].mean:.1f}" if found else "–"


def asked() -> str:
    """Return a row per comparison of ten seeds in which a model learned from the describer's classes."""
    lines = []
    for one in (each for record in dict.fromkeys(record for record, *_ in rows()) for each in parts(record)):
        place = (one["record"], one["part"])
        if (*place, "asked") in rows() and int(rows()[*place, "asked"].seeds) >= TEN:
            span = " to ".join(mean for mean in (_mean(place, "baseline"), _mean(place, "oracle")) if mean != "–")
            means = (_mean(place, arm) for arm in ("text-labels", "asked", "fused"))
            lines.append((f"`{one['record']}`", f"{one['labels'] or 'all'}, {one['seeds']} seeds", span, *means))
    head = "record | labels, seeds | labels only to all labels | texts | **answers** | answers and texts"
    return markdown(head, lines, "llrrrr")


def _mean(place: tuple[str, str], arm: str) -> str:
    return percent(rows()[*place, arm].mean) if (*place, arm) in rows() else "–"


def scale() -> str:
    """Return what each stage took, and the straight line from its last two sizes to a million images."""
    lines = []
    for stage, (before, last) in {stage: found[-2:] for stage, found in sizes().items()}.items():
        ahead = (last[k] + max((last[k] - before[k]) / (last[0] - before[0]), 0) * (MILLION - last[0]) for k in (1, 2))
        hours, gigabytes = (number / unit for number, unit in zip(ahead, (3600, 1000), strict=True))
        lines.append(
            (stage, f"{last[0]:,.0f}", f"{last[1]:.1f}", f"{last[2]:,.0f}", f"{hours:.2g}", f"{gigabytes:.2g}")
        )
    head = "stage | largest run, images | its CPU seconds | its peak, MB | CPU hours, 1,000,000 | peak GB, 1,000,000"
    return markdown(head, lines, "lrrrrr")


def sizes() -> dict[str, list[tuple[float, float, float]]]:
    """Return images, seconds and megabytes of each stage, by ascending size."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in table("scale.csv"):
        numbers = (float(row["images"]), float(row["seconds"]), float(row["peak_mb"]))
        found.setdefault(row["stage"], []).append(numbers)
    return found
