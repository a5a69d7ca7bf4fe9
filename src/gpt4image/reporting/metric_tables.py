"""Metrics besides top-1 accuracy, in words and tables."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt4image.reporting.findings import (
    comparison_table,
    one_line,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
)
from gpt4image.reporting.records import Comparison, comparisons_in

LABELS = {
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "ece": "calibration error",
    "many_shot": "most frequent third of the classes",
    "medium_shot": "middle third of the classes",
    "few_shot": "rarest third of the classes",
    "zero_shot": "zero-shot by class names",
    "retrieval": "retrieval between images and texts",
    "image_to_text_recall": "image to text, recall at",
    "text_to_image_recall": "text to image, recall at",
    "corrupted": "corrupted images",
    "linear_probe": "linear probe on",
    "knn": "k-NN on",
}
HEADINGS = ("arm", "mean", "95 % interval", "difference", "95 % interval", "p")
ALWAYS = ("top5", "mean_class_accuracy", "ece")
"""What every run has; alone they are not worth a table of their own in a terminal."""


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """All arms by one metric: rows of texts under HEADINGS; differences are in points, to the reference."""

    label: str
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Accuracy of each arm on one kind of corruption: the mean, and one value per severity; None where not measured."""

    kind: str
    cells: list[tuple[str, str] | None]


def metric_label(metric: str) -> str:
    """Return a metric as people read it, e.g. ``linear probe on openmoji``."""
    family, _, detail = metric.partition(":")
    return f"{LABELS.get(family, family.replace('_', ' '))} {detail}".strip()


def metrics_of(comparison: Comparison) -> list[str]:
    """Return the metrics that arms of a comparison have, but for the parts of the corrupted accuracy."""
    names = dict.fromkeys(name for arm in comparison.arms.values() for name in arm.metrics)
    return [name for name in names if not name.startswith("corrupted:")]


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


def corruption_table(comparison: Comparison) -> list[Corrupted]:
    """Return accuracies by kind of corruption and severity, one cell per arm; empty where none were measured."""
    names = dict.fromkeys(name for arm in comparison.arms.values() for name in arm.metrics)
    kinds = dict.fromkeys(name.split(":")[1] for name in names if name.startswith("corrupted:"))
    severities = sorted(
        {name.split(":")[2] for name in names if name.count(":") == 2 and name.startswith("corrupted:")}
    )

    def cell(metrics: dict[str, float], kind: str) -> tuple[str, str] | None:
        if f"corrupted:{kind}" not in metrics:
            return None
        values = [metrics.get(f"corrupted:{kind}:{severity}") for severity in severities]
        cells = ("–" if value is None else f"{100 * value:.0f}" for value in values)
        return percent(metrics[f"corrupted:{kind}"]), " ".join(cells)

    means = [{name: found.mean for name, found in arm.metrics.items()} for arm in comparison.arms.values()]
    return [Corrupted(kind=kind.replace("_", " "), cells=[cell(arm, kind) for arm in means]) for kind in kinds]


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
