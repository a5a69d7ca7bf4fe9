"""Boxes as predict writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.base.errors import ConfigError
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


@pytest.mark.parametrize(("first", "second"), [("a/0001.png", "b/0001.png"), ("a/0001.png", "b/1.jpg")])
def test_images_of_one_coco_number_are_refused_before_a_model_is_loaded(
    tmp_path: Path, first: str, second: str
) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    given = {"model": tmp_path / "no-model", "images": (str(tmp_path),), "out": tmp_path / "boxes.json"}
    with pytest.raises(ConfigError, match=rf"{first} and .*{second} would have the same image_id 1,.* Rename one"):
        predict(PredictConfig(**given, format="coco"))
