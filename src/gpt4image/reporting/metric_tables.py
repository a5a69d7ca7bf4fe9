"""Metrics besides the primary one, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gpt4image.artifacts.run_records import Comparison
from gpt4image.pages.numbers import one_line, p_value, percent, percent_interval, points, points_interval
from gpt4image.tasks.registry import TITLES

LABELS = {
    "zero_shot": "zero-shot by class names",
    "retrieval": "retrieval between images and texts",
    "image_to_text_recall": "image to text, recall at",
    "text_to_image_recall": "text to image, recall at",
}
HEADINGS = ("arm", "mean", "95 % interval", "difference", "95 % interval", "p")


def metric_label(metric: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a metric in words, e.g. ``image to text, recall at 5``, by the ``titles`` of its record if it has any."""
    family, _, detail = metric.partition(":")
    return f"{({**TITLES, **LABELS, **titles}).get(family, family.replace('_', ' '))} {detail}".strip()


def metrics_of(comparison: Comparison, *, of_task: bool = True) -> list[str]:
    """Return the known metrics that arms of a comparison have, with or without those of the task.

    Records of older versions also have metrics that are not known any more.
    """
    names = dict.fromkeys(name for arm in comparison.arms.values() for name in arm.metrics)
    known = {*LABELS, *((*TITLES, *comparison.titles) if of_task else ())}
    return [name for name in names if name.partition(":")[0] in known]


def metric_tables(comparison: Comparison) -> dict[str, list[tuple[str, ...]]]:
    """Return the rows of one table per metric, under HEADINGS; differences are in points, to the reference."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for metric in metrics_of(comparison):
        rows: list[tuple[str, ...]] = []
        for name, arm in comparison.arms.items():
            if found := arm.metrics.get(metric):
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
        tables[metric_label(metric, comparison.titles)] = rows
    return tables


def compact_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row per metric and arm, the headings first: mean, and difference to the reference in points.

    Empty where only metrics of the task were measured.
    """
    metrics = metrics_of(comparison, of_task=False)
    if not metrics:
        return []
    rows: list[tuple[str, ...]] = [("metric", "arm", "mean", "points")]
    for metric in metrics:
        for name, arm in comparison.arms.items():
            if found := arm.metrics.get(metric):
                gap = points(found.against_baseline.difference) if found.against_baseline else ""
                rows.append((metric_label(metric), one_line(name), percent(found.mean), gap))
    return rows


def absent_notes(comparison: Comparison) -> list[str]:
    """Return which metrics could not be measured, and why, as sentences."""
    reasons = dict.fromkeys((metric, why) for arm in comparison.arms.values() for metric, why in arm.absent.items())
    return [f"Not measured: {metric_label(metric)} ({one_line(why)})." for metric, why in reasons]
