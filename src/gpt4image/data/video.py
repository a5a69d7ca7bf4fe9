"""From the bytes of a video file to RGB frames: the only place that decodes videos, and names why one cannot be used.

Bytes are decoded from memory, by the demuxer that their first bytes name: references to other files and network
addresses are never followed. FFmpeg runs in this process, so frames, pixels, streams and seconds are bounded.
"""

import importlib.util
import io
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import DecodeError, MissingExtraError
from gpt4image.data.decode import MAX_PIXELS, decode, squared

VIDEO_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9"),
    *("mpeg4", "mpeg1video", "mpeg2video", "msmpeg4", "msmpeg4v2", "h263", "mjpeg", "ffv1"),
)
"""FFmpeg's decoders that may run."""
MAX_FRAMES = 20_000  # eleven minutes at 30 a second
MAX_SECONDS = 60.0  # of decoding one file
MAX_STREAMS = 16
SHEET_SIDE = 224  # pixels of a frame on a contact sheet
SHOWN_FRAMES = 4  # of a clip on a page: more would be too small on a card
WHOLE = 0.9  # part of the time that a file claims that its frames must fill
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
Made = TypeVar("Made")
FrameOrder = Literal["kept", "shuffled", "still"]
USUAL_FRAMES = 8


@dataclass(frozen=True)
class Frames:
    """Which T frames make a clip, spread evenly: in order, shuffled by the digest of the file, or the middle one."""

    count: int = USUAL_FRAMES
    order: FrameOrder = "kept"


def require_decoder(what: str) -> None:
    """Raise MissingExtraError where PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError(what, "video")


def container_of(data: bytes) -> str | None:
    """Return FFmpeg's name of the video container that bytes begin as; None where it is none of those read here."""
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return "mov" if data[4:8] in _ATOMS and data[8:12] not in _PICTURES else None


def decode_frames(data: bytes, frames: Frames, make: Callable[[Image.Image], Made] = lambda frame: frame) -> list[Made]:
    """Return what ``make`` makes of the T frames of a clip, RGB and upright, one in memory at a time. DecodeError."""
    with _opened(data) as container:
        places = _places(_count_frames(container), frames, data)
        container.seek(0)
        found = _pick(container, set(places), make)
    return [found[place] for place in places]


def decode_clip(
    data: bytes,
    size: int,
    frames: Frames,
    *,
    filter_: Image.Resampling = Image.Resampling.BICUBIC,
    squash: bool = False,
) -> NDArray[np.uint8]:
    """Decode to (T, size, size, 3) uint8, each frame as ``decode_square`` does. Raises DecodeError."""
    return np.stack(decode_frames(data, frames, lambda frame: squared(frame, size, filter_, squash=squash)))


