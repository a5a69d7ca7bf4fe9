"""Images as models get them: decoded, upright, bounded, and without metadata."""

from __future__ import annotations

import io
from binascii import b2a_base64

from PIL import Image

from gpt4image.base.errors import DecodeError
from gpt4image.config import DescriberOptions
from gpt4image.data.decode import decode
from gpt4image.data.video import Frames, contact_sheet, decode_frames
from gpt4image.describing.describers.base import Request

_OPTIONS = {"jpeg": {"quality": 95}, "png": {"compress_level": 3}, "webp": {"quality": 90, "method": 2}}


def bounded(data: bytes, max_side: int) -> Image.Image:
    """Return the RGB image of ``data``, made smaller if its longer side is more than ``max_side`` pixels.

    Raises:
        DecodeError: the bytes are no image, damaged or too large.
    """
    return _smaller(decode(data, draft_side=2 * max_side), max_side)


def pictures(request: Request, options: DescriberOptions) -> list[Image.Image]:
    """Return what is shown for a request: its bounded image; or frames of its clip, or one sheet of them.

    Raises:
        DecodeError, OSError: it cannot be decoded or read.
    """
    if not request.clips:
        return [bounded(request.read(), options.max_side)]
    frames = Frames(options.frames)
    if options.contact_sheet:
        return [_smaller(contact_sheet(request.read(), frames), options.max_side)]
    return decode_frames(request.read(), frames, lambda frame: _smaller(frame, options.max_side))


def data_urls(request: Request, options: DescriberOptions) -> tuple[bytes, ...]:
    """Return what is shown for a request as data URLs in ASCII. Raises DecodeError, OSError as ``pictures``."""
    if request.sheet:
        return tuple(url for one in request.sheet for url in data_urls(one, options))
    if not request.clips:
        return (data_url(request.read(), options.max_side, options.image_format),)
    shown = (_saved(picture, options.image_format) for picture in pictures(request, options))
    return tuple(_url(*picture) for picture in shown)


def _smaller(image: Image.Image, max_side: int) -> Image.Image:
    longer = max(image.size)
    if longer <= max_side:
        return image
    width, height = (max(1, round(side * max_side / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def why_unusable(error: OSError | DecodeError) -> str:
    """Return in one line why an image cannot be sent."""
    if isinstance(error, DecodeError):
        return f"cannot be decoded: {error}"
    return f"cannot be read: {error.strerror or error}"


def encoded(data: bytes, max_side: int, image_format: str) -> tuple[str, bytes]:
    """Return the mime type and the bytes of the bounded image, without metadata, as ``jpeg``, ``png`` or ``webp``."""
    return _saved(bounded(data, max_side), image_format)


def _saved(image: Image.Image, image_format: str) -> tuple[str, bytes]:
    image.info = {}  # comments and colour profiles would be written again
    file = io.BytesIO()
    image.save(file, image_format, **_OPTIONS[image_format])
    return f"image/{image_format}", file.getvalue()


def data_url(data: bytes, max_side: int, image_format: str) -> bytes:
    """Return the bounded image as a data URL in ASCII. Raises DecodeError as ``bounded``."""
    return _url(*encoded(data, max_side, image_format))


def _url(mime: str, content: bytes) -> bytes:
    return b"".join((b"data:", mime.encode(), b";base64,", b2a_base64(content, newline=False)))
