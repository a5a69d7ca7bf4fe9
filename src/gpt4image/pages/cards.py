"""Picture cards of pages: small pictures as data URLs, boxes and masks over them; templates/cards.html shows one."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.base.errors import DecodeError
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import visible
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import palette
from gpt4image.data.video import picture_of

PICTURE = 192
"""Pixels a side of the picture of a card: cards show it at most 160 to 190 pixels wide on a large screen."""
SHARE = 0.55
"""Share of the colour of a class where it lies over a picture."""


def data_url(picture: Image.Image, quality: int = 85) -> str:
    """Return a picture as a data URL, without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail(data: bytes, side: int = PICTURE, *, clips: bool = False) -> str:
    """Return an image, or frames of a clip, as a data URL of at most ``side`` pixels a side. Raises DecodeError."""
    image = picture_of(data, clips=clips)
    image.thumbnail((side, side))
    return data_url(image)


def mark(kind: str, corners: Sequence[float], name: str, *, label: bool = True) -> dict[str, Any]:
    """Return a box over a picture: left, top, right, bottom as fractions of it, with its name beside it or not."""
    left, top, right, bottom = (round(100 * min(max(float(side), 0.0), 1.0), 2) for side in corners)
    place = {"x": left, "y": top, "width": round(right - left, 2), "height": round(bottom - top, 2)}
    name = visible(name)
    return {"kind": kind, "label": name if label else "", "title": f"{kind}: {name}", "place": place}


def coloured(mask: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Return a mask (h, w) of class numbers as an image with a palette, at another size (width, height)."""
    image = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    image.putpalette(palette().tobytes())
    return image


def overlaid(picture: Image.Image, mask: NDArray[np.uint8], background: int = 0) -> Image.Image:
    """Return a picture with the colours of a mask (h, w) over it, except where it shows the class ``background``."""
    numbers = coloured(mask, picture.size)
    share = np.where(np.asarray(numbers) == background, 0, round(255 * SHARE)).astype(np.uint8)
    return Image.composite(numbers.convert("RGB"), picture.convert("RGB"), Image.fromarray(share))


class Thumbnails:
    """Thumbnails of the images of a set, by position; ``skipped`` are images that cannot be decoded."""

    def __init__(self, images: Dataset, side: int = PICTURE) -> None:
        self._images, self._side = images, side
        self.skipped: list[Skipped] = []

    def of(self, row: int) -> str | None:
        """Return the thumbnail of an image; None where it cannot be decoded."""
        try:
            return thumbnail(self._images.read(row), self._side, clips=self._images.clips)
        except (DecodeError, OSError) as error:
            item = Skipped(name=self._images.keys[row], reason=str(error))
            if item not in self.skipped:
                self.skipped.append(item)
            return None