def contact_sheet(data: bytes, frames: Frames, side: int = SHEET_SIDE) -> Image.Image:
    """Return the frames of a clip as one picture, in reading order, two or four in a row. Raises DecodeError."""

    def small(frame: Image.Image) -> Image.Image:
        frame.thumbnail((side, side))
        return frame

    shown = decode_frames(data, frames, small)
    width, height = (max(frame.size[axis] for frame in shown) + 4 for axis in (0, 1))
    columns = min(2 if len(shown) <= 4 else 4, len(shown))
    sheet = Image.new("RGB", (columns * width, -(-len(shown) // columns) * height), "white")
    for number, frame in enumerate(shown):
        sheet.paste(frame, (number % columns * width + 2, number // columns * height + 2))
    return sheet


def picture_of(data: bytes, *, clips: bool, draft_side: int | None = None) -> Image.Image:
    """Return what pages show: an image, or of a video frames on one sheet; see ``decode``. Raises DecodeError."""
    return contact_sheet(data, Frames(SHOWN_FRAMES)) if clips else decode(data, draft_side=draft_side)


def frame_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a video in pixels, as its header has them. Raises DecodeError."""
    with _opened(data) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def _places(count: int, frames: Frames, data: bytes) -> list[int]:
    if frames.order == "still":
        return [count // 2] * frames.count
    places = [(2 * part + 1) * count // (2 * frames.count) for part in range(frames.count)]
    if frames.order == "shuffled":
        rng = np.random.default_rng(int.from_bytes(sha256(data).digest()[:8]))
        return [places[part] for part in rng.permutation(frames.count)]
    return places


@contextmanager
def _opened(data: bytes) -> Generator[Any]:
    """Open, check the video stream, and turn whatever FFmpeg raises until the block ends into DecodeError."""
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    kind = container_of(data)
    if kind is None:
        raise DecodeError("not a video of a kind that is read (MP4, MOV, Matroska, WebM, AVI), or damaged at its start")
    require_decoder("Reading video files")
    import av
    from av.error import FFmpegError

    options = {"max_pixels": str(MAX_PIXELS), "threads": "1", "max_streams": str(MAX_STREAMS)}
    options |= {"protocol_whitelist": "none", "codec_whitelist": ",".join(CODECS)}
    try:
        with av.open(io.BytesIO(data), "r", format=kind, options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise DecodeError("holds no video: only sound, or cut off")
            context: Any = container.streams.video[0].codec_context
            if context is None or context.name not in CODECS:
                name = "unknown" if context is None else context.name
                raise DecodeError(f"its codec, {name}, is not among those that are read")
            _require_bounds(time.monotonic(), context.width, context.height)
            context.thread_type = "NONE"
            context.options = {**context.options, "max_pixels": options["max_pixels"]}
            yield container
    except (FFmpegError, ValueError, OverflowError, MemoryError, RuntimeError, OSError) as error:
        raise DecodeError(f"damaged: {getattr(error, 'strerror', None) or error or type(error).__name__}") from None


def _count_frames(container: Any) -> int:
    """Count the frames by their packets, without decoding them. Raises DecodeError: none, too many, or some lack."""
    stream, count, end, begun = container.streams.video[0], 0, 0.0, time.monotonic()
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        count += 1
        end = max(end, float(((packet.pts or packet.dts or 0) + (packet.duration or 0)) * packet.time_base))
        if packet.is_corrupt:
            raise DecodeError("damaged or cut off: a frame is not whole")
        if count > MAX_FRAMES:
            raise DecodeError(f"has more than the allowed {MAX_FRAMES:,} frames: cut it into clips")
        _require_bounds(begun)
    if not count:
        raise DecodeError("holds no frame")
    first = (stream.start_time or 0) * stream.time_base
    if count < WHOLE * stream.frames or end - first < WHOLE * (stream.duration or 0) * stream.time_base:
        raise DecodeError(f"cut off: it holds {count} frames, its header claims more")
    return count


def _pick(container: Any, places: set[int], make: Callable[[Image.Image], Made]) -> dict[int, Made]:
    """Return what is made of the frames of these numbers; frames behind the last of them are not decoded."""
    found: dict[int, Made] = {}
    begun = time.monotonic()
    for number, frame in enumerate(container.decode(container.streams.video[0])):
        _require_bounds(begun, frame.width, frame.height)
        if number in places:
            if frame.is_corrupt:
                raise DecodeError("damaged: a frame cannot be decoded")
            # One thread: a forked process that frees a frame would wait for ever for others, which it does not have.
            turn = 0 if frame.rotation % 90 else frame.rotation  # a file that leaves its display matrix empty has 45
            picture = Image.fromarray(frame.to_ndarray(format="rgb24", threads=1))
            found[number] = make(picture.rotate(turn, expand=True) if turn else picture)
            if len(found) == len(places):
                return found
    raise DecodeError(f"damaged: {len(found)} of {len(places)} frames can be decoded")


def _require_bounds(begun: float, width: int = 0, height: int = 0) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the allowed {MAX_PIXELS:,}")
    if time.monotonic() - begun > MAX_SECONDS:
        raise DecodeError(f"takes more than the allowed {MAX_SECONDS:.0f} seconds: cut it into clips")
