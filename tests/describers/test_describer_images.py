from __future__ import annotations

import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from gpt4image.describers.images import bounded, data_url, encoded
from gpt4image.errors import DecodeError


def picture(width: int, height: int, kind: str = "jpeg", **options: object) -> bytes:
    across = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    file = io.BytesIO()
    Image.fromarray(across.astype(np.uint8)).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((4000, 3000), 768, (768, 576)),
        ((300, 200), 768, (300, 200)),
        ((5000, 2), 100, (100, 1)),
        ((30, 90), 45, (15, 45)),
    ],
)
def test_the_longer_side_is_bounded(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    for kind in ("jpeg", "png"):
        image = bounded(picture(*size, kind), side)
        assert image.size == expected
        assert image.mode == "RGB"


def test_a_large_jpeg_read_at_a_reduced_scale_looks_alike() -> None:
    from_jpeg, from_png = (np.asarray(bounded(picture(3000, 2000, kind), 300)).astype(int) for kind in ("jpeg", "png"))
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


@pytest.mark.parametrize("data", [b"", b"no image", picture(64, 48)[:500]])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        encoded(data, 768, "jpeg")


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
