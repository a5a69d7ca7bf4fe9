"""Metrics besides the primary one: every number where it belongs, nothing for what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4image.artifacts.run_records import Comparison
from gpt4image.config import ReportConfig
from gpt4image.reporting.findings import comparison_tables
from gpt4image.reporting.metric_tables import (
    absent_notes,
    compact_rows,
    metric_label,
    metric_tables,
)
from gpt4image.reporting.report import report
from synthetic_records import comparison_record, write_comparison


def write_report(folder: Path) -> Path:
    path = report(ReportConfig(dir=folder)).path
    assert path == folder / "report.html"
    return path


def metric(mean: float, difference: float | None = None, n: int = 3) -> dict[str, Any]:
    found: dict[str, Any] = {"test": [mean] * n, "mean": mean, "ci95": [mean - 0.01, mean + 0.01]}
    if difference is not None:
        found["against_baseline"] = {"difference": difference, "ci95": [0.01, 0.03], "p": 0.0004, "n": n}
    return found


EARLIER = {name: metric(0.35) for name in ("corrupted", "corrupted:jpeg", "corrupted:jpeg:1", "knn:openmoji")}
"""Metrics of records of earlier versions, which are not shown."""


def record(n: int = 3) -> dict[str, Any]:
    made, recall = comparison_record(means={"baseline": 0.34, "aligned": 0.36}), "image_to_text_recall:1"
    made["arms"]["baseline"]["metrics"] = {"top5": metric(0.8), recall: metric(0.31), **EARLIER}
    made["arms"]["aligned"] |= {
        "metrics": {
            "top5": metric(0.82, 0.02),
            recall: metric(0.33, 0.02, n),
            "zero_shot": metric(0.25),
        },
        "absent": {"retrieval": "no image of test or val has a description in the table"},
    }
    return made


def test_each_metric_has_a_table_of_the_arms_that_have_it() -> None:
    assert metric_label("image_to_text_recall:5") == "image to text, recall at 5"
    assert metric_label("own_metric") == "own metric"
    assert metric_label("own_metric", {"own_metric": "mean IoU"}) == "mean IoU"
    tables = metric_tables(Comparison.model_validate(record(n=2)))
    assert list(tables) == ["top-5 accuracy", "image to text, recall at 1", "zero-shot by class names"]
    assert tables["image to text, recall at 1"] == [
        ("baseline", "31.0 %", "30.0 to 32.0 %", "", "", ""),
        ("aligned", "33.0 %", "32.0 to 34.0 %", "+2.0", "+1.0 to +3.0", "< 0.001 *"),
    ]
    assert [row[0] for row in tables["zero-shot by class names"]] == ["aligned"]


def test_the_terminal_shows_what_was_asked_for_alone() -> None:
    assert compact_rows(Comparison.model_validate(comparison_record())) == []
    comparison = Comparison.model_validate(record())
    assert compact_rows(comparison) == [
        ("metric", "arm", "mean", "points"),
        ("image to text, recall at 1", "baseline", "31.0 %", ""),
        ("image to text, recall at 1", "aligned", "33.0 %", "+2.0"),
        ("zero-shot by class names", "aligned", "25.0 %", ""),
    ]
    text = comparison_tables(record())
    assert "33.0 %    +2.0" in text and "Not measured: retrieval between images and texts (no image" in text
    assert absent_notes(Comparison.model_validate(comparison_record())) == []
    several = {**record(), "comparisons": {"first": record(), "second": comparison_record()}}
    assert comparison_tables(several).count("33.0 %    +2.0") == 1


def test_the_report_shows_them(tmp_path: Path) -> None:
    page = write_report(write_comparison(tmp_path / "cmp", record())).read_text(encoding="utf-8")
    assert all(text in page for text in ("Other metrics", "zero-shot by class names", "+1.0 to +3.0"))
    assert "corrupted" not in page and "knn" not in page
    assert "Other metrics" not in write_report(write_comparison(tmp_path / "plain")).read_text(encoding="utf-8")
