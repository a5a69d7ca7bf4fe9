"""True and predicted masks and boxes in the report of a run, the worst first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drawn_masks
from gpt4image.base.files import read_json
from gpt4image.config import EvaluateConfig, ReportConfig
from gpt4image.data import load_dataset
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.evaluating.examples import DrawnMasks
from gpt4image.reporting.extras import EXAMPLES
from gpt4image.reporting.report import report

Once = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="module")
def root(once: Once) -> Path:
    found = once("drawn-masks", drawn_masks.set_and_run)
    evaluate(EvaluateConfig(run_dir=found / "run"))
    return found


def test_masks_of_a_run_are_drawn_worst_first(root: Path) -> None:
    images = load_dataset(f"masks:{root / 'set'}")
    drawn = DrawnMasks.of_runs(images, {"predicted": root / "run"}, "test")
    assert drawn is not None
    order = drawn.worst_first(images.indices("test"))
    scores = [drawn.scores[images.keys[row]] for row in order]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    pictures = drawn.of(int(order[0]))
    assert list(pictures) == ["true mask", "predicted"]
    assert all(value.startswith("data:image/webp;base64,") for value in pictures.values())
    tagged, masked = (next(row for row, key in enumerate(images.keys) if name in key) for name in ("tagged", "train"))
    assert drawn.of(masked).keys() == {"true mask"} and not drawn.of(tagged)
    shown = [row["key"] for row in read_json(root / "run" / "examples.json")]
    assert shown == [images.keys[row] for row in order]


def test_a_report_shows_iou_per_class_and_the_masks(root: Path) -> None:
    page = report(ReportConfig(dir=root / "run")).path
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert text.count('class="drawn"') == 8 and "Those with the lowest score first." in text
    assert "IoU" in text and "square" in text


def test_runs_without_masks_draw_none(root: Path, colour_folder: Path, small_run: Path) -> None:
    assert DrawnMasks.of_runs(load_dataset(f"folder:{colour_folder}"), {"a": small_run}, "test") is None
    images = load_dataset(f"masks:{root / 'set'}")
    assert DrawnMasks.of_runs(images, {}, "test") is None
    assert np.isnan(DrawnMasks(images=images, predicted={}, scores={}).scores.get("x", np.nan))


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
