"""COCO's average precision, against numbers of pycocotools 2.0.11 and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.data.regions import Boxes
from gpt4image.tasks.average_precision import Matches, coco_metrics

PYCOCOTOOLS = [
    0.10024168506774044,
    0.2570310810745037,
    0.03718927348463542,
    0.0,
    0.06924333899062389,
    0.14281098424939595,
]
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


def test_numbers_are_those_of_pycocotools() -> None:
    found = coco_metrics(*random_case(), 4)
    names = ("mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    assert [found[name] for name in names] == pytest.approx(PYCOCOTOOLS, abs=1e-12)
    assert np.mean(found["per_class"]) == pytest.approx(found["mAP"])


def test_resamples_of_each_image_once_are_the_set_and_doubled_images_are_as_if_listed_twice() -> None:
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


def test_what_lies_in_an_ignored_region_counts_for_nothing() -> None:
    region = Boxes.of_images([(np.float32([[0, 0, 0.5, 0.5]]), np.array([1]), np.zeros(1, np.float32))])
    inside = one((0.1, 0.1, 0.3, 0.3, 0.9, 1), (0.2, 0.2, 0.4, 0.4, 0.8, 1))
    assert Matches.of(inside, region, 2).of_images().tolist() == [1.0]
    assert not Matches.of(inside, region, 2).counts.any()
