"""Images as models get them: decoded, upright, bounded, and without metadata."""

import io
from base64 import b64encode

from PIL import Image

from gpt4image.base.errors import DecodeError
from gpt4image.config import DescriberOptions
from gpt4image.data.decode import decode
from gpt4image.data.video import Frames, contact_sheet, decode_frames
from gpt4image.describing.describers.base import Request

_OPTIONS = {"jpeg": {"quality": 95}, "png": {"compress_level": 3}, "webp": {"quality": 90, "method": 2}}


def bounded(data: bytes, max_side: int) -> Image.Image:
    """Return the RGB image, made smaller if its longer side is more than ``max_side`` pixels. Raises DecodeError."""
    return _smaller(decode(data, draft_side=2 * max_side), max_side)


def pictures(request: Request, options: DescriberOptions) -> list[Image.Image]:
    """Return what is shown for a request: its bounded image; or frames of its clip, or one sheet of them.

    Raises DecodeError, OSError.
    """
    if not request.clips:
        return [bounded(request.read(), options.max_side)]
    frames = Frames(options.frames)
    if options.contact_sheet:
        return [_smaller(contact_sheet(request.read(), frames), options.max_side)]
    return decode_frames(request.read(), frames, lambda frame: _smaller(frame, options.max_side))


def data_urls(request: Request, options: DescriberOptions) -> tuple[str, ...]:
    """Return what is shown for a request as data URLs. Raises DecodeError, OSError as ``pictures``."""
    shown = (picture for one in request.sheet or (request,) for picture in pictures(one, options))
    return tuple(data_url(picture, options.image_format) for picture in shown)


def data_url(image: Image.Image, image_format: str) -> str:
    """Return an image as a data URL, without metadata, as ``jpeg``, ``png`` or ``webp``."""
    image.info = {}  # comments and colour profiles would be written again
    file = io.BytesIO()
    image.save(file, image_format, **_OPTIONS[image_format])
    return f"data:image/{image_format};base64,{b64encode(file.getvalue()).decode()}"


def why_unusable(error: OSError | DecodeError) -> str:
    """Return in one line why an image cannot be sent."""
    is_decoding = isinstance(error, DecodeError)
    return f"cannot be decoded: {error}" if is_decoding else f"cannot be read: {error.strerror or error}"


def _smaller(image: Image.Image, max_side: int) -> Image.Image:
    factor = max_side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
