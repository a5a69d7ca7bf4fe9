"""Feature pyramids over timm classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import classifier_names, create_backbone
from gpt4image.models.detector import Detector
from gpt4image.models.pyramid import PyramidModel, Segmenter


class Read(PyramidModel):
    """Logits are its output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.read(images)[1]


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


def test_logits_are_those_of_the_classifier_and_texts_can_be_aligned_to_their_feature() -> None:
    plain = timm.create_model("resnet10t", num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = plain(images)
    model = Read(plain, 64).eval()
    assert classifier_names(model) == ("backbone.fc",)
    logits, embeddings = Aligner(model, 12)(images)
    torch.testing.assert_close(logits, expected)
    assert embeddings.shape == (2, 12)


def test_a_model_without_feature_maps_is_refused() -> None:
    with pytest.raises(ModelError, match="take another --model"):
        PyramidModel(torch.nn.Linear(3, 3), 64)


@pytest.mark.parametrize("head", [lambda model: Detector(model, 64, 5), lambda model: Segmenter(model, 64)])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "vit_tiny_patch16_224"])
def test_what_is_deployed_goes_without_the_classifier(name: str, head: Callable[[Any], PyramidModel]) -> None:
    sized = {"img_size": 64, "depth": 2} if name.startswith("vit") else {}
    model = head(timm.create_model(name, num_classes=5, **sized)).eval()
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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [64, 72])
def test_a_cell_stands_for_four_pixels_and_every_parameter_learns(name: str, size: int) -> None:
    if name.startswith("vit"):
        size = 64
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
