"""Pictures of a report with true and predicted boxes."""

from __future__ import annotations

from pathlib import Path

from gpt4image.base.files import read_json
from gpt4image.config import ReportConfig
from gpt4image.reporting.extras import EXAMPLES
from gpt4image.reporting.report import report


def test_a_report_shows_true_and_predicted_boxes_the_worst_first(detector_run: Path) -> None:
    shown = read_json(detector_run / EXAMPLES)
    assert len(shown) == 24
    scores = [float(card["about"].rsplit(" ", 1)[1]) for card in shown]
    assert scores == sorted(scores)
    kinds = [box["kind"] for card in shown for box in card["boxes"]]
    assert {"true", "found"} == set(kinds)
    report(ReportConfig(dir=detector_run))
    page = (detector_run / "report.html").read_text(encoding="utf-8")
    assert page.count('<g class="true">') + page.count('<g class="found">') == len(kinds)
    assert '<g class="true"><title>true: ' in page
    assert "the lowest scores first" in page
