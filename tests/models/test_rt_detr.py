"""The loss of sets of boxes: that of transformers, with weights and ignored regions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert
from transformers import RTDetrV2Config
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

from gpt4image.data.regions import NO_ANNOTATION, NO_BOX
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone
from gpt4image.models.detector import BestBoxes
from gpt4image.models.rt_detr import set_loss
from tiny_dense import RT_DETR, write_config

CLASSES = 5


def outputs() -> Tensor:
    torch.manual_seed(0)
    found = torch.randn(2, 3, 20, CLASSES + 4, dtype=torch.float64)
    found[..., CLASSES:] = found[..., CLASSES:].sigmoid()
    return found.requires_grad_()


def targets(*changes: tuple[int, int, list[float]]) -> Tensor:
    rows = torch.zeros(2, 3, 6)
    rows[..., 4] = NO_BOX
    rows[0, 0] = torch.tensor([0.1, 0.1, 0.4, 0.5, 2, 1])
    rows[0, 1] = torch.tensor([0.5, 0.1, 0.9, 0.5, 1, 1])
    rows[1, 0] = torch.tensor([0.2, 0.3, 0.9, 0.8, 0, 1])
    for image, row, values in changes:
        rows[image, row] = torch.tensor(values)
    return rows


def gradient(found: Tensor, rows: Tensor) -> Tensor:
    return torch.autograd.grad(set_loss(found, rows), found)[0]


def test_it_is_the_loss_of_transformers_where_all_weights_are_one() -> None:
    found, rows = outputs(), targets().double()
    labels = [
        {"class_labels": own[:, 4].long(), "boxes": box_convert(own[:, :4], "xyxy", "cxcywh")}
        for own in (each[each[:, 4] >= 0] for each in rows)
    ]
    logits, boxes = found[..., :CLASSES], found[..., CLASSES:]
    theirs = RTDetrForObjectDetectionLoss(
        logits[:, -1],
        labels,
        "cpu",
        boxes[:, -1],
        RTDetrV2Config(num_labels=CLASSES),
        outputs_class=logits[:, 1:],
        outputs_coord=boxes[:, 1:],
        enc_topk_logits=logits[:, 0],
        enc_topk_bboxes=boxes[:, 0],
    )[0]
    ours = set_loss(found, rows)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(found, rows), torch.autograd.grad(theirs, found)[0], rtol=1e-5, atol=1e-5)


def test_an_ignored_region_is_neither_object_nor_background() -> None:
    found = outputs()
    whole = gradient(found, targets((0, 2, [0.0, 0.0, 1.0, 1.0, 3, 0.0])))
    assert whole[0].any(dim=-1).sum() == 6  # of three layers, the queries of two objects
    assert torch.equal(whole[1], gradient(found, targets())[1])


def test_images_that_nobody_annotated_have_no_gradient() -> None:
    found = outputs()
    blank = [0.0, 0.0, 0.0, 0.0, float(NO_ANNOTATION), 0.0]
    rows = targets(*((1, row, blank) for row in range(3)))
    assert not gradient(found, rows)[1].any()
    assert set_loss(found, rows[[1, 1]]).item() == 0.0
    empty = targets((1, 0, [0.0, 0.0, 0.0, 0.0, float(NO_BOX), 0.0]))
    assert gradient(found, empty)[1].any(dim=-1).all()  # it is all background


def test_a_box_counts_by_its_weight() -> None:
    found = outputs()
    logits = found.detach()
    present, absent, half = (set_loss(logits, targets((0, 0, [0.1, 0.1, 0.4, 0.5, 2, w]))) for w in (1.0, 1e-9, 0.5))
    torch.testing.assert_close(half * 2.5, (present * 3 + absent * 2) / 2)


def test_outputs_that_are_no_numbers_have_a_loss_that_is_none() -> None:
    assert set_loss(torch.full((2, 3, 20, CLASSES + 4), torch.nan), targets()).isnan()


def test_mixed_precision_keeps_the_digits_of_boxes(tmp_path: Path) -> None:
    model = create_backbone(write_config(tmp_path, RT_DETR), classes=3, image_size=64).module
    with torch.autocast("cpu", torch.bfloat16):
        found = model(torch.randn(2, 3, 64, 64))
    assert found.dtype == torch.float32
    assert not torch.equal(found[..., 3:], found[..., 3:].bfloat16().float())
    set_loss(found, targets()).backward()
    assert all(part.grad is not None for part in model.parameters())


def test_the_last_layer_gives_the_boxes_best_first() -> None:
    found = torch.full((1, 2, 3, 6), -9.0)
    found[..., 2:] = torch.tensor([0.5, 0.5, 0.2, 0.4])
    found[0, 1, 2, 1], found[0, 1, 0, 0], found[0, 0, 1, 1] = 2.0, 1.0, 9.0
    (rows,) = BestBoxes()(found)
    assert rows.shape == (100, 6)
    torch.testing.assert_close(rows[0], torch.tensor([0.4, 0.3, 0.6, 0.7, 0.8808, 1.0]), rtol=0, atol=1e-4)
    assert rows[1, 5] == 0.0 and not rows[2:].any()


@pytest.mark.parametrize(("size", "asked", "queries"), [(32, 84, 21), (64, 30, 30)])
def test_texts_can_be_aligned_to_its_pooled_feature(size: int, asked: int, queries: int, tmp_path: Path) -> None:
    name = write_config(tmp_path, {**RT_DETR, "num_queries": asked})
    model = create_backbone(name, classes=3, image_size=size).module
    found, embeddings = Aligner(model, 7)(torch.randn(2, 3, size, size))
    assert found.shape == (2, 3, queries, 7)
    assert embeddings.shape == (2, 7) and embeddings.isfinite().all()
