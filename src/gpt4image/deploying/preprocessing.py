"""How a picture becomes the input of a deployed model: exactly what the evaluation of its run does.

    preprocessing = Preprocessing.of_run(load_run_model(run_dir, None, classes))
    pixels = preprocessing.pixels(path.read_bytes())        # uint8 (3, S, S)
    images = as_images(np.stack([pixels, ...]))             # float32 (n, 3, S, S), RGB in 0..1

All deployed models take such images; mean and standard deviation are inside ONNX and torch-export files, and applied by
``normalised`` for the other formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import ModelError, first_few
from gpt4image.data.decode import centre_start, decode_square

if TYPE_CHECKING:
    from torch import Tensor

    from gpt4image.evaluating.run_model import RunModel

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
LARGEST = 4096  # pixels; a file that asks for more wants memory, not pictures


@dataclass(frozen=True, kw_only=True)
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
    """

    size: int
    resize: int
    fit: Literal["crop", "squash"] = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ModelError for values that describe no preprocessing: they may come from a file of somebody else."""
        wrong = [name for name, right in self._checks().items() if not right]
        if wrong:
            raise ModelError(
                f"This is no preprocessing: {', '.join(f'{name} {getattr(self, name)!r}' for name in wrong)}."
            )

    def _checks(self) -> dict[str, bool]:
        return {
            "size": _is_whole(self.size) and 1 <= self.size <= LARGEST,
            "resize": _is_whole(self.resize) and _is_whole(self.size) and self.size <= self.resize <= LARGEST,
            "fit": self.fit in ("crop", "squash"),
            "interpolation": self.interpolation in _FILTERS,
            "mean": _is_colour(self.mean),
            "std": _is_colour(self.std) and all(value > 0 for value in self.std),
        }

    @classmethod
    def of_run(cls, model: RunModel) -> Preprocessing:
        """Return what the evaluation of a run does to its pictures (see data/pixels.py and training/augment.py)."""
        from gpt4image.training.auto import stored_size

        how = model.augmentation
        return cls(size=how.size, resize=stored_size(model.config), mean=how.mean, std=how.std)

    @classmethod
    def from_dict(cls, values: Any) -> Preprocessing:
        """Return the preprocessing that ``to_dict`` gave. Raises ModelError for what is none."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or values.keys() != names:
            raise ModelError(f"A preprocessing has {first_few(sorted(names), 10)}, not {values!r}.")
        colours = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in ("mean", "std")
        }
        return cls(**{**values, **colours})

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Return what timm's evaluation transform does for a ``pretrained_cfg``; defaults are timm's.

        Pictures are cut before they are resized, not after, which changes at most the pixels at the border.

        Raises:
            ModelError: a square of RGB pixels, cropped or squashed, is not what the model expects, or a value is of
                another kind than it should be.
        """
        try:
            return cls._from_timm(config)
        except (TypeError, ValueError, KeyError, ArithmeticError, AssertionError) as error:
            raise ModelError(
                f"What the model says of its pictures is damaged ({error}): see its config.json."
            ) from None

    @classmethod
    def _from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        from timm.data.config import resolve_data_config

        known = resolve_data_config(pretrained_cfg=dict(config))
        channels, *sides = known["input_size"]
        facts = {
            f"its input has {channels} channels": channels != 3,
            f"its input of {sides} pixels is not square": len(set(sides)) != 1,
            f"pictures get a border (crop_mode {known['crop_mode']!r})": known["crop_mode"] not in ("center", "squash"),
        }
        if problems := [problem for problem, is_so in facts.items() if is_so]:
            raise ModelError(
                f"The model takes other pictures than gpt4image makes: {', '.join(problems)}. "
                "Possible are square RGB inputs with crop_mode center or squash; use timm itself for others."
            )
        return cls(
            size=sides[0],
            resize=max(sides[0], math.floor(sides[0] / known["crop_pct"])),
            fit="squash" if known["crop_mode"] == "squash" else "crop",
            interpolation=known["interpolation"],
            mean=tuple(known["mean"]),
            std=tuple(known["std"]),
        )

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
        """Decode the bytes of an image file to (3, S, S) uint8 pixels. Raises DecodeError as data/decode.py does."""
        square = decode_square(data, self.resize, filter_=_FILTERS[self.interpolation], squash=self.fit == "squash")
        start = centre_start(self.resize, self.size)
        return square[start : start + self.size, start : start + self.size].transpose(2, 0, 1)

    def normalised(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation: (n, 3, S, S) RGB in 0..1 to the same shape."""
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


def as_images(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (n, 3, S, S) uint8 pixels as float32 in 0..1."""
    return pixels.astype(np.float32) / np.float32(255.0)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_colour(values: Sequence[Any]) -> bool:
    numbers = isinstance(values, tuple) and all(isinstance(value, int | float) for value in values)
    return numbers and len(values) == 3 and all(math.isfinite(value) for value in values)
