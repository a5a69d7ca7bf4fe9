"""Every kind of picture gives the right pixels; every bad one a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from gpt4image.base.errors import DecodeError
from gpt4image.data import decode as decoding
from gpt4image.data.decode import decode, decode_numbers, decode_square, sides
from worlds import RED, encoded, pixels


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_every_mode_is_rgb_16_bits_are_scaled_and_alpha_lies_on_white() -> None:
    grey = noise(4, 4)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(pixels(encoded(bits))[..., 0], np.eye(4, dtype=np.uint8) * 255)
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(cmyk, "JPEG", quality=95)).astype(int) - RED).max() <= 4
    for mode, black in (("RGBA", (0, 0, 0)), ("LA", (0,))):
        image = Image.new(mode, (3, 1), 0)  # black, transparent
        image.putpixel((1, 0), (*black, 128))
        image.putpixel((2, 0), (*black, 255))
        assert pixels(encoded(image))[0, :, 0].tolist() == [255, 127, 0]
    values = np.array([[0, 257 * 100, 40000, 65535]], dtype=np.uint16)
    expected = [0, 100, round(40000 / 257), 255]
    for kind in ("PNG", "TIFF"):
        assert pixels(encoded(Image.fromarray(values), kind))[0, :, 1].tolist() == expected
    as_32_bit = Image.fromarray(values.astype(np.int32))
    assert as_32_bit.mode == "I"
    assert pixels(encoded(as_32_bit, "TIFF"))[0, :, 1].tolist() == expected


def test_transparency_of_palettes_and_of_a_colour() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 9))
    assert pixels(encoded(image, transparency=RED)).tolist() == [[[255, 255, 255], [0, 0, 9]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette)).tolist() == [[[*RED], [0, 0, 255]]]
    assert pixels(encoded(palette, transparency=1)).tolist() == [[[*RED], [255, 255, 255]]]
    assert pixels(encoded(palette, transparency=bytes([0, 255]))).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    more = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
    assert np.unique(pixels(data).reshape(-1, 3), axis=0).tolist() == [[*RED]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(noise(16, 32, 3)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert sides(data) == decode(data).size == upright.size == ((16, 32) if orientation > 4 else (32, 16))
    np.testing.assert_array_equal(pixels(data), np.asarray(upright))


def test_odd_tags_do_not_leave_a_picture_on_its_side() -> None:
    value = struct.pack(">ii", -2, 0)  # an exposure bias of -2/0, as a phone wrote it, behind orientation 6
    entries = [(0x0112, 3, 1, 6 << 16), (0x9204, 10, 1, 38)]
    header = struct.pack(">2sHIH", b"MM", 42, 8, len(entries))
    exif = b"Exif\0\0" + header + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4) + value
    data = encoded(Image.new("RGB", (32, 16), RED), "JPEG", exif=exif)
    with pytest.raises((struct.error, AttributeError)):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data).size == (16, 32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encoded(Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32)), "TIFF"), "more than 16 bits"),
        (encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "floating-point"),
        *(
            ((whole := encoded(Image.fromarray(noise(40, 40, 3)), kind))[: len(whole) // 2], ".")
            for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
        ),
    ],
)
def test_what_is_no_whole_image_or_has_no_defined_range_is_refused(data: bytes, reason: str) -> None:
    for decoder in (decode, lambda data: decode_square(data, 16)):
        with pytest.raises(DecodeError, match=reason):
            decoder(data)


def png(width: int, height: int, bits: int, row: bytes) -> bytes:
    """A grey PNG file whose header claims these sides."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (8_000, 100_000):  # below and above the limits of Pillow itself
        with pytest.raises(DecodeError, match=r"more than the allowed 50,000,000|exceeds limit"):
            decode(png(side, side, 1, bytes(999)))
    data = encoded(Image.new("RGB", (10, 10)))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    assert decode(data).size == (10, 10)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    for read in (decode, sides):
        with pytest.raises(DecodeError, match="10 x 10 pixels"):
            read(data)


def test_a_heic_picture_is_read_by_the_extra_and_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded(Image.new("RGB", (64, 48), RED), "HEIF", quality=90)
    assert abs(np.asarray(decode(data)).mean((0, 1)) - RED).max() < 8
    assert ".heic" in decoding.EXTENSIONS and not decoding.PICTURES & decoding.EXTENSIONS
    monkeypatch.setattr(decoding, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(DecodeError, match=r"a HEIC picture: to read it, pip install .*\[heic\]"):
        decode(data)


def test_the_numbers_of_a_mask_are_those_that_were_saved() -> None:
    numbers = np.array([[0, 1, 2], [7, 254, 255]], np.uint8)
    palette = Image.fromarray(numbers)
    palette.putpalette(list(range(256)) * 3)
    same = {
        "grey": Image.fromarray(numbers),
        "palette": palette,
        "16 bits": Image.fromarray(numbers.astype(np.uint16)),
        "equal channels": Image.fromarray(np.repeat(numbers[..., None], 3, axis=2)),
        "alpha": Image.fromarray(np.stack([numbers, np.full_like(numbers, 9)], axis=2), "LA"),
    }
    for name, image in same.items():
        np.testing.assert_array_equal(decode_numbers(encoded(image)), numbers, err_msg=name)
    bits = Image.fromarray(np.eye(3, dtype=np.uint8) * 255).convert("1")
    assert decode_numbers(encoded(bits)).tolist() == np.eye(3).tolist()
    few = decode_numbers(png(4, 1, 2, b"\x1b")).tolist(), decode_numbers(png(4, 1, 4, b"\x01\x7f")).tolist()
    assert few == ([[0, 1, 2, 3]], [[0, 1, 7, 15]]), "not stretched to the range of a byte"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(Image.new("L", (4, 4)), "JPEG"), "in JPEG"),
        (encoded(Image.new("L", (16, 16)), "TIFF", compression="jpeg"), "TIFF with jpeg compression"),
        (encoded(Image.new("CMYK", (4, 4)), "TIFF"), "mode CMYK"),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 1))), "colours"),
        (encoded(Image.fromarray(np.full((4, 4), 256, np.uint16))), "the number 256"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "mode F"),
    ],
)
def test_a_mask_without_numbers_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_numbers(data)


def tiff(tile: int) -> bytes:
    """A TIFF file of 16 x 16 pixels in one tile of a side, deflated."""
    data = zlib.compress(bytes(tile * tile))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 14 + 12 * 10, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_a_tile_that_claims_memory_is_refused_before_anything_is_decoded() -> None:
    assert decode(tiff(16)).size == (16, 16)
    with pytest.raises(DecodeError, match="claims 8192 x 8192 pixels, more than 50,000,000"):
        decode_square(tiff(8192), 32)
