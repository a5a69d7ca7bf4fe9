"""Feature pyramids, and FCOS, whose reference is torchvision's: what points learn, the loss, and suppression."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS

from gpt4image.base.errors import ModelError
from gpt4image.data.regions import MOST_BOXES, NO_ANNOTATION, NO_BOX
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone
from gpt4image.models.detector import POINT, BestBoxes, Detector, assign, detection_loss, points_of, settled, suppressed
from gpt4image.models.pyramid import PyramidModel, Segmenter

SIZE, CLASSES = 256, 5


@pytest.fixture(scope="module")
def reference() -> FCOS:
    torch.manual_seed(0)
    body = timm.create_model("resnet10t", num_classes=0)
    layers = {f"layer{number}": str(number) for number in (2, 3, 4)}
    backbone = BackboneWithFPN(body, layers, [128, 256, 512], 64)
    anchors = AnchorGenerator(tuple((side,) for side in (8, 16, 32, 64)), ((1.0,),) * 4)
    return FCOS(backbone, CLASSES, anchor_generator=anchors, min_size=SIZE, max_size=SIZE)


def some_boxes(images: int, each: int) -> Tensor:
    """Return (images, each, 6) targets; some are small, some large, the last of every second image is none."""
    torch.manual_seed(1)
    corner = torch.rand(images, each, 2) * 0.6
    sides = 0.04 + torch.rand(images, each, 2) * 0.36
    classes = torch.randint(0, CLASSES, (images, each, 1)).float()
    rows = torch.cat([corner, corner + sides, classes, torch.ones(images, each, 1)], dim=-1)
    rows[::2, -1, 4:] = torch.tensor([NO_BOX, 0.0])
    return rows


def both(reference: FCOS, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return our outputs and the losses of torchvision for the same head, points and boxes."""
    images, _ = reference.transform(list(torch.rand(len(targets), 3, SIZE, SIZE)), None)
    maps = list(reference.backbone(images.tensors).values())
    found = reference.head(maps)
    anchors = reference.anchor_generator(images, maps)
    theirs: Any = [
        {"boxes": rows[rows[:, 4] >= 0, :4] * SIZE, "labels": rows[rows[:, 4] >= 0, 4].long()} for rows in targets
    ]
    losses = reference.compute_loss(theirs, found, anchors, [part.shape[2] * part.shape[3] for part in maps])
    middle, stride = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2, anchors[0][:, 2:3] - anchors[0][:, :1]
    points = torch.cat([middle, stride], dim=1) / SIZE
    parts = [found["cls_logits"], found["bbox_regression"], found["bbox_ctrness"]]
    return torch.cat([*parts, points.expand(len(targets), -1, -1)], dim=-1), losses


