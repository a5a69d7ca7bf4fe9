"""The losses of masks, tags and boxes against naive loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt4image.data.regions import VOID, Boxes, ImageBoxes
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.tasks.segmentation_losses import PixelTargets, box_loss, pixel_loss, presence_loss, share_loss


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


def some_boxes(rng: np.random.Generator, images: int = 5, most: int = 3) -> Boxes:
    def one() -> ImageBoxes:
        count = int(rng.integers(0, most + 1))
        corner = rng.random((count, 2)) * 0.6
        corners = np.concatenate([corner, corner + 0.02 + 0.38 * rng.random((count, 2))], axis=1).astype(np.float32)
        weights = np.where(rng.random(count) < 0.3, 0.0, 0.2 + 0.8 * rng.random(count)).astype(np.float32)
        return corners, rng.integers(1, 4, count), weights

    return Boxes.of_images([one() if number else None for number in range(images)])


def loop_boxes(logits: Tensor, boxes: Boxes, background: int) -> Tensor:
    """The docstring of ``box_loss``, one number at a time."""
    height, width = logits.shape[2:]
    outside: list[Tensor] = []
    inside, total = torch.zeros((), dtype=logits.dtype), 0.0
    for i in np.flatnonzero(boxes.known).tolist():
        p = torch.exp(logits[i]) / torch.exp(logits[i]).sum(dim=0)
        corners, labels, weights = boxes.image(i)
        cells = [
            [
                (r, c)
                for r in range(height)
                for c in range(width)
                if x < (c + 0.5) / width < u and y < (r + 0.5) / height < v
            ]
            for x, y, u, v in corners.tolist()
        ]
        for r in range(height):
            for c in range(width):
                own = {int(label) for label, around in zip(labels, cells, strict=True) if (r, c) in around}
                allowed = sorted(own | ({background} if background >= 0 else set()))
                outside += [-torch.log(p[allowed, r, c].sum())] if allowed else []
        for label, weight, around in zip(labels.tolist(), weights.tolist(), cells, strict=True):
            lines = [[p[label, r, c] for r, c in around if r == row] for row in sorted({r for r, _ in around})]
            lines += [[p[label, r, c] for r, c in around if c == column] for column in sorted({c for _, c in around})]
            if lines:
                inside = inside - weight * torch.stack([torch.log(max(line)) for line in lines]).mean()
                total += weight
    return torch.stack(outside).mean() + inside / max(total, 1.0)


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


@given(seed=st.integers(0, 10_000), background=st.sampled_from([-1, 0]))
@settings(max_examples=20)
def test_the_loss_of_boxes_and_its_gradient_are_those_of_naive_loops(seed: int, background: int) -> None:
    rng = np.random.default_rng(seed)
    logits, boxes = torch.from_numpy(rng.normal(0, 2, (4, 4, 6, 5))).requires_grad_(), some_boxes(rng, 4)
    ours = box_loss(logits, torch.from_numpy(boxes.padded()), background)
    if background < 0 and not len(boxes.labels):
        assert ours.item() == 0.0
        return
    naive = loop_boxes(logits, boxes, background)
    assert torch.allclose(ours, naive, rtol=1e-5)
    (mine,), (expected,) = torch.autograd.grad(ours, logits), torch.autograd.grad(naive, logits)
    assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-8)


def test_presence_takes_no_cell_from_the_background_unless_there_is_one_other_class() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masks, share = torch.full((2, 8, 8), VOID), torch.full((2,), torch.nan)
    targets = PixelTargets(masks=masks, presence=torch.ones(2, 2, 3), background=0, share=share)
    (gradient,) = torch.autograd.grad(presence_loss(logits, targets), logits)
    assert not gradient[:, 0].any() and gradient[:, 1:].any()
    assert torch.allclose(gradient.sum(dim=1), torch.zeros(2, 4, 4), atol=1e-7), "no cell gets more of all classes"
    one = replace(targets, presence=torch.ones(2, 2, 2))
    (gradient,) = torch.autograd.grad(presence_loss(logits[:, :2], one), logits)
    assert gradient[:, 1].any()


def test_the_share_of_background_is_held_where_something_but_no_mask_is_known() -> None:
    targets = some_targets(np.random.default_rng(3))
    share = float(targets.share[:2].mean())
    logits = torch.zeros(5, 4, 4, 4)
    logits[:, 0] = np.log(3 * share / (1 - share))
    assert share_loss(logits, targets, 0.0).item() == pytest.approx(0.0, abs=1e-6), "as in the masks"
    logits = (logits + torch.tensor([0.0, 1, 0, 0])[:, None, None]).requires_grad_()
    loss = share_loss(logits, targets, 0.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() > 0 and (gradient[2:4, 0] < 0).all() and (gradient[2:4, 1] > 0).all()
    assert not gradient[[0, 1, 4]].any(), "masks teach the first two, and nothing is known of the last"
    for nothing in (replace(targets, share=torch.full((5,), torch.nan)), replace(targets, share=torch.rand(5))):
        assert share_loss(logits, nothing, 0.0).item() == 0.0


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
