"""A deployed model sees what the evaluation of its run saw, and timm makes nearly the same of its settings."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from gpt4image.base.errors import ModelError
from gpt4image.data.decode import decode_square
from gpt4image.deploying.loading import Metadata
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from gpt4image.training.augment import Augmentation, eval_batch

COLOURS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def smooth(width: int, height: int) -> Image.Image:
    """A picture without hard edges, with other colours at each border."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@given(
    size=st.integers(1, 600),
    more=st.integers(0, 300),
    fit=st.sampled_from(("crop", "squash")),
    interpolation=st.sampled_from(("nearest", "bilinear", "bicubic", "lanczos")),
)
def test_settings_survive_json_and_timm(size: int, more: int, fit: Any, interpolation: str) -> None:
    how = Preprocessing(size=size, resize=size + more, fit=fit, interpolation=interpolation, **COLOURS)
    metadata = Metadata(classes=("a", "b"), preprocessing=how)
    assert Metadata.from_json(metadata.to_json(), "model.onnx") == metadata
    assert Preprocessing.from_timm(json.loads(json.dumps(how.to_timm()))) == how


@pytest.mark.parametrize("more", [0, 1, 3, 4, 5, 7])
def test_pixels_are_those_of_the_evaluation(more: int) -> None:
    data = png(smooth(70, 50))
    how = Preprocessing(size=20, resize=20 + more, **COLOURS)
    stored = torch.from_numpy(decode_square(data, 20 + more)).permute(2, 0, 1)[None]
    nothing: dict[str, Any] = {"flip": False, "shift": 0.0, "min_scale": 1.0, "colour": 0.0, "erase": 0.0}
    expected = eval_batch(stored, Augmentation(size=20, **nothing, **COLOURS))
    images = torch.from_numpy(as_images(how.pixels(data)[None]))
    assert torch.equal(how.normalised(images), expected)


@pytest.mark.parametrize("resize", [48, 54])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_timms_transform_of_the_same_settings_sees_nearly_the_same(fit: Any, resize: int) -> None:
    how = Preprocessing(size=48, resize=resize, fit=fit, **COLOURS)
    picture = smooth(200, 120)
    settings = how.to_timm()
    theirs: Any = create_transform(**{**settings, "input_size": tuple(settings["input_size"])}, is_training=False)
    ours = how.normalised(torch.from_numpy(as_images(how.pixels(png(picture))[None])))[0]
    assert (ours - theirs(picture)).abs().max() < 0.15  # 0.15 of a standard deviation: 9 of 255
    other = dataclasses.replace(how, fit="squash" if fit == "crop" else "crop")
    wrong = other.normalised(torch.from_numpy(as_images(other.pixels(png(picture))[None])))[0]
    assert (wrong - theirs(picture)).abs().max() > 0.5, "the comparison tells the two fits apart"


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": "16"},
        {"size": True},
        {"resize": 8},
        {"resize": 10**9},
        {"fit": "border"},
        {"interpolation": "random"},
        {"mean": [0.5, 0.5]},
        {"mean": "abc"},
        {"std": [0.2, 0.2, 0.0]},
        {"std": [float("nan")] * 3},
        {"another": 1},
    ],
    ids=str,
)
def test_settings_of_a_file_that_are_none_are_refused(change: dict[str, Any]) -> None:
    right = Metadata(classes=("a", "b"), preprocessing=Preprocessing(size=16, resize=16, **COLOURS))
    written = json.loads(right.to_json())
    written["preprocessing"] |= change
    with pytest.raises(ModelError, match=r"model\.onnx: its metadata is malformed"):
        Metadata.from_json(json.dumps(written), "model.onnx")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"input_size": (1, 28, 28)}, "1 channels"),
        ({"input_size": (3, 28, 32)}, "not square"),
        ({"input_size": (3, 28, 28), "crop_mode": "border"}, "border"),
        ({"input_size": (3, 28, 28), "crop_pct": "x"}, "damaged"),
        ({"input_size": 28}, "damaged"),
        ({"input_size": (3, "a", "a")}, "damaged"),
        ({"input_size": (3, 28, 28), "mean": 3}, "damaged"),
        ({"input_size": (3, 28, 28), "mean": (1, 2)}, "damaged"),
    ],
)
def test_what_timm_does_and_we_do_not_is_said(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Preprocessing.from_timm(config)
