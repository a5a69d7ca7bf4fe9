"""VideoMAE (Tong et al. 2022, arXiv 2203.12602) of transformers, a model of clips for GPUs, under the names

    videomae                  the base model; --model-args '{"hidden_size": 192, ...}' changes its configuration
    videomae:NAME_OR_PATH     as its folder, here or on the hub, configures it; --init pretrained reads its weights

Only safetensors are read, and code that comes with a model is never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from gpt4image.base.errors import ModelError
from gpt4image.models.hugging_face import find_folder, loading

NAME = "videomae"
FILES = ("*.json", "*.safetensors")


class Created(NamedTuple):
    """A model, and the names of its layers that start from random weights where others were given."""

    module: VideoMae
    new_layers: tuple[str, ...]


class VideoMae(nn.Module):
    """Clips (B, 3 T, S, S) or (B, T, 3, S, S) to logits (B, K); the classifier reads the mean of all tokens."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.frames: int = network.config.num_frames

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits."""
        return self.network(clips.reshape(-1, self.frames, 3, *clips.shape[-2:])).logits

    def get_classifier(self) -> nn.Linear:
        """Return the layer that gives the logits."""
        return self.network.classifier


def is_videomae(name: str) -> bool:
    """Return whether this is the name of such a model."""
    return name.partition(":")[0] == NAME


def create_videomae(name: str, classes: int, image_size: int, init: str, model_args: Mapping[str, Any]) -> Created:
    """Create a VideoMAE for clips of ``model_args["num_frames"]`` frames.

    Raises:
        ModelError: the folder, the arguments, the size or the number of frames cannot be used.
    """
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    kind: Any = VideoMAEConfig  # its parameters are typed one by one
    place = name.partition(":")[2]
    try:
        folder = find_folder(place, FILES) if place else None
    except LookupError as error:
        raise ModelError(f"--model {name}: {error}.") from None
    own = {"num_labels": classes, "image_size": image_size}
    with loading(f"--model {name} cannot be made with {dict(model_args)}", ModelError):
        made = kind() if folder is None else kind.from_pretrained(folder, local_files_only=True)
        config = kind(**{**made.to_dict(), **model_args, **own})
    _require_fit(config, name)
    if init == "scratch":
        with loading(f"--model {name} cannot be made with {dict(model_args)}", ModelError):
            return Created(VideoMae(VideoMAEForVideoClassification(config)), ())
    if init != "pretrained" or folder is None:
        raise ModelError(f"--init {init}: {NAME} reads weights with --model {NAME}:NAME_OR_PATH --init pretrained.")
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    with loading(f"--model {name}: its weights cannot be loaded", ModelError):
        network = VideoMAEForVideoClassification.from_pretrained(folder, config=config, **options)
    return Created(VideoMae(network), ("network.classifier",))


def _require_fit(config: Any, name: str) -> None:
    if config.num_frames % config.tubelet_size or config.image_size % config.patch_size:
        raise ModelError(
            f"--model {name}: --frames {config.num_frames} must be a multiple of {config.tubelet_size}, and "
            f"--image-size {config.image_size} of {config.patch_size}."
        )
