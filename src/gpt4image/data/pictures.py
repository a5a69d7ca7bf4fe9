"""What pages show of an image or a clip: one picture."""

from __future__ import annotations

from PIL import Image

from gpt4image.data.decode import decode
from gpt4image.data.video import Frames, contact_sheet

SHOWN_FRAMES = 4  # of a clip: more would be too small on a card


def picture_of(data: bytes, *, clips: bool, draft_side: int | None = None) -> Image.Image:
    """Return an image, or of a video frames on one sheet; ``draft_side`` as in ``decode``. Raises DecodeError."""
    return contact_sheet(data, Frames(SHOWN_FRAMES)) if clips else decode(data, draft_side=draft_side)
