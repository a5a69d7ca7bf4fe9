"""Steps of models of timm that take less time, by torch.compile, or less memory, by computing activations again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any

import torch
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.parallel import batch_layers


def compile_training(module: nn.Module, device: torch.device) -> None:
    """Let torch.compile speed up what a backbone of timm does before its pooling, while it is in training mode."""
    backbone: Any = module
    if not hasattr(backbone, "forward_features"):
        raise ModelError("--compile is for models of timm; leave it out.")
    if missing := compiler_missing(device):
        raise ModelError(f"--compile: {missing}.")
    plain = backbone.forward_features
    fast = torch.compile(plain)

    def forward_features(*args: Any, **kwargs: Any) -> Any:  # ViTs take a mask of attention beside the images
        return (fast if backbone.training else plain)(*args, **kwargs)

    backbone.forward_features = forward_features


def compiler_missing(device: torch.device) -> str:
    """Say what torch.compile lacks on a device, and what to do; an empty text where it lacks nothing."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler}; install it, or name yours in CXX"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "there is no Triton; pip install triton"
    if device.type == "cuda" and not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "there is no C compiler, which Triton needs; install gcc, or name yours in CC"
    return ""


def checkpoint_activations(module: nn.Module, name: str) -> None:
    """Let a timm model keep only the input of each block, and compute the rest again in the backward pass."""
    if batch_layers.has_batch_norm(module):
        raise ModelError(
            f"--checkpoint-activations computes forward passes twice, and {name} has batch norm, which would count "
            "each batch twice: leave it out, or take a model with layer norm (a ViT, DeiT, ConvNeXt or Swin)."
        )
    try:
        module.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]
    except (AttributeError, AssertionError):
        raise ModelError(f"--checkpoint-activations: timm has none for {name}; leave it out.") from None
