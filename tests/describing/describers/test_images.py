from __future__ import annotations

import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpt4image.base.errors import DecodeError
from gpt4image.describing.describers.images import bounded, data_url, encoded


def picture(width: int, height: int, kind: str = "jpeg", **options: object) -> bytes:
    across = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    file = io.BytesIO()
    Image.fromarray(across.astype(np.uint8)).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_the_longer_side_is_bounded_and_a_large_jpeg_read_at_a_reduced_scale_looks_alike() -> None:
    bounds = {(1600, 1200, 768): (768, 576), (300, 200, 768): (300, 200), (5000, 2, 100): (100, 1)}
    for (width, height, side), expected in bounds.items():
        for kind in ("jpeg", "png"):
            image = bounded(picture(width, height, kind), side)
            assert (image.size, image.mode) == (expected, "RGB")
    from_jpeg, from_png = (np.asarray(bounded(picture(1600, 1200, kind), 300)).astype(int) for kind in ("jpeg", "png"))
    assert np.abs(from_jpeg - from_png).mean() < 2


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_nothing_but_pixels_is_sent(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at a secret place"
    data = picture(64, 48, exif=exif, comment=b"secret comment", icc_profile=b"secret profile")
    assert b"secret" in data
    mime, content = encoded(data, 768, image_format)
    assert mime == f"image/{image_format}"
    assert b"secret" not in content
    image = Image.open(io.BytesIO(content))
    assert image.size == (64, 48)
    assert not image.getexif()
    assert data_url(data, 768, image_format).startswith(f"data:image/{image_format};base64,".encode())


def test_a_jpeg_that_must_change_is_made_anew() -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    assert Image.open(io.BytesIO(encoded(picture(64, 48, exif=rotated), 768, "jpeg")[1])).size == (48, 64)
    assert Image.open(io.BytesIO(encoded(picture(64, 48), 32, "jpeg")[1])).size == (32, 24)
    cmyk = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, "jpeg")
    red = Image.open(io.BytesIO(encoded(cmyk.getvalue(), 32, "jpeg")[1]))
    assert red.mode == "RGB" and red.getpixel((4, 4))[0] > 200  # type: ignore[index]
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "jpeg", keep_rgb=True)
    as_rgb = file.getvalue()
    adobe = as_rgb.index(b"\xff\xee")
    for data in (as_rgb, as_rgb[:adobe] + as_rgb[adobe + 16 :]):
        assert data[adobe + 2 : adobe + 16] != as_rgb[adobe + 2 : adobe + 16] or data is as_rgb
        red = Image.open(io.BytesIO(encoded(data, 32, "jpeg")[1])).getpixel((4, 4))
        assert red == pytest.approx((254, 0, 0), abs=4)


@given(st.binary(max_size=60), st.integers(0, 700), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_whatever_is_sent_decodes_to_what_was_read(garbage: bytes, place: int, removed: int) -> None:
    data = picture(32, 24)
    place = min(place, len(data))
    damaged = data[:place] + garbage + data[place + removed :]
    try:
        _, sent = encoded(damaged, 768, "jpeg")
    except DecodeError:
        return
    here, there = (np.asarray(bounded(content, 768)).astype(int) for content in (damaged, sent))
    assert here.shape == there.shape


def test_images_are_prepared_in_threads_without_warnings() -> None:
    damaged = bytearray(picture(64, 48, exif=Image.Exif().tobytes() or b"Exif\x00\x00"))
    palette = io.BytesIO()
    Image.new("P", (8, 8)).save(palette, "png", transparency=bytes(range(8)))
    together = threading.Barrier(4)

    def prepare(data: bytes) -> None:
        together.wait(10)
        for _ in range(50):
            encoded(data, 32, "jpeg")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(prepare, [bytes(damaged), palette.getvalue()] * 2))
        assert warnings.filters == before
    assert not caught
