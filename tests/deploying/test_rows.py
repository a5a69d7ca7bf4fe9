"""Boxes as predict writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt4image.config import PredictConfig
from gpt4image.deploying.predict import predict


def test_boxes_are_in_pixels_in_every_format(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    given = {"model": detector_run, "images": (str(pictograms / "test-*.png"),)}
    found = {}
    for form in ("jsonl", "csv", "txt", "json"):
        predict(PredictConfig(**given, out=tmp_path / f"boxes.{form}", min_score=0.5))
        found[form] = (tmp_path / f"boxes.{form}").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in found["jsonl"].splitlines()]
    boxes = [box for row in rows for box in row["predictions"]]
    assert len(rows) == 32
    assert 40 < len(boxes) < 90
    assert min(box["probability"] for box in boxes) >= 0.5
    results = json.loads(found["json"])
    assert len(results) == len(boxes) == len(found["csv"].splitlines()) - 1 == len(found["txt"].splitlines())
    left, top, width, height = results[0]["bbox"]
    assert boxes[0]["box"] == pytest.approx([left, top, left + width, top + height], abs=0.02)
    assert max(box["box"][2] for box in boxes) > 100  # pictures are 128 wide and 96 high
    assert max(box["box"][3] for box in boxes) <= 96
    truth = json.loads((pictograms / "test.json").read_text(encoding="utf-8"))
    first = next(
        picture["id"] for picture in truth["images"] if picture["file_name"].startswith(results[0]["image_id"])
    )
    own = [box["bbox"] for box in truth["annotations"] if box["image_id"] == first]
    assert min(np.abs(np.array(box) - results[0]["bbox"]).max() for box in own) < 8
