"""Videos made with PyAV: a dot that moves, in containers and codecs of one's choice."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32


def video(
    frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    *,
    container: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 8,
    pixels: str = "yuv420p",
    fast_start: bool = False,
    rotation: int = 0,
    first: int = 0,
) -> bytes:
    """Return the bytes of a video of RGB frames (height, width, 3), to be shown turned by ``rotation`` degrees.

    The clock stands at ``first`` frames when it begins.
    """
    import av

    file = tempfile.NamedTemporaryFile(suffix=f".{container}") if fast_start else io.BytesIO()  # noqa: SIM115
    options = {"movflags": "faststart"} if fast_start else {}  # the index comes before the frames
    with av.open(getattr(file, "name", file), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.codec_context.thread_count = 1  # a forked worker that frees an encoder waits for its threads for ever
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        stream.bit_rate = 2_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = first + number, Fraction(1, rate)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    file.seek(0)
    return file.read()


def sound(container: str = "mp4") -> bytes:
    """Return the bytes of a file of a second of silence."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("aac", rate=8000)
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def moving_dot(start: int, step: int, row: int, *, count: int = 8, side: int = SIDE) -> NDArray[np.uint8]:
    """Return (count, side, side, 3) frames of a white dot that moves ``step`` pixels a frame along a row."""
    frames = np.full((count, side, side, 3), 20, np.uint8)
    for number in range(count):
        column = (start + step * number) % side
        frames[number, row : row + 5, np.arange(column, column + 5) % side] = 250
    return frames


def write_dots(root: Path, *, train: int = 24, test: int = 12, seed: int = 0) -> Path:
    """Write clips of two classes that one frame cannot tell apart: the dot moves left, or right."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, step in (("left", -3), ("right", 3)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                frames = moving_dot(int(rng.integers(SIDE)), step, int(rng.integers(SIDE - 5)))
                (folder / f"{number}.mp4").write_bytes(video(frames))
    return root
