"""Detection as a task: it learns, resumes to the same bits, is used like the others and measured as by pycocotools."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.base.files import read_json, read_parquet
from gpt4image.config import ExportConfig
from gpt4image.data import load_dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import NO_ANNOTATION, NO_BOX, Boxes
from gpt4image.deploying.export import export
from gpt4image.tasks.detection import Detection, Matches, coco_metrics


def test_it_learns_pictograms_in_seconds(detector_run: Path) -> None:
    facts = read_json(detector_run / "evaluation-test.json")
    assert facts["metric"] == "mAP"
    assert facts["AP50"] > 0.8
    assert facts["support"] == [sum(row) for row in zip(*_images_by_class(detector_run), strict=True)]
    assert np.mean(facts["per_class"]) == pytest.approx(facts["mAP"])
    chosen = runs.read_run(detector_run)["config"]["chosen"]
    assert {name: chosen[name] for name in ("task", "min_scale", "shift")} == {
        "task": "detection",
        "min_scale": 0.4,
        "shift": 0.0,
    }
    rows = read_parquet(detector_run / "predictions-test.parquet", ["score", "boxes"]).to_pylist()
    assert 0.5 < np.mean([row["score"] for row in rows]) <= 1.0
    assert all(len(box) == 6 for row in rows for box in row["boxes"])


def _images_by_class(run: Path) -> list[list[bool]]:
    images = load_dataset(runs.read_run(run)["config"]["data"])
    boxes = images.regions
    assert isinstance(boxes, Boxes)
    own = boxes[images.indices("test")]
    return [[bool((own.image(i)[1] == k).any()) for k in range(3)] for i in range(len(own))]


@pytest.mark.slow
def test_an_export_predicts_the_boxes_of_the_run(detector_run: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    out = tmp_path / "model"
    outcome = export(ExportConfig(run_dir=detector_run, format="onnx", out=out))
    assert float(outcome.largest_difference) < 1e-4
    card = (out / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card and "An object detector: FCOS on a resnet10t" in card
    weights = {weight.name for weight in onnx.load(str(out / "model.onnx")).graph.initializer}
    assert not {name for name in weights if name.startswith("backbone.backbone.fc")}, "the classifier stays behind"
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "boxes"
    (found,) = session.run(None, {"images": np.zeros((1, 3, 64, 64), np.float32)})
    assert found.shape == (1, 100, 6)


def test_crops_move_boxes_and_drop_what_little_is_left() -> None:
    boxes = Boxes.of_images(
        [
            (
                np.array([[0.1, 0.1, 0.4, 0.4], [0.4, 0.4, 0.9, 0.9], [0.0, 0.0, 0.55, 1.0]], np.float32),
                np.array([0, 1, 2]),
                np.array([1.0, 0.5, 0.0], np.float32),
            ),
            None,
        ]
    )
    centre, extent = torch.tensor([[0.5, 0.5]] * 2), torch.tensor([[0.5, 0.5]] * 2)  # the right lower quarter
    geometry = Geometry.crop(centre, extent, torch.tensor([False, False]), 64)
    rows = Detection().targets(boxes, None, 3, geometry)
    assert rows[0, :, 4].tolist() == [NO_BOX, 1.0, 2.0]
    torch.testing.assert_close(rows[0, 1, :4], torch.tensor([0.0, 0.0, 0.8, 0.8]))
    torch.testing.assert_close(rows[0, 2, :4], torch.tensor([0.0, 0.0, 0.1, 1.0]))  # an ignored region stays
    assert (rows[1, :, 4] == NO_ANNOTATION).all()
    blank = Detection().without_target(rows, torch.tensor([True, False]))
    assert (blank[0, :, 4] == NO_ANNOTATION).all()


def test_differences_of_predictions_are_those_of_boxes_that_correspond() -> None:
    ours = np.zeros((1, 100, 6), np.float32)
    ours[0, 0], ours[0, 1] = (0.1, 0.1, 0.5, 0.5, 0.9, 1), (0.2, 0.2, 0.6, 0.6, 0.9, 0)
    theirs = ours[:, [1, 0, *range(2, 100)]].copy()  # rounding has changed the order of two
    theirs[0, 0, 0] += 1e-5
    assert Detection().difference(ours, theirs) == pytest.approx(1e-5, rel=0.1)
    theirs[0, 1] = 0.0
    assert Detection().difference(ours, theirs) > 0.5
    assert Detection().difference(theirs, ours) > 0.5


PYCOCOTOOLS = [0.10024168506774044, 0.2570310810745037, 0.03718927348463542, 0.0, 0.06924333899062389,
               0.14281098424939595]  # fmt: skip
"""What it says of ``random_case`` with sides of 640 x 480 pixels."""


def random_case(images: int = 60, classes: int = 4) -> tuple[NDArray[np.float32], Boxes]:
    """Return predictions and boxes; a tenth of the boxes are ignored regions."""
    rng = np.random.default_rng(0)
    truth, predictions = [], np.zeros((images, 100, 6), np.float32)
    for row in range(images):
        count, most = int(rng.integers(0, 5)), int(rng.integers(0, 40))
        corner = rng.random((count, 2)) * 0.6
        box = np.concatenate([corner, corner + 0.03 + rng.random((count, 2)) * 0.35], 1).astype(np.float32)
        kind = int(rng.integers(0, classes))
        truth.append((box, np.full(count, kind), (rng.random(count) > 0.1).astype(np.float32)))
        near = box[rng.integers(0, count, most)] if count else np.tile(np.float32([[0.1, 0.1, 0.5, 0.5]]), (most, 1))
        near = near + rng.normal(0, 0.03, (most, 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + np.float32(0.01))
        labels = np.where(rng.random(most) < 0.8, kind, rng.integers(0, classes, most))
        predictions[row, :most] = np.column_stack([near, np.sort(rng.random(most))[::-1], labels])
    return predictions, Boxes.of_images(truth)


def test_numbers_are_those_of_pycocotools_and_of_resamples_those_of_images_listed_as_often() -> None:
    found = coco_metrics(*random_case(), 4)
    names = ("mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    assert [found[name] for name in names] == pytest.approx(PYCOCOTOOLS, abs=1e-12)
    assert np.mean(found["per_class"]) == pytest.approx(found["mAP"])
    predictions, boxes = random_case()
    matches = Matches.of(predictions, boxes, 4)
    times = np.ones((2, len(boxes)), np.int64)
    times[1, :30] = 2
    once, doubled = matches.mean_average_precision(times)
    assert once == coco_metrics(predictions, boxes, 4)["mAP"]
    rows = [*range(60), *range(30)]
    assert doubled == pytest.approx(coco_metrics(predictions[rows], boxes[rows], 4)["mAP"], abs=1e-3)


def one(*boxes: tuple[float, ...]) -> NDArray[np.float32]:
    rows = np.zeros((1, 100, 6), np.float32)
    for number, box in enumerate(boxes):
        rows[0, number] = box
    return rows


def test_a_score_of_an_image_is_its_average_precision() -> None:
    truth = Boxes.of_images([(np.float32([[0, 0, 0.5, 0.5]]), np.array([1]), np.ones(1, np.float32))])
    right, wrong_class = (0, 0, 0.5, 0.5, 0.9, 1), (0, 0, 0.5, 0.5, 0.95, 0)
    assert Matches.of(one(right), truth, 2).of_images().tolist() == [1.0]
    assert Matches.of(one(wrong_class, right), truth, 2).of_images().tolist() == pytest.approx([0.5])
    assert Matches.of(one(), truth, 2).of_images().tolist() == [0.0]
