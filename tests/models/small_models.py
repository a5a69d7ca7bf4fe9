"""Small backbones and images for tests of models and aligners, and files of a cache of the hub."""

from pathlib import Path

import torch
from torch import nn

from gpt4image.models.backbones import create_backbone

CLASSES = 5


def small_resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create_backbone("test_resnet", classes=CLASSES, image_size=32, stem="small").module


def in_hub_cache(cache: Path, repository: str, file: str, content: str = "") -> Path:
    """Put a file of a repository into a cache of the Hugging Face hub, and return its folder there."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / file).write_text(content)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("c0ffee")
    return snapshot


def images(size: int = 32, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))
