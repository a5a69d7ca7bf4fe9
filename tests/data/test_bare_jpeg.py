"""JPEG files stripped to their picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gpt4image.data.bare_jpeg import bare_jpeg
from gpt4image.describing.describers.images import encoded


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_a_jpeg_within_bounds_is_stripped_and_keeps_its_pixels(options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "secret"
    for mode in ("RGB", "L"):
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "jpeg", exif=exif, comment=b"secret", **options)
        data = file.getvalue() + b"secret behind the end"
        sent = bare_jpeg(data)
        assert sent is not None and encoded(data, 90, "jpeg") == ("image/jpeg", sent)
        assert b"secret" not in sent
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(sent))), np.asarray(Image.open(io.BytesIO(data))))
        assert bare_jpeg(sent) == sent
