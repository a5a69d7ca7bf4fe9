"""Headers that claim far more memory than their picture needs: decoders allocate it before they read the picture.

Of the two headers of a JPEG 2000 file, Pillow checks the first one, but OpenJPEG allocates tiles and channels by the
second one, some 10 KB for each: 50 KB in a file become a terabyte. TIFF decoders allocate a whole tile, whatever size
the picture has.
"""

from __future__ import annotations

import struct

from PIL import Image

from gpt4image.base.errors import DecodeError

MOST_TILES = 16_384
MOST_PIXELS_PER_BYTE, SMALL = 1000, 1_000_000
"""Of a JPEG 2000 file, as OpenJPEG takes 20 bytes for each pixel; photographs have less than 100. Small ones may."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF 6.0
# SOC and SIZ markers, length, capability, picture, tiles, channels (ISO 15444-1, A.5.1)
_SIZ = struct.Struct(">4sHH8IH")


def refuse_bomb(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Raise DecodeError if a header of an image, opened from ``data`` but not loaded, claims too much memory.

    ``max_pixels`` is the largest width * height of a picture or tile.
    """
    if image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        _require_pixels(int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0)), max_pixels)
    elif image.format == "JPEG2000":
        start = _codestream(data)
        right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, channels = _SIZ.unpack_from(
            data, start
        )[3:]
        _require_pixels(right - left, bottom - top, max_pixels)
        tiles = -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height)
        pixels = (right - left) * (bottom - top)
        if pixels > max(SMALL, MOST_PIXELS_PER_BYTE * len(data)):
            raise DecodeError(
                f"its header claims {pixels:,} pixels in a file of {len(data):,} bytes, more than the allowed "
                f"{MOST_PIXELS_PER_BYTE:,} per byte"
            )
        if channels > 4 or tiles > MOST_TILES:
            raise DecodeError(
                f"its header claims {channels:,} channels in {tiles:,} tiles, more than the allowed 4 in {MOST_TILES:,}"
            )


def _require_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(f"its header claims {width} x {height} pixels, more than the allowed {max_pixels:,}")


def _codestream(data: bytes) -> int:
    """Return where the codestream of a JPEG 2000 file begins: at once, or in the box jp2c of a JP2 file."""
    start = 0
    while not data.startswith(b"\xff\x4f\xff\x51", start):
        length, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if length == 1:
            (length,), header = struct.unpack_from(">Q", data, start + 8), 16
        if kind == b"jp2c":
            return start + header
        if length < header:
            raise DecodeError("damaged: a JPEG 2000 file without a picture")
        start += length
    return start
