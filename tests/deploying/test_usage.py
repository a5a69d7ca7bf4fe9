"""The code of model cards makes of any kind of picture what the run was evaluated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from PIL import Image
from timm.data import create_transform

from gpt4image.data.video import FrameOrder
from gpt4image.deploying import usage
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from tiny_videos import moving_dot, video

PHOTO = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"  # 640 x 427
HOW = {
    "small": Preprocessing(size=48, resize=48, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    "centre": Preprocessing(size=112, resize=128, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
}


def turned(photo: Image.Image) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    photo.info["exif"] = exif.tobytes()
    return photo


KINDS = {
    "photograph": lambda photo: photo,
    "odd": lambda photo: photo.crop((0, 0, 401, 300)),
    "square": lambda photo: photo.crop((0, 0, 128, 128)),
    "grey": lambda photo: photo.convert("L"),
    "transparent": lambda photo: photo.crop((0, 0, 300, 300)).convert("RGBA").rotate(45),
    "palette": lambda photo: photo.convert("P"),
    "turned": turned,
    "16 bits": lambda photo: Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257),
}


@pytest.fixture(params=KINDS)
def picture(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A picture of some kind, as lossless picture.jpg of the current folder."""
    with Image.open(PHOTO) as photo:
        changed = KINDS[request.param](photo.convert("RGB"))
    changed.save(tmp_path / "picture.jpg", format="PNG", exif=changed.info.get("exif", b""))
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "picture.jpg").read_bytes()


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(f"import numpy as np\nfrom PIL import Image, ImageOps\n{code}", names)
    return names


@pytest.mark.parametrize("how", HOW)
def test_files_get_the_pixels_of_the_run_to_the_bit(how: str, picture: bytes) -> None:
    found = run(f"{usage._PICTURE}\n{usage._square(HOW[how])}")["images"]
    np.testing.assert_array_equal(found, as_images(HOW[how].pixels(picture)[None]))


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("order", ["kept", "shuffled", "still"])
def test_clips_get_the_pixels_of_the_run_to_the_bit(
    order: FrameOrder, rotation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = replace(HOW["centre"], frames=4, frame_order=order)
    data = video(moving_dot(0, 5, 10, count=11)[:, 2:30], rotation=rotation)
    (tmp_path / "clip.mp4").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    found = run(f"import av, hashlib\n{usage._clip(how)}")
    np.testing.assert_array_equal(found["images"], as_images(how.pixels(data)[None]))
    assert len(found["kept"]) == len(set(found["places"])), "other frames are not kept"
    assert found["picture"].size == ((28, 32) if rotation else (32, 28))


@pytest.mark.parametrize("how", HOW)
def test_timm_gets_them_within_a_grey_level_in_the_mean(how: str, picture: bytes) -> None:
    known = HOW[how].to_timm()
    known["input_size"] = tuple(known["input_size"])
    square = next(line for line in usage._TIMM.splitlines() if line.startswith("square"))
    code = f"{usage._PICTURE}\n{square}\nimages = transform(square)[None]"
    found = run(code, transform=create_transform(**known, is_training=False))["images"].numpy()
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (HOW[how].mean, HOW[how].std))
    difference = np.abs((found * std + mean) - as_images(HOW[how].pixels(picture)[None])) * 255
    assert difference.mean() < 0.8
