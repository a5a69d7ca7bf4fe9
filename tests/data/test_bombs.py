"""Headers that claim far more memory than their picture needs."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoded_images import RED, encoded, pixels
from gpt4image.base.errors import DecodeError
from gpt4image.data.decode import decode, decode_square


def jpeg2000(channels: int, tile: int, *, boxed: bool, side: int = 255) -> bytes:
    """Return a small picture whose second header claims channels of so many pixels a side in tiles of a side."""
    data = encoded(Image.new("RGB", (255, 255)), "JPEG2000", no_jp2=not boxed)
    start = data.index(b"\xff\x4f\xff\x51")
    (length,) = struct.unpack_from(">H", data, start + 4)
    claims = struct.pack(">HHIIIIIIII", 38 + 3 * channels, 0, side, side, 0, 0, tile, tile, 0, 0)
    claims += struct.pack(">H", channels) + b"\x07\x01\x01" * channels
    box = struct.pack(">I4s", 0, b"jp2c") if boxed else b""
    return data[: start - len(box)] + box + data[start : start + 4] + claims + data[start + 4 + length :]


def tiff(tile: int) -> bytes:
    """Return a TIFF file of 16 x 16 pixels in one tile of a side, deflated."""
    data = zlib.compress(bytes(tile * tile))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 14 + 12 * 10, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: jpeg2000(60, 255, boxed=True), "claims 60 channels in 1 tiles"),
        (lambda: jpeg2000(3, 1, boxed=True), "claims 3 channels in 65,025 tiles"),
        (lambda: jpeg2000(3, 1, boxed=False), "claims 3 channels in 65,025 tiles"),
        (lambda: jpeg2000(3, 5000, boxed=False, side=5000), r"claims 25,000,000 pixels in a file of \d+ bytes"),
        (lambda: jpeg2000(3, 5000, boxed=True, side=5000), r"claims 25,000,000 pixels in a file of \d+ bytes"),
        (lambda: tiff(8192), "claims 8192 x 8192 pixels, more than the allowed 50,000,000"),
    ],
)
def test_a_header_that_claims_memory_is_refused_before_anything_is_decoded(data: Any, reason: str) -> None:
    bomb = data()
    with pytest.raises(DecodeError, match=reason):
        decode_square(bomb, 32)


def test_tiles_of_a_picture_are_no_bomb() -> None:
    assert decode(tiff(16)).size == (16, 16)
    for boxed in (True, False):
        assert decode(jpeg2000(3, 255, boxed=boxed)).size == (255, 255)
        tiled = encoded(Image.new("RGB", (255, 255), RED), "JPEG2000", tile_size=(64, 64), no_jp2=not boxed)
        assert np.allclose(pixels(tiled), RED)
