"""The plot and the table of docs/research/log/2026-12-01-where-it-ends.md, from its record."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from plots import drawing, plain

from gpt4image.comparing.results import crossed
from gpt4image.pages.numbers import points as in_points
from gpt4image.pages.numbers import points_interval

RECORD = Path(__file__).parent / "research" / "records" / "where-it-ends" / "cifar10.json"
PLOT = Path(__file__).parent / "images" / "where-it-ends.svg"
STUDENTS = {
    "lite0": ("frozen Lite0, 96 pixels", "#0b5fa5"),
    "lite2": ("frozen Lite2, 128 pixels", "#1f7a4d"),
    "resnet": ("small ResNet from scratch", "#a9480b"),
}
WAYS = {"class": "by class", "evenly": "by picture, evenly"}


class Gap(NamedTuple):
    """What true labels are better than answers: means over seeds, and the paired difference in accuracy."""

    size: int
    seeds: int
    true: float
    answers: float
    teacher: float
    low: float | None
    high: float | None
    plus: float | None

    @property
    def worth(self) -> str:
        """The difference and its interval, in points."""
        interval = "" if self.low is None or self.high is None else f" ({points_interval((self.low, self.high))})"
        return in_points(self.true - self.answers) + interval


def gaps(way: str) -> dict[str, list[Gap]]:
    """Return the gaps of each student by number of photographs, from answers drawn in one way."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    cells = {tuple(row["cell"]): row for row in record["cells"]}
    found: dict[str, list[Gap]] = {}
    for student in STUDENTS:
        for size in sorted({cell[2] for cell in cells if cell[:2] == ("cifar10", student)}):
            here = ("cifar10", student, size)
            seeds = [cell[4] for cell in cells if cell[:4] == (*here, way)]
            pairs = [
                (cells.get((*here, "true", seed)) or cells[(*here, "true", 0)], cells[(*here, way, seed)])
                for seed in seeds
            ]
            if pairs:
                found.setdefault(student, []).append(
                    _gap(size, pairs, [cells.get((*here, f"{way}+10", s)) for s in seeds])
                )
    return found


def _gap(size: int, pairs: list[tuple[dict[str, Any], dict[str, Any]]], more: list[dict[str, Any] | None]) -> Gap:
    right, wrong = (np.stack([_right(pair[side]) for pair in pairs]) for side in (0, 1))
    interval = crossed(right, wrong).ci95 or (None, None)
    teacher = float(np.mean([row["teacher"] for _, row in pairs]))
    plus = [row["accuracy"] - pair[1]["accuracy"] for pair, row in zip(pairs, more, strict=True) if row]
    return Gap(
        size,
        len(pairs),
        float(right.mean()),
        float(wrong.mean()),
        teacher,
        *interval,
        float(np.mean(plus)) if plus else None,
    )


def _right(row: dict[str, Any]) -> Any:
    bits = np.unpackbits(np.frombuffer(base64.b85decode(row["bits"]), np.uint8))
    return bits[: row["tested"]].astype(np.float64)


def table(_records: Path | None = None) -> str:
    """Return the table of gaps."""
    lines = [
        "| student | photographs (seeds) | error, true labels | error, answers | gap | gap, drawn by class "
        "| 10 labels per class add |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    by_class = {(student, gap.size): gap for student, found in gaps("class").items() for gap in found}
    for student, found in gaps("evenly").items():
        for gap in found:
            other = by_class.get((student, gap.size))
            errors = (f"{1 - gap.true:.1%}", f"{1 - gap.answers:.1%}")
            plus = "–" if gap.plus is None else in_points(gap.plus)
            cells = (*errors, gap.worth, "–" if other is None else other.worth, plus)
            lines.append(f"| {STUDENTS[student][0]} | {gap.size:,} ({gap.seeds}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def points(_records: Path | None = None) -> dict[str, list[list[float | None]]]:
    """Return what the plot shows: by student and way of drawing, rows of a ``Gap``."""
    return {f"{student}, {way}": [list(gap) for gap in found] for way in WAYS for student, found in gaps(way).items()}


def draw(_records: Path) -> None:
    """Write the plot: the errors of the students, and the gaps with their intervals."""
    with drawing(PLOT, points(), (9, 4.2), 11) as figure:
        left, right = figure.subplots(1, 2)
        for student, found in gaps("evenly").items():
            name, colour = STUDENTS[student]
            sizes = [gap.size for gap in found]
            left.plot(sizes, [100 * (1 - gap.true) for gap in found], "-o", color=colour, label=f"{name}, true labels")
            left.plot(
                sizes,
                [100 * (1 - gap.answers) for gap in found],
                "--o",
                color=colour,
                mfc="white",
                label=f"{name}, answers",
            )
            _band(right, found, "-o", colour, name)
        for student, found in gaps("class").items():
            right.plot(
                [gap.size for gap in found],
                [100 * (gap.true - gap.answers) for gap in found],
                ":",
                color=STUDENTS[student][1],
            )
        teacher = [100 * (1 - gap.teacher) for found in gaps("evenly").values() for gap in found]
        left.axhline(float(np.mean(teacher)), color="#5c6570", linewidth=1.2)
        left.annotate(
            "the answers", (2_000, float(np.mean(teacher))), xytext=(0, 4), textcoords="offset points", color="#5c6570"
        )
        right.axhline(0, color="#5c6570", linewidth=1.2)
        right.plot([], [], ":", color="#5c6570", label="errors drawn by class")
        for axis, title in ((left, "test error, %"), (right, "gap: answers below true labels, points")):
            axis.set(xscale="log", xlabel="training photographs", ylabel=title)
            axis.set_xticks([2_000, 5_000, 10_000, 20_000, 50_000], ["2k", "5k", "10k", "20k", "50k"], minor=False)
            axis.minorticks_off()
            plain(axis)
            axis.legend(frameon=False, fontsize=8)
        left.set_ylim(0, None)


def _band(axis: Any, found: list[Gap], style: str, colour: str, name: str) -> None:
    means = [100 * (gap.true - gap.answers) for gap in found]
    axis.plot([gap.size for gap in found], means, style, color=colour, label=name)
    known = [gap for gap in found if gap.low is not None and gap.high is not None]
    if known:
        lows, highs = ([100 * getattr(gap, side) for gap in known] for side in ("low", "high"))
        axis.fill_between([gap.size for gap in known], lows, highs, color=colour, alpha=0.12, linewidth=0)
