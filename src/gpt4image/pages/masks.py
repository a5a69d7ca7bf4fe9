"""Masks drawn for people: every class a colour, over the picture or as a PNG file with a palette."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4image.data.regions import palette

SHARE = 0.55
"""Share of the colour of a class where it lies over a picture."""


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