def test_loss_and_gradient_are_those_of_torchvision(reference: FCOS) -> None:
    torch.manual_seed(2)
    targets = some_boxes(4, 6)
    outputs, losses = both(reference, targets)
    ours, theirs = detection_loss(outputs, targets), sum(losses.values())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = [reference.head.regression_head.bbox_reg.weight, reference.head.classification_head.conv[0].weight]
    for one, other in zip(
        torch.autograd.grad(ours, weights, retain_graph=True), torch.autograd.grad(theirs, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def outputs_for(classes: int = 3) -> Tensor:
    torch.manual_seed(0)
    points = torch.cat([points_of(8), points_of(4)])
    rows = torch.randn(1, len(points), classes + POINT)
    rows[..., classes : classes + 4] = rows[..., classes : classes + 4].abs() + 0.5
    rows[..., -3:] = points
    return rows.requires_grad_()


def row(*numbers: float) -> Tensor:
    return torch.tensor([[numbers]], dtype=torch.float32)


def test_unknown_pictures_count_for_nothing_and_ignored_regions_neither_as_object_nor_as_background() -> None:
    outputs = outputs_for()
    unknown = detection_loss(outputs, row(0, 0, 0, 0, NO_ANNOTATION, 0))
    assert unknown.item() == 0.0
    loss = detection_loss(outputs, row(0.0, 0.0, 0.5, 0.5, 1, 0.0))
    (gradient,) = torch.autograd.grad(loss, outputs)
    points = outputs[0, :, -3:]
    inside = (points[:, 0] < 0.5) & (points[:, 1] < 0.5)
    assert (gradient[0, inside] == 0).all()
    assert (gradient[0, ~inside, :3] != 0).all()


def test_a_box_of_a_weight_is_there_with_that_probability() -> None:
    outputs = outputs_for()
    box = (0.1, 0.1, 0.6, 0.6, 1)
    weight = assign(outputs[0, :, -3:].detach(), row(*box, 1.0)).weight
    count = float((weight > 0).sum())
    assert count >= 2  # so that the sum of weights is at least 1 for a box of one half too
    sure, half = (detection_loss(outputs, row(*box, each)) for each in (1.0, 0.5))
    none = detection_loss(outputs, row(0, 0, 0, 0, NO_BOX, 0))  # divided by 1
    torch.testing.assert_close(half * count / 2, (sure * count + none) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_rounds_come_to_what_torchvision_suppresses_to(seed: int) -> None:
    torch.manual_seed(seed)
    corner = torch.rand(300, 2) * 0.7
    rows = torch.cat([corner, corner + 0.15 + torch.rand(300, 2) * 0.1 * (seed + 1), torch.rand(300, 1)], dim=1)
    rows = torch.cat([rows, torch.randint(0, 3, (300, 1)).float()], dim=1)
    rows = rows[rows[:, 4].argsort(descending=True)]
    rows[250:] = rows[7] = 0.0
    ours = suppressed(rows)
    assert 10 < (ours[:, 4] > 0).sum() <= MOST_BOXES
    assert torch.equal(settled(rows[None])[0], ours)


def test_boxes_of_outputs_are_decoded_and_the_best_come_first() -> None:
    outputs = torch.zeros(1, 64, 2 + POINT)
    outputs[..., :2] = -10.0
    outputs[..., -3:] = points_of(8)
    outputs[0, 9, 1], outputs[0, 9, 2:6], outputs[0, 9, 6] = 3.0, torch.tensor([0.5, 1.0, 1.5, 9.0]), 4.0
    outputs[0, 54, 0], outputs[0, 54, 2:6], outputs[0, 54, 6] = 5.0, torch.ones(4), 4.0
    outputs[0, 0, 0], outputs[0, 0, 2:6], outputs[0, 0, 6] = 5.0, torch.tensor([9.0, 9.0, -9.0, 9.0]), 4.0  # outside
    (rows,) = BestBoxes()(outputs)
    assert rows[:2, 5].tolist() == [0.0, 1.0]
    torch.testing.assert_close(rows[1, :4], torch.tensor([0.125, 0.0625, 0.375, 1.0]))
    assert not rows[2:].any()


@pytest.mark.parametrize(
    ("name", "size", "arguments", "sides"),
    [
        ("resnet10t", 128, {}, (16, 8, 4, 2)),
        ("convnext_atto", 224, {}, (28, 14, 7, 4, 2)),
        ("vit_tiny_patch16_224", 96, {"img_size": 96, "depth": 2}, (12, 6, 3, 2)),
        ("efficientnet_lite0", 160, {}, (20, 10, 5, 3, 2)),
    ],
)
def test_maps_have_the_sides_that_are_announced(
    name: str, size: int, arguments: dict[str, Any], sides: tuple[int, ...]
) -> None:
    model = PyramidModel(timm.create_model(name, num_classes=5, **arguments), size, coarsest=128)
    maps, logits = model.read(torch.randn(2, 3, size, size))
    assert model.sides == sides
    assert [tuple(found.shape) for found in maps] == [(2, model.width, side, side) for side in sides]
    assert logits.shape == (2, 5)


def test_a_model_without_feature_maps_is_refused() -> None:
    with pytest.raises(ModelError, match="take another --model"):
        PyramidModel(torch.nn.Linear(3, 3), 64)


@pytest.mark.parametrize("head", [lambda model: Detector(model, 64, 5), lambda model: Segmenter(model, 64)])
def test_what_is_deployed_goes_without_the_classifier(head: Callable[[Any], PyramidModel]) -> None:
    model = head(timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, depth=2)).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)
    model.classifies = False
    model.get_classifier().register_forward_hook(lambda *_: pytest.fail("the classifier ran"))
    assert torch.equal(model(images), expected)


MODELS: dict[str, dict[str, Any]] = {
    "resnet10t": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]},
    "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 16, "num_heads": 2},
}


def backbone(name: str, size: int) -> nn.Module:
    return create_backbone(name, classes=5, image_size=size, model_args=MODELS[name]).module


@pytest.mark.parametrize(("name", "size"), [*((name, 64) for name in MODELS), ("resnet10t", 72)])
def test_a_cell_stands_for_four_pixels_and_every_parameter_learns(name: str, size: int) -> None:
    torch.manual_seed(0)
    model = Segmenter(backbone(name, size), size)
    outputs = model(torch.randn(2, 3, size, size))
    assert outputs.shape == (2, 5, size // 4, size // 4)
    outputs.square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without  # DistributedDataParallel waits for each of them


def test_what_the_whole_picture_shows_does_not_say_where() -> None:
    model, images = Segmenter(backbone("resnet10t", 64).eval(), 64).eval(), torch.randn(3, 3, 64, 64)
    outputs, embeddings = Aligner(model, 7)(images)
    assert outputs.shape == (3, 5, 16, 16) and embeddings.shape == (3, 7)
    moved = {**model.state_dict(), "backbone.fc.bias": model.state_dict()["backbone.fc.bias"] + 1.5}
    model.load_state_dict(moved)
    assert torch.equal(model(images), outputs)
