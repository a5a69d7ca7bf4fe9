"""Segmentation: its losses against loops, metrics against torchmetrics, and runs on drawn pictures."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

import worlds
from gpt4image.artifacts import runs
from gpt4image.base.errors import DataError
from gpt4image.base.files import read_json
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.data import annotation, load_dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import VOID
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.tasks.segmentation import PixelTargets, Segmentation, beyond_usual, pixel_loss, presence_loss, share_loss
from gpt4image.training.prepare import prepare
from gpt4image.training.trainer import build
from worlds import masks_of

CLASSES = ("background", "cat", "dog", "tree")


def test_a_probability_counts_by_how_far_it_is_from_what_is_usual_of_its_class() -> None:
    found = np.array([[0.0, 0.98, 0.4, np.nan], [1.0, 0.98, 0.1, np.nan], [0.2, 0.98, 0.1, 0.7]], np.float32)
    expected = [[0.0, 0.5, 0.625, np.nan], [1.0, 0.5, 0.25, np.nan], [0.25, 0.5, 0.25, 0.5]]
    np.testing.assert_allclose(beyond_usual(found), expected, atol=1e-6)
    sure = np.array([[0, 1], [0, 1]], np.float32)
    assert beyond_usual(sure).tolist() == sure.tolist(), "what is sure stays, also where it is so of all images"
    assert not len(beyond_usual(np.zeros((0, 2), np.float32)))


@given(seed=st.integers(0, 10_000), images=st.integers(1, 6), side=st.integers(4, 9))
def test_metrics_are_those_of_torchmetrics(seed: int, images: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (images, side, side)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = VOID
    truth[0, 0, 0] = 0
    predicted = rng.integers(0, 4, (images + 1, side, side)).astype(np.uint8)
    labels = masks_of(truth)[[*range(images), 0]].hidden(np.arange(images + 1) == images)
    found = Segmentation().measure(predicted, labels, CLASSES)
    ours, given = torch.from_numpy(predicted[:images]).int(), torch.from_numpy(truth).int()
    options: dict[str, Any] = {"num_classes": 4, "ignore_index": VOID}
    reference = multiclass_jaccard_index(ours, given, average="none", **options).tolist()
    there = [bool((truth == k).any()) for k in range(4)]
    expected = [value if present else None for value, present in zip(reference, there, strict=True)]
    assert found["per_class"] == pytest.approx(expected, abs=1e-6)
    assert found["mIoU"] == pytest.approx(np.mean([value for value in expected if value is not None]), abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(
        float(multiclass_accuracy(ours, given, average="micro", **options)), abs=1e-6
    )
    assert found["support"] == [sum(bool((mask == k).any()) for mask in truth) for k in range(4)]
    assert (found["images"], found["labelled"], found["measured_at"]) == (images + 1, images, [side, side])


def test_metrics_of_resampled_images_are_those_of_images_that_come_as_often() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (rng.integers(0, 4, (5, 6, 6)).astype(np.uint8) for _ in range(2))
    truth[0, 0], truth[3:] = VOID, truth[3:] % 3
    labels, times = masks_of(truth), rng.multinomial(5, np.full(5, 0.2), size=7)
    columns = Segmentation().columns(predicted, labels)
    found = Segmentation().resampled(columns, labels, 4, times)
    rows = [np.repeat(np.arange(5), own) for own in times]
    assert found.tolist() == pytest.approx(
        [Segmentation().measure(predicted[own], labels[own], CLASSES)["mIoU"] for own in rows]
    )


def test_the_score_of_an_image_is_its_mean_iou_over_the_classes_that_it_shows() -> None:
    truth = np.zeros((3, 4, 4), np.uint8)
    truth[0, :2] = 1
    truth[2] = VOID
    predicted = np.zeros((3, 4, 4), np.uint8)
    predicted[0, 0], predicted[1, 0] = 1, 2  # half of the cat is found; a dog that is not there
    scores = Segmentation().scores(predicted, masks_of(truth))
    assert scores[:2] == pytest.approx([(8 / 12 + 4 / 8) / 2, 12 / 16])
    assert math.isnan(scores[2])


def test_masks_move_with_their_pixels_and_what_the_cut_shows_is_present() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(np.repeat(rng.integers(0, 4, (6, 4, 4)).astype(np.uint8), 4, 1), 4, 2)
    labels = masks_of(values)
    flipped = torch.tensor([True, False] * 3)
    geometry = Geometry.shift(torch.randint(-3, 4, (6, 2, 1)), flipped, 16, 16)
    found = Segmentation().targets(labels, None, 4, geometry)
    assert torch.equal(found.masks, geometry.pixels(torch.from_numpy(values)[:, None])[:, 0])
    shown = np.array([[(mask == k).any() for k in range(4)] for mask in found.masks.numpy()])
    assert found.presence[:, 1, 1:].bool().numpy().tolist() == shown[:, 1:].tolist()
    assert not found.presence[:, 0, 0].any() and found.presence[:, 0, 1:].all()  # nobody is asked for the background
    assert found.share.numpy() == pytest.approx((values == 0).mean(axis=(1, 2))), "of the whole mask"
    assert Segmentation().targets(labels.hidden(np.ones(6, np.bool_)), None, 4, geometry).share.isnan().all()


def test_a_class_that_only_pixels_that_count_for_nothing_may_show_is_not_taught_as_absent() -> None:
    values = np.zeros((4, 8, 8), np.uint8)
    values[:3, :4, :4], values[1, 0, 0], values[3, :, 4:] = VOID, 1, 1  # a crowd of cats; no crowd in the last
    labels = masks_of(values)
    labels = replace(labels, presence_of_classes=np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, -1], [1, 1, 0, 0]]))
    found = Segmentation().targets(labels, None, 4, None).presence
    assert found[:, 0, 1:].tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]]
    assert found[:, 1, 1:].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    left = Geometry.crop(torch.full((4, 2), -1.0), torch.full((4, 2), 0.5), torch.zeros(4).bool(), 8)
    assert Segmentation().targets(labels, None, 4, left).presence[3, 0, 1:].all(), "the cut shows no cat"


def test_a_teacher_says_what_images_without_a_mask_show() -> None:
    task = Segmentation()
    labels = masks_of(np.ones((3, 8, 8), np.uint8)).hidden(np.array([False, True, True]))
    soft = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, np.nan, 0.9], [np.nan] * 4], np.float32)
    assert task.has_target(labels, soft).tolist() == [True, True, False]
    assert task.weak(labels, soft).tolist() == [False, True, False]
    assert Segmentation(presence=0.0).has_target(labels, soft).tolist() == [True, False, False]
    found = task.targets(labels, soft, 4, Geometry.shift(torch.zeros(3, 2, 1).long(), torch.zeros(3).bool(), 8, 8))
    assert found.presence[0, 1].tolist() == [0, 1, 0, 0]  # its mask is known better
    assert torch.allclose(found.presence[1], torch.tensor([[0, 0.2, 0, 0.8], [0, 0.2, 0, 0.8]]))
    assert (found.masks[1:] == VOID).all() and not found.presence[2].any()


def test_tags_stay_known_until_they_are_taken_away_and_background_is_no_tag() -> None:
    labels = annotation.hidden(masks_of(np.full((2, 4, 4), 2, np.uint8)), np.array([False, True]))
    assert annotation.known(labels).tolist() == [True, False]
    assert annotation.of_images(labels, 4).tolist() == [[-1, 0, 1, 0]] * 2
    assert annotation.of_images(annotation.untagged(labels), 4).tolist() == [[-1, 0, 1, 0], [-1] * 4]
    assert annotation.counts(labels, 4).tolist() == [0, 0, 1, 0]
    assert annotation.groups(labels).tolist() == [2, -1]


def test_a_set_without_masks_or_with_one_class_is_refused(colour_folder: Path) -> None:
    with pytest.raises(DataError, match="has no masks, which --task segmentation needs"):
        Segmentation().annotations(load_dataset(f"folder:{colour_folder}"))
    with pytest.raises(DataError, match="masks of 1 class"):
        Segmentation().require(masks_of(np.zeros((1, 2, 2), np.uint8)), ("all",), "masks:here")


def test_a_run_learns_shapes_and_its_records_hold_masks(drawn_run: Path) -> None:
    run = drawn_run / "run"
    outcome = evaluate(EvaluateConfig(run_dir=run))
    facts = read_json(outcome.path)
    assert facts["task"] == "segmentation" and facts["metric"] == "mIoU" and facts["mIoU"] > 0.5
    assert "IoU per class" in outcome.text
    table = pq.read_table(run / "predictions-test.parquet")
    masks = np.stack([np.asarray(Image.open(io.BytesIO(cell))) for cell in table["mask"].to_pylist()])
    assert masks.shape == (8, 32, 32) and masks.dtype == np.uint8
    images = load_dataset(f"masks:{drawn_run / 'set'}")
    labels = Segmentation().annotations(images)[images.indices("test")]
    again = Segmentation().measure(masks, labels, images.classes)
    assert again["mIoU"] == facts["mIoU"]
    assert table["score"].to_pylist() == pytest.approx(Segmentation().scores(masks, labels).tolist())
    assert table["prediction"].to_pylist() == [np.unique(mask).tolist() for mask in masks]


def test_on_frozen_weights_the_head_learns_also_from_tags_on_top_of_masks(drawn_run: Path, tmp_path: Path) -> None:
    parts = {name.partition("backbone."): value for name, value in load_file(drawn_run / "run" / runs.MODEL).items()}
    save_file({name: value for (_, found, name), value in parts.items() if found}, tmp_path / "plain.safetensors")
    own = {"data": f"masks:{drawn_run / 'set'}", "init": str(tmp_path / "plain.safetensors"), "freeze": "all"}
    ready = prepare(TrainConfig(**{**worlds.SMALL, **own, "out": tmp_path / "run"}), ("train",))
    trainer = build(ready.config, ready.data)
    learn = {name for name, weights in trainer.backbone.named_parameters() if weights.requires_grad}
    parts = {".".join(name.split(".")[: 2 if name.startswith("backbone") else 1]) for name in learn}
    assert parts == {"backbone.fc", "levels", "branches", "of_cells"}
    assert trainer.batches.size == 11  # three with tags come on top of eight masks, since there are a third as many


def some_targets(rng: np.random.Generator, images: int = 5, side: int = 8, background: int = 0) -> PixelTargets:
    masks = rng.integers(0, 4, (images, side, side)).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.2] = VOID
    masks[images // 2 :] = VOID
    known = (rng.random((images, 4)) < 0.7).astype(np.float32)
    known[:, 0], known[-1] = 0.0, 0.0
    presence = np.stack([known, known * rng.random((images, 4))], axis=1).astype(np.float32)
    share = np.where(np.arange(images) < images // 2, rng.random(images), np.nan).astype(np.float32)
    return PixelTargets(
        masks=torch.from_numpy(masks),
        presence=torch.from_numpy(presence),
        background=background,
        share=torch.from_numpy(share),
    )


def loop_pixels(logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
    pixels = torch.nn.functional.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    total, count = torch.zeros((), dtype=logits.dtype), 0
    for i, row, column in torch.nonzero(masks != VOID).tolist():
        p = torch.exp(pixels[i, :, row, column]) / torch.exp(pixels[i, :, row, column]).sum()
        truth = int(masks[i, row, column])
        total = total - (1 - smoothing) * torch.log(p[truth]) - smoothing * torch.log(p).mean()
        count += 1
    return total / count


def loop_presence(logits: Tensor, targets: PixelTargets) -> Tensor:
    """The docstring of ``presence_loss``, one number at a time."""
    shown, counted = torch.zeros((), dtype=logits.dtype), 0.0
    for i in range(len(logits)):
        cells = torch.exp(logits[i].flatten(1))
        foreground = torch.ones(cells.shape[1], dtype=logits.dtype)
        if targets.background >= 0:
            foreground = 1 - (cells[targets.background] / cells.sum(dim=0)).detach()
        asked = [k for k in range(len(cells)) if k != targets.background]
        for k in asked:
            count, present = targets.presence[i, 0, k].double(), targets.presence[i, 1, k].double()
            p = cells[k] / cells[asked].sum(dim=0)
            odds = p / (1 - p)
            weights = odds * foreground
            score = (weights * torch.log(odds)).sum() / weights.sum()
            sure = 1 / (1 + torch.exp(-score))
            shown = shown - present * torch.log(sure) - (count - present) * torch.log(1 - sure)
            counted += float(count)
    return shown / counted


def loop_share(logits: Tensor, targets: PixelTargets, smoothing: float) -> Tensor:
    """The docstring of ``share_loss``, one number at a time."""
    if targets.background < 0:
        return torch.zeros((), dtype=logits.dtype)
    shares = [float(share) for share in targets.share if not share.isnan()]
    found: list[Tensor] = []
    for i in range(len(logits)):
        if targets.share[i].isnan() and targets.presence[i, 0].sum() > 0:
            cells = torch.exp(logits[i].flatten(1))
            found.append((cells[targets.background] / cells.sum(dim=0)).mean())
    s = (1 - smoothing) * sum(shares) / len(shares) + smoothing / logits.shape[1]
    a = torch.stack(found).mean()
    return s * torch.log(s / a) + (1 - s) * torch.log((1 - s) / (1 - a))


@pytest.mark.parametrize(("smoothing", "background"), [(0.0, -1), (0.2, 0)])
def test_the_losses_and_their_gradients_are_those_of_naive_loops(smoothing: float, background: int) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (5, 4, 12, 12))).requires_grad_()
    targets = some_targets(rng, background=background)
    pairs = [
        (pixel_loss(logits, targets.masks, smoothing), loop_pixels(logits, targets.masks, smoothing)),
        (presence_loss(logits, targets), loop_presence(logits, targets)),
        (share_loss(logits, targets, smoothing), loop_share(logits, targets, smoothing)),
    ]
    for ours, naive in pairs:
        assert torch.allclose(ours, naive, rtol=1e-5)  # the part "present" is a float32
        if naive.requires_grad:
            (mine,), (expected,) = torch.autograd.grad(ours, logits), torch.autograd.grad(naive, logits)
            assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-8)
        else:
            assert not ours.requires_grad
    both = Segmentation(presence=0.3).loss(logits, targets, smoothing)
    assert torch.allclose(both, pairs[0][0] + 0.3 * (pairs[1][0] + pairs[2][0]))
    assert torch.equal(Segmentation(presence=0.0).loss(logits, targets, smoothing), pairs[0][0])


def test_what_is_taken_out_has_no_gradient_and_extreme_logits_are_finite() -> None:
    task, rng = Segmentation(), np.random.default_rng(1)
    logits = torch.from_numpy(rng.choice([-1e4, 1e4], (5, 4, 4, 4))).float().requires_grad_()
    targets = task.without_target(some_targets(rng), torch.tensor([True, False, True, False, True]))
    loss = task.loss(logits, targets, 0.1)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all()
    assert not gradient[[0, 2, 4]].any()
    nothing = task.without_target(targets, torch.ones(5, dtype=torch.bool))
    assert task.loss(logits, nothing, 0.1).item() == 0.0
