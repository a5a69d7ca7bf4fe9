"""Boxes drawn on their pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.base.errors import ConfigError
from gpt4image.config import PredictConfig
from gpt4image.deploying.predict import _require_boxes, predict  # pyright: ignore[reportPrivateUsage]
from gpt4image.tasks.classification import Classification


def test_every_picture_is_drawn_at_its_own_size(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    images = (str(pictograms / "test-*.png"),)
    predict(PredictConfig(model=detector_run, images=images, out=tmp_path / "boxes.csv", draw=tmp_path / "drawn"))
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) == 32
    with Image.open(drawn[0]) as picture, Image.open(pictograms / "test-000.png") as plain:
        assert picture.size == plain.size == (128, 96)
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(plain.convert("RGB"), np.int16)).max() > 50


def test_boxes_are_refused_of_a_model_that_predicts_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    config = PredictConfig(model=tmp_path, images=(str(tmp_path),), format="coco", draw=tmp_path / "drawn")
    classifier: Any = SimpleNamespace(task=Classification())
    with pytest.raises(ConfigError, match=r"--format coco: .* predicts probabilities, and no boxes"):
        _require_boxes(config, classifier)
