"""From a picture to the input of a deployed model: exactly as in the evaluation of its run.

    preprocessing = Preprocessing.of_run(load_run_model(run_dir, None, classes))
    pixels = preprocessing.pixels(path.read_bytes())        # uint8 (3, S, S)
    images = as_images(np.stack([pixels, ...]))             # float32 (n, 3, S, S), RGB in 0..1

A model of clips takes their frames, (n, T, 3, S, S). All deployed models take such inputs; mean and standard deviation
are inside ONNX and torch-export files, and applied by ``normalised`` for the other formats. Values are checked
strictly, since they may come from a file of somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from gpt4image.base.errors import ModelError
from gpt4image.data.decode import EXTENSIONS, centre_start, decode_square, sides
from gpt4image.data.video import VIDEO_EXTENSIONS, FrameOrder, Frames, decode_clip, frame_size

if TYPE_CHECKING:
    from torch import Tensor

    from gpt4image.training.run_model import RunModel

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class Preprocessing:
    """From the bytes of a picture to the input of one model.

    Attributes:
        size: S, side of the square input, in pixels.
        resize: side of the square that a picture becomes before its centre of ``size`` pixels is cut; ``size`` or more.
        fit: how a picture becomes that square: its shorter side is resized and its centre is kept (crop), or both sides
            are resized (squash).
        interpolation: filter of the resizing, antialiased, by Pillow's name.
        mean: of each channel, RGB in 0..1.
        std: standard deviation of each channel.
        frames: T, of a clip that the model reads; 0 for a model of images.
        frame_order: in which order; see ``data.video.Frames``.
    """

    size: int = Field(ge=1, le=4096)
    resize: int = Field(le=8192)
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bicubic"
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    frames: int = Field(default=0, ge=0, le=64)
    frame_order: FrameOrder = "kept"

    @model_validator(mode="after")
    def _require_larger(self) -> Preprocessing:
        if self.resize < self.size:
            raise ValueError("resize must be size or more")
        return self

    @classmethod
    def of_run(cls, model: RunModel) -> Preprocessing:
        """Return what the evaluation of a run does to its pictures (see data/pixels.py and training/augment.py)."""
        from gpt4image.training.auto import stored_as

        how: Any = model.augmentation
        kept = stored_as(model.config, model.task)
        fit, frames = "squash" if kept["squash"] else "crop", kept["frames"]
        clip: Any = {} if frames is None else {"frames": frames.count, "frame_order": frames.order}
        return cls(size=how.size, resize=kept["size"], fit=fit, mean=how.mean, std=how.std, **clip)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (3, S, S), or (T, 3, S, S) of a clip."""
        image = (3, self.size, self.size)
        return (self.frames, *image) if self.frames else image

    @property
    def extensions(self) -> frozenset[str]:
        """Extensions of the files that the model reads."""
        return VIDEO_EXTENSIONS if self.frames else EXTENSIONS

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Return what timm's evaluation transform does for a ``pretrained_cfg``; defaults are timm's.

        Pictures are cut before they are resized, not after, which changes at most the pixels at the border. Raises
        ModelError: the model does not expect a square of RGB pixels, cropped or squashed, or a value is damaged.
        """
        from timm.data.config import resolve_data_config

        try:
            known = resolve_data_config(pretrained_cfg=dict(config))
            channels, *sides = known["input_size"]
            if channels != 3 or len(set(sides)) != 1 or known["crop_mode"] not in ("center", "squash"):
                raise ModelError(
                    f"The model takes other pictures than gpt4image makes: input_size {known['input_size']}, crop_mode "
                    f"{known['crop_mode']!r}. Possible are square RGB inputs with crop_mode center or squash; use timm "
                    "itself for others."
                )
            return cls(
                size=sides[0],
                resize=max(sides[0], math.floor(sides[0] / known["crop_pct"])),
                fit="squash" if known["crop_mode"] == "squash" else "crop",
                interpolation=known["interpolation"],
                mean=tuple(known["mean"]),
                std=tuple(known["std"]),
            )
        except (TypeError, ValueError, KeyError, ArithmeticError, AssertionError) as error:
            reason = wrong_value(error) if isinstance(error, ValidationError) else error
            raise ModelError(
                f"What the model says of its pictures is damaged ({reason}): see its config.json."
            ) from None

    def to_timm(self) -> dict[str, Any]:
        """Return the entries of a ``pretrained_cfg`` from which timm makes the same transform."""
        crop_pct = self.size / self.resize
        if math.floor(self.size / crop_pct) < self.resize:  # timm rounds down, and so would lose a pixel
            crop_pct = math.nextafter(crop_pct, 0.0)
        return {
            "input_size": [3, self.size, self.size],
            "interpolation": self.interpolation,
            "crop_pct": crop_pct,
            "crop_mode": "center" if self.fit == "crop" else "squash",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """Decode the bytes of an image or video file to uint8 pixels of ``shape``. Raises DecodeError."""
        how: Any = {"filter_": Image.Resampling[self.interpolation.upper()], "squash": self.fit == "squash"}
        if self.frames:
            square = decode_clip(data, self.resize, Frames(self.frames, self.frame_order), **how)
        else:
            square = decode_square(data, self.resize, **how)
        start = centre_start(self.resize, self.size)
        centre = square[..., start : start + self.size, start : start + self.size, :]
        return np.moveaxis(centre, -1, -3)

    def sides(self, data: bytes) -> tuple[int, int]:
        """Return width and height of an upright picture, or of a video as its header has them. Raises DecodeError."""
        return frame_size(data) if self.frames else sides(data)

    def normalised(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation: (n, *shape) RGB in 0..1 to the same shape."""
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


def as_images(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (n, ..., 3, S, S) uint8 pixels as float32 in 0..1."""
    return pixels.astype(np.float32) / np.float32(255.0)


def wrong_value(error: ValidationError) -> str:
    """Return the place and the reason of the first wrong value, in one line."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
