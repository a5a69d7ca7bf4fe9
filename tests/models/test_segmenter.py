"""The segmentation head: sizes of its outputs on several kinds of models, and what lies beneath it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone
from gpt4image.models.segmenter import Segmenter

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


def test_the_classifier_below_keeps_its_weights_and_gives_the_features_that_texts_are_aligned_to() -> None:
    plain = backbone("resnet10t", 64).eval()
    weights = {f"backbone.{name}": value.clone() for name, value in plain.state_dict().items()}
    model = Segmenter(plain, 64).eval()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    images = torch.randn(3, 3, 64, 64)
    outputs, embeddings = Aligner(model, 7)(images)
    assert outputs.shape == (3, 5, 16, 16) and embeddings.shape == (3, 7)
    moved = {**model.state_dict(), "backbone.fc.bias": model.state_dict()["backbone.fc.bias"] + 1.5}
    model.load_state_dict(moved)
    assert torch.equal(model(images), outputs), "what the whole picture shows does not say where"
