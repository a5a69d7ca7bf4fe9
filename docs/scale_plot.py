"""The plot and the table of docs/research/log/scale.md, from its records: time and memory by number of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from plots import drawing, plain

RECORDS = sorted((Path(__file__).parent / "research" / "records" / "scale").glob("*.json"))
PLOT = Path(__file__).parent / "images" / "scale.svg"
COLOURS = ("#0b5fa5", "#1f7a4d", "#a9480b", "#7a4fa3", "#333333", "#b03060", "#5b8c00", "#008080", "#c08a00", "#8c564b")
MILLION = 1_000_000


class Growth(NamedTuple):
    """What a stage took at the largest size, and what it would take at a million images, by its last two sizes."""

    images: int
    seconds: float
    megabytes: float
    hours_of_million: float
    gigabytes_of_million: float


def measured() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each stage, by ascending size; a size that was measured again counts as it was last."""
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for path in RECORDS:
        last |= {(row["stage"], row["images"]): row for row in json.loads(path.read_text(encoding="utf-8"))}
    found: dict[str, list[dict[str, Any]]] = {}
    for (stage, _), row in sorted(last.items(), key=lambda item: item[0][1]):
        found.setdefault(stage, []).append(row)
    return found


def growth(rows: list[dict[str, Any]]) -> Growth:
    """Return how a stage grows: in a straight line beyond its last two sizes."""
    before, last = rows[-2:]

    def at_million(name: str) -> float:
        slope = (last[name] - before[name]) / (last["images"] - before["images"])
        return last[name] + max(slope, 0.0) * (MILLION - last["images"])

    hours, gigabytes = at_million("seconds") / 3600, at_million("peak_mb") / 1000
    return Growth(last["images"], last["seconds"], last["peak_mb"], hours, gigabytes)


def table(_records: Path | None = None) -> str:
    """Return the table: what was run, and the straight line from it to a million images."""
    lines = [
        "| stage | largest run, images | its CPU seconds | its peak, MB | CPU hours, 1,000,000 | peak GB, 1,000,000 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for stage, rows in measured().items():
        found = growth(rows)
        cells = (f"{found.images:,}", f"{found.seconds:.1f}", f"{found.megabytes:,.0f}")
        lines.append(
            f"| {stage} | {' | '.join(cells)} | {found.hours_of_million:.2g} | {found.gigabytes_of_million:.2g} |"
        )
    return "\n".join(lines)


def points(_records: Path | None = None) -> dict[str, list[list[float]]]:
    """Return what the plot shows: by stage, rows of images, seconds and megabytes."""
    return {
        stage: [[row["images"], row["seconds"], row["peak_mb"]] for row in rows] for stage, rows in measured().items()
    }


def draw(records: Path) -> None:
    """Write the plot: seconds and megabytes, both against images; a dashed line is no measurement."""
    with drawing(PLOT, points(records), (9, 4.4), 11) as figure:
        axes = figure.subplots(1, 2)
        for (stage, rows), colour in zip(measured().items(), COLOURS, strict=False):
            found = growth(rows)
            ends = (3600 * found.hours_of_million, 1000 * found.gigabytes_of_million)
            for axis, name, end in zip(axes, ("seconds", "peak_mb"), ends, strict=True):
                axis.plot([row["images"] for row in rows], [row[name] for row in rows], "-o", color=colour, label=stage)
                axis.plot([rows[-1]["images"], MILLION], [rows[-1][name], end], ":", color=colour)
        for axis, title in zip(axes, ("CPU seconds", "peak memory, MB"), strict=True):
            axis.set(xscale="log", yscale="log", xlabel="images", ylabel=title)
            plain(axis)
        axes[0].legend(frameon=False, fontsize=9)
