"""Runs of several labels per image: thresholds are chosen on the validation images, kept with the run, and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.base.files import read_json, read_json_lines
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.train import train
from small_training import SMALL

SIZES = {"train": 160, "val": 80, "test": 80}


@pytest.fixture
def rare(tmp_path: Path) -> dict[str, Any]:
    """Options of a run on bright and dark pictures: one third of the bright ones has the class ``spark``, no dark one.

    So nothing can be learned by which ``spark`` is more probable than one half. ``day`` is plain to see.
    """
    rng = np.random.default_rng(0)
    rows = ["path,split,day,spark"]
    for split, count in SIZES.items():
        for number in range(count):
            bright, name = number % 4 == 0, f"{split}{number}.png"
            pixels = rng.integers(150, 250, (16, 16, 3)) if bright else rng.integers(0, 100, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
            rows.append(f"{name},{split},{int(bright)},{int(number % 12 == 0)}")
    (tmp_path / "rare.csv").write_text("\n".join(rows))
    return {"data": f"manifest:{tmp_path / 'rare.csv'}", "out": tmp_path / "run", **SMALL, "epochs": 6, "lr": 0.02}


def test_thresholds_of_the_validation_images_raise_f1_on_the_test_images(rare: dict[str, Any]) -> None:
    outcome = train(TrainConfig(**rare))
    assert outcome.summary["thresholds"] == "one per class, chosen on the validation images"
    thresholds = read_json(rare["out"] / runs.RUN)["thresholds"]
    evaluate(EvaluateConfig(run_dir=rare["out"]))
    facts = read_json(rare["out"] / "evaluation-test.json")
    assert facts["thresholds"] == thresholds and facts["classes"] == ["day", "spark"] and thresholds[1] < 0.4
    rows = pq.read_table(rare["out"] / "predictions-test.parquet").to_pylist()
    scores = np.array([row["probabilities"] for row in rows], np.float32)
    labels = np.array([row["label"] for row in rows], np.int8)
    usual = MultiLabel().measure(scores, labels, facts["classes"])
    assert usual["mAP"] == pytest.approx(facts["mAP"])
    assert facts["f1_macro"] > usual["f1_macro"] + 0.15 and facts["f1_micro"] > usual["f1_micro"] - 0.1
    assert [row["prediction"] for row in rows] == [np.flatnonzero(each >= thresholds).tolist() for each in scores]


def test_without_validation_labels_the_probabilities_of_the_model_choose_thresholds(rare: dict[str, Any]) -> None:
    table = Path(str(rare["data"]).removeprefix("manifest:"))
    rows = table.read_text().splitlines()
    table.write_text("\n".join(row.rsplit(",", 2)[0] + ",," if ",val," in row else row for row in rows))
    outcome = train(TrainConfig(**rare))
    assert outcome.summary["thresholds"] == (
        "one per class, chosen on the validation images by the model's own probabilities, because none has a label"
    )
    assert all(row["val"] is None for row in read_json_lines(rare["out"] / runs.METRICS))
    evaluate(EvaluateConfig(run_dir=rare["out"]))
    facts = read_json(rare["out"] / "evaluation-test.json")
    assert facts["thresholds"] == read_json(rare["out"] / runs.RUN)["thresholds"]
    assert facts["thresholds"][1] < 0.4 and facts["f1_macro"] > 0.65  # at one half no picture has the rare class


def test_without_validation_images_one_half_counts_and_is_said(rare: dict[str, Any]) -> None:
    outcome = train(TrainConfig(**{**rare, "train_on_val": True, "epochs": 1}))
    assert outcome.summary["thresholds"] == "0.5 for each class, because there is no validation image"
    assert "thresholds" not in read_json(rare["out"] / runs.RUN)
