"""A thousand damaged, hostile and odd image files: each is described or named, and only pictures leave the machine."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from gpt4image.cli import ITEMS_SKIPPED, main
from openai_stub import Call, Reply, answer, serve

MAX_SIDE = 64
DAMAGED_FILES = 900
ODD_FILES = 100


def pixels(chance: random.Random, channels: int = 3, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Noise of some size and shape: no two files have the same bytes."""
    height, width = chance.randint(8, 90), chance.randint(8, 90)
    rng = np.random.default_rng(chance.getrandbits(32))
    values = rng.integers(0, high, (height, width, channels), dtype=dtype)
    return values if channels > 1 else values[..., 0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_gps(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "SECRET-CAMERA"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif.tobytes()


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animated(chance: random.Random) -> bytes:
    frames = [Image.fromarray(np.full((20, 30, 3), chance.randrange(256), np.uint8)) for _ in range(5)]
    frames[0].putpixel((0, 0), (chance.randrange(256), chance.randrange(256), 7))
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def palette(chance: random.Random) -> bytes:
    image = Image.fromarray(pixels(chance)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encoded(image, "PNG", transparency=3)


def secret_around_a_jpeg(chance: random.Random) -> bytes:
    """Upright and small: its picture may be sent as it is, but nothing else of it."""
    data = encoded(Image.fromarray(pixels(chance)), "JPEG", comment=b"SECRET-CAMERA", exif=with_gps(1), dpi=(72, 72))
    thumbnail = b"JFXX\x00\x13\x02\x02" + b"SECRET-CAMERA"[:12]
    segment = b"\xff\xe0" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    return data[:20] + segment + data[20:] + b"SECRET-CAMERA"


def plain(kind: str, **options: object) -> Callable[[random.Random], bytes]:
    return lambda chance: encoded(Image.fromarray(pixels(chance)), kind, **options)


def bomb(chance: random.Random) -> bytes:
    """A valid PNG of a few hundred KB whose pixels would take a gigabyte."""
    side = 20_000 + chance.randrange(100)
    packed = zlib.compressobj(9)
    return png(side, side, b"".join(packed.compress(bytes(side * 3 + 1)) for _ in range(30)) + packed.flush())


def half(chance: random.Random) -> bytes:
    """The first half of a file: of noise, so that its pixels are cut off."""
    data = ODD[chance.choice(["cmyk.jpg", "16-bit.png", "wrong-suffix.jpg", "rotated.jpg"])](chance)
    return data[: len(data) // 2]


def flipped(chance: random.Random) -> bytes:
    """A picture with a few bytes changed, cut out or put in: it may or may not be one still."""
    changed = bytearray(chance.choice(list(ODD.values()))(chance))
    for _ in range(chance.randint(1, 8)):
        position = chance.randrange(len(changed))
        match chance.randrange(3):
            case 0:
                changed[position] ^= 1 << chance.randrange(8)
            case 1:
                del changed[position : position + chance.randint(1, 30)]
            case _:
                changed[position:position] = chance.randbytes(chance.randint(1, 30))
    return bytes(changed)


Make = Callable[[random.Random], bytes]
# Odd, but pictures: each of these must be described.
ODD: dict[str, Make] = {
    "cmyk.jpg": lambda chance: encoded(Image.fromarray(pixels(chance, 4), "CMYK"), "JPEG"),
    "16-bit.png": lambda chance: encoded(Image.fromarray(pixels(chance, 1, 65536, np.uint16)), "PNG"),
    "palette.png": palette,
    "transparent.webp": lambda chance: encoded(Image.fromarray(pixels(chance, 4), "RGBA"), "WEBP", lossless=True),
    "animated.gif": animated,
    "wrong-suffix.jpg": plain("PNG"),
    "rotated.jpg": lambda chance: plain("JPEG", exif=with_gps(chance.randint(2, 8)))(chance),
    "secret.png": plain("PNG", exif=with_gps(1)),
    "secret.jpg": secret_around_a_jpeg,
    "broken-exif.jpg": lambda chance: plain("JPEG", exif=b"Exif\x00\x00" + chance.randbytes(40))(chance),
    "thin.png": lambda chance: encoded(
        Image.fromarray(np.frombuffer(chance.randbytes(9000), np.uint8).reshape(1, 3000, 3)), "PNG"
    ),
}
# No pictures: none of these may be paid for.
HOPELESS: dict[str, Make] = {
    "nothing.png": lambda chance: b"",
    "noise.jpg": lambda chance: chance.randbytes(chance.randint(1, 4000)),
    "zeros.bmp": lambda chance: bytes(chance.randint(1, 4000)),
    "page.png": lambda chance: f"<!doctype html><title>404 of {chance.random()}</title>".encode(),
    "svg.png": lambda chance: f'<svg xmlns="http://www.w3.org/2000/svg" width="{chance.random()}"/>'.encode(),
    # Dimensions of which the file could hold next to nothing.
    "header.png": lambda chance: png(
        chance.randint(10**6, 2**31 - 1), chance.randint(10**6, 2**31 - 1), zlib.compress(bytes(100))
    ),
    "half.jpg": half,
}


def written(root: Path, name: str, make: Make, number: int, chance: random.Random) -> str:
    path = root / name / f"{number:04}{Path(name).suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make(chance))
    return path.relative_to(root).as_posix()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A folder of a thousand files, and their keys by what must become of them."""
    root = tmp_path_factory.mktemp("zoo")
    chance = random.Random(0)
    keys: dict[str, list[str]] = {"odd": [], "hopeless": [], "flipped": []}
    for number in range(ODD_FILES):
        keys["odd"].append(written(root, *list(ODD.items())[number % len(ODD)], number, chance))
    for number in range(DAMAGED_FILES):
        if number % 2:
            keys["flipped"].append(written(root, "flipped.png", flipped, number, chance))
        else:
            kind = list(HOPELESS.items())[number // 2 % len(HOPELESS)]
            keys["hopeless"].append(written(root, *kind, number, chance))
    keys["hopeless"] += [written(root, "bomb.png", bomb, number, chance) for number in range(3)]
    return root, keys


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local")
    yield


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_a_thousand_fuzzed_files_are_described_or_named_and_only_pictures_are_paid_for(
    image_format: str, zoo: tuple[Path, dict[str, list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, keys = zoo
    sent: list[bytes] = []

    def look(call: Call) -> Reply:
        image = call.image
        if not image:
            raise RuntimeError("a call without an image")
        sent.append(image)
        return answer(f"A noisy picture that was sent as number {len(sent)} of those that were looked at.")

    with serve(look) as stub:
        stub.keep_calls = False
        command = f"describe --data folder:{root} --store {tmp_path / 's.db'} --describer openai:tiny"
        command += f" --base-url {stub.url} --max-side {MAX_SIDE} --image-format {image_format} --json"
        assert main(command.split()) == ITEMS_SKIPPED
        first = json.loads(capsys.readouterr().out)
        calls = stub.count
        assert main(command.split()) == ITEMS_SKIPPED
        again = json.loads(capsys.readouterr().out)

    everything = {key for group in keys.values() for key in group}
    named = Counter(item["name"] for item in first["skipped"])
    assert all(item["reason"] for item in first["skipped"])
    assert set(named) <= everything and set(named.values()) == {1}
    hopeless = {(root / key).read_bytes(): key for key in reversed(keys["hopeless"])}  # equal files are named once
    assert set(hopeless.values()) <= set(named)
    assert not set(keys["odd"]) & set(named)
    described = everything - set(named) - set(keys["hopeless"])
    assert first["described"] == len(described) == calls == len(sent)
    assert 50 < len(described & set(keys["flipped"])) < len(keys["flipped"]) - 50, "the flips prove nothing"
    for data in sent:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == image_format.upper()
            assert max(image.size) <= MAX_SIDE and min(image.size) >= 1
            assert getattr(image, "n_frames", 1) == 1
            assert not image.getexif() and "exif" not in image.info and "icc_profile" not in image.info
            image.load()
        assert b"SECRET" not in data
    assert stub.count == calls, "a second run pays for nothing"
    assert {item["name"] for item in again["skipped"]} == set(named)
