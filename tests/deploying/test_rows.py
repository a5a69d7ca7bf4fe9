"""Boxes as predict writes them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import PredictConfig, TrainOptions
from gpt4image.deploying.formats import ExportedModel
from gpt4image.deploying.loading import Classifier
from gpt4image.deploying.predict import predict
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.deploying.rows import CocoResults, Prediction
from gpt4image.tasks.registry import find_task
from gpt4image.training.run_model import load_run_model


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
    own = [box["bbox"] for box in truth["annotations"] if box["image_id"] == results[0]["image_id"]]
    assert min(np.abs(np.array(box) - results[0]["bbox"]).max() for box in own) < 8


def measured(file: Path, results: Path) -> float:
    """Return mAP as pycocotools measures it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def renumbered(source: Path, file: Path) -> None:
    """Write a COCO file with other ids of images and categories."""
    content = json.loads(source.read_text(encoding="utf-8"))
    for image in content["images"]:
        image["id"] = 1000 + 7 * image["id"]
    for category in content["categories"]:
        category["id"] = 90 - 3 * category["id"]
    for box in content["annotations"]:
        box |= {"image_id": 1000 + 7 * box["image_id"], "category_id": 90 - 3 * box["category_id"]}
    file.write_text(json.dumps(content), encoding="utf-8")


def test_results_of_coco_have_the_ids_of_the_dataset(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    expected = json.loads((detector_run / "evaluation-test.json").read_text(encoding="utf-8"))
    other = tmp_path / "set"
    shutil.copytree(pictograms, other)
    renumbered(pictograms / "test.json", other / "test.json")
    given = {"model": detector_run, "min_score": 0.0}
    for images, truth in (("coco:{}/test.json", other), ("{}/test-*.png", pictograms)):
        predict(PredictConfig(**given, images=(images.format(truth),), out=tmp_path / "results.json"))
        assert measured(truth / "test.json", tmp_path / "results.json") == pytest.approx(expected["mAP"], abs=0.02)
    shutil.move(other, tmp_path / "moved")
    with pytest.raises(DataError, match=r"there is no such file"):
        predict(PredictConfig(**given, images=(f"coco:{other}/test.json",), out=tmp_path / "results.json"))


@pytest.mark.parametrize("said", [{"star": 20, "frog": 7}, {"star": [1]}, "20", None])
def test_an_exported_model_brings_the_ids_of_its_categories(said: object) -> None:
    stream, classes = io.StringIO(), ("frog", "star")
    model = Classifier(
        kind="onnx",
        task=find_task("detection", TrainOptions(data="")),
        classes=classes,
        preprocessing=Preprocessing(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        probabilities=lambda images: images,
        source={"category_ids": said},
    )
    writer = CocoResults(stream, model, {})
    writer.write(Prediction("12.png", ("star",), (0.9,), boxes=((1, 2, 3, 4),)))
    writer.end()
    (row,) = json.loads(stream.getvalue())
    assert row["category_id"] == (20 if said == {"star": 20, "frog": 7} else 2) and row["image_id"] == 12


def test_category_ids_are_written_into_an_exported_model(detector_run: Path) -> None:
    classes = runs.class_names(detector_run)
    model = ExportedModel(run_dir=detector_run, model=load_run_model(detector_run, None, classes), classes=classes)
    assert model.metadata.source["category_ids"] == {"apple": 1, "star": 2, "frog": 3}


@pytest.mark.parametrize(("first", "second"), [("a/0001.png", "b/0001.png"), ("a/0001.png", "b/1.jpg")])
def test_images_of_one_coco_number_are_refused_before_a_model_is_loaded(
    tmp_path: Path, first: str, second: str
) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    given = {"model": tmp_path / "no-model", "images": (str(tmp_path),), "out": tmp_path / "boxes.json"}
    with pytest.raises(ConfigError, match=rf"{first} and .*{second} would have the same image_id 1\. Predict"):
        predict(PredictConfig(**given, format="coco"))
