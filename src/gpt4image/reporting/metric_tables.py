"""Metrics besides the primary one, in words and tables."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt4image.pages.numbers import one_line, p_value, percent, percent_interval, points, points_interval
from gpt4image.reporting.findings import comparison_table
from gpt4image.reporting.records import Comparison, comparisons_in
from gpt4image.tasks.registry import TITLES

LABELS = {
    **TITLES,
    "many_shot": "most frequent third of the classes",
    "medium_shot": "middle third of the classes",
    "few_shot": "rarest third of the classes",
    "zero_shot": "zero-shot by class names",
    "retrieval": "retrieval between images and texts",
    "image_to_text_recall": "image to text, recall at",
    "text_to_image_recall": "text to image, recall at",
}
HEADINGS = ("arm", "mean", "95 % interval", "difference", "95 % interval", "p")
ALWAYS = tuple(TITLES)
"""What every run has; alone they are not worth a table of their own in a terminal."""


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """All arms by one metric: rows of texts under HEADINGS; differences are in points, to the reference."""

    label: str
    rows: list[tuple[str, ...]]


def metric_label(metric: str) -> str:
    """Return a metric as people read it, e.g. ``image to text, recall at 5``."""
    family, _, detail = metric.partition(":")
    return f"{LABELS.get(family, family.replace('_', ' '))} {detail}".strip()


def metrics_of(comparison: Comparison) -> list[str]:
    """Return the known metrics that arms of a comparison have; records of earlier versions hold others."""
    names = dict.fromkeys(name for arm in comparison.arms.values() for name in arm.metrics)
    return [name for name in names if name.partition(":")[0] in LABELS]


def metric_tables(comparison: Comparison) -> list[MetricTable]:
    """Return one table per metric."""
    tables = []
    for metric in metrics_of(comparison):
        rows = []
        for name, arm in comparison.arms.items():
            if (found := arm.metrics.get(metric)) is None:
                continue
            gap = found.against_baseline
            rows.append(
                (
                    one_line(name),
                    percent(found.mean),
                    percent_interval(found.ci95),
                    points(gap.difference) if gap else "",
                    points_interval(gap.ci95) if gap else "",
                    p_value(gap.p) + (" *" if gap.few else "") if gap else "",
                )
            )
        tables.append(MetricTable(label=metric_label(metric), rows=rows))
    return tables


def compact_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row per arm, the headings first: means, with differences to the reference in points; empty where
    nothing but ALWAYS was measured.
    """
    metrics = [name for name in metrics_of(comparison) if name not in ALWAYS]
    if not metrics:
        return []
    rows = [("arm", *map(metric_label, metrics))]
    for name, arm in comparison.arms.items():
        cells = []
        for metric in metrics:
            found = arm.metrics.get(metric)
            gap = f" ({points(found.against_baseline.difference)})" if found and found.against_baseline else ""
            cells.append("" if found is None else f"{percent(found.mean)}{gap}")
        rows.append((one_line(name), *cells))
    return rows


def absent_notes(comparison: Comparison) -> list[str]:
    """Return which metrics could not be measured, and why, as sentences."""
    reasons = dict.fromkeys((metric, why) for arm in comparison.arms.values() for metric, why in arm.absent.items())
    return [f"Not measured: {metric_label(metric)} ({one_line(why)})." for metric, why in reasons]


def all_tables(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record for a terminal: accuracy, and what else was measured."""
    text = comparison_table(record)
    buffer = io.StringIO()
    console = Console(file=buffer, width=160, color_system=None)
    for name, comparison in comparisons_in(record).items():
        if rows := compact_rows(comparison):
            table = Table(box=box.SIMPLE_HEAD, title=Text(one_line(name)) if name else None, title_justify="left")
            for number, heading in enumerate(rows[0]):
                table.add_column(Text(heading), justify="left" if number == 0 else "right")
            for row in rows[1:]:
                table.add_row(*map(Text, row))
            console.print(table)
        for note in absent_notes(comparison):
            console.print(Text(note), soft_wrap=True)
    more = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
    return f"{text}\n{more}" if more else text
