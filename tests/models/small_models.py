"""Small backbones and images for tests of models and aligners."""

from __future__ import annotations

import torch
from torch import nn

from gpt4image.models.backbones import create_backbone

CLASSES = 5


def small_resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create_backbone("test_resnet", classes=CLASSES, image_size=32, stem="small").module


def images(size: int = 32, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))
