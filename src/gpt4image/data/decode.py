"""From image bytes to RGB pixels: the only place that decodes pictures, and names why one cannot be used."""

import io
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from gpt4image.base.errors import DecodeError, install_command

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged pictures; catch_warnings is not safe with threads
Image.init()
with suppress(ImportError):  # the extra heic
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
# An allow-list: other plug-ins of Pillow start programs (EPS runs Ghostscript) or are no pictures. Not every build of
# Pillow has all of these.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
EXTENSIONS = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
HEIF = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_OTHERS = {".avif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"}
PICTURES = (HEIF | _OTHERS) - EXTENSIONS  # extensions of pictures that are not read
EXACT = ("PNG", "GIF", "BMP", "TIFF")  # formats that keep the numbers of a mask
LOSSY = ("jpeg", "tiff_jpeg", "webp", "tiff_sgilog", "tiff_sgilog24")  # compressions of TIFF that do not
COLOURED = ("F", "CMYK", "YCbCr", "LAB", "HSV")  # modes of Pillow whose channels are no numbers of a mask
MAX_PIXELS = 50_000_000

# What Pillow's plug-ins raise on damaged files, or did in the past.
_OF_LIBRARIES = (struct.error, zlib.error, Image.DecompressionBombError)
_USUAL = (OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, SyntaxError)
_DAMAGED = (*_USUAL, *_OF_LIBRARIES, RuntimeError, AttributeError, AssertionError)
_TURNS = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
), 2))  # what makes a picture of an EXIF orientation upright (TIFF 6.0, tag 274)  # fmt: skip


def decode(data: bytes, *, draft_side: int | None = None) -> Image.Image:
    """Decode an image of any mode to RGB, upright, transparency on white; of an animation the first frame.

    With ``draft_side``, JPEG files may be decoded at a reduced scale that keeps so many pixels. Raises DecodeError.
    """
    with _opened(data) as image:
        if draft_side is not None and max(image.size) > draft_side:
            width, height = (max(1, side * draft_side // max(image.size)) for side in image.size)
            image.draft(None, (width, height))
        return upright_rgb(image)


def decode_square(
    data: bytes, size: int, *, filter_: Image.Resampling = Image.Resampling.BICUBIC, squash: bool = False
) -> NDArray[np.uint8]:
    """Decode to (size, size, 3) uint8: the shorter side is resized (antialiased), the centre is cropped.

    A square image of that size keeps its pixels exactly. With ``squash`` both sides are resized. Raises DecodeError.
    """
    with _opened(data) as image:
        image.draft(None, (2 * size, 2 * size))
        return squared(upright_rgb(image), size, filter_, squash=squash)


def squared(rgb: Image.Image, size: int, filter_: Image.Resampling, *, squash: bool) -> NDArray[np.uint8]:
    """Return an RGB picture as (size, size, 3) uint8; see ``decode_square``."""
    width, height = rgb.size
    if (width, height) == (size, size):
        return np.array(rgb)
    if squash:
        return np.array(rgb.resize((size, size), filter_))
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return np.array(rgb.resize((size, size), filter_, box=(left, top, left + side, top + side)))


def centre_start(side: int, size: int) -> int:
    """Return where a centre crop of ``size`` pixels begins in a side; halves go to the even one, as in torchvision."""
    return round((side - size) / 2)


def sides(data: bytes) -> tuple[int, int]:
    """Return width and height of the upright image in pixels, by its header. Raises DecodeError as ``decode``."""
    with _opened(data) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) > 4  # of TIFF, Pillow gives the upright size already
        return (height, width) if turned else (width, height)


def decode_numbers(data: bytes) -> NDArray[np.uint8]:
    """Decode a mask to its numbers, (height, width) uint8, upright; of palettes the indices. DecodeError."""
    with _opened(data) as image:
        if image.format not in EXACT:
            raise DecodeError(f"a mask in {image.format}: lossy formats change mask values; save masks as PNG")
        if image.info.get("compression") in LOSSY:
            raise DecodeError(f"a mask in TIFF with {image.info['compression']} compression; save masks as PNG")
        tile: Any = getattr(image, "tile", ())
        stored = tile[0].args if tile else ""  # Pillow spreads few bits over a byte
        scale = {"L;2": 85, "L;4": 17}.get((stored if isinstance(stored, str) else stored[0])[:3], 1)
        image.load()
        values = np.asarray(_upright(image))
        values = values // scale if scale > 1 else values
        if image.mode in COLOURED or values.ndim not in (2, 3):
            raise DecodeError(f"a mask of mode {image.mode}; save masks as PNG with one number per pixel")
        if values.ndim == 3:
            colours = values[..., :3] if image.mode.startswith("RGB") else values[..., :1]
            values = values[..., 0]
            if (colours != values[..., None]).any():
                raise DecodeError("a mask of colours; save masks as PNG with the number of the class in each pixel")
        if values.min() < 0 or values.max() > 255:
            raise DecodeError(f"a mask with the number {values.max()}; numbers are 0 to 254; 255 counts for nothing")
        return values.astype(np.uint8)


@contextmanager
def _opened(data: bytes) -> Generator[Image.Image]:
    """Open, check the header, and turn whatever Pillow raises until the block ends into DecodeError."""
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"{width} x {height} pixels are more than the allowed {MAX_PIXELS:,}")
            if image.format == "TIFF":  # decoders allocate a tile before they read it
                tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
                if (width := int(tags.get(322, 0))) * (height := int(tags.get(323, 0))) > MAX_PIXELS:
                    raise DecodeError(f"its header claims {width} x {height} pixels, more than {MAX_PIXELS:,}")
            yield image
    except Image.UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"heim", b"hevc"):
            raise DecodeError(f"a HEIC picture: to read it, {install_command('heic')}") from None
        raise DecodeError("not an image, or damaged at its start") from None
    except _DAMAGED as error:
        raise DecodeError(f"damaged: {error or type(error).__name__}") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, turned as its EXIF says, transparent parts white. Raises DecodeError, OSError."""
    image.load()
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16 bits at 255, which turns such pictures white
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DecodeError("pixels of more than 16 bits have no defined range; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DecodeError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. ImageOps.exif_transpose also writes all of EXIF anew, which fails on odd tags."""
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGED:
        return 1
