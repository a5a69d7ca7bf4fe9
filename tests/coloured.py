"""Noisy pictures of three colours, which a model tells apart after a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}


def noisy(colour: tuple[int, int, int], rng: np.random.Generator, side: int = 16) -> Image.Image:
    values = np.array(colour) + rng.normal(0, 30, (side, side, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def write_colours(root: Path, each: int = 16, side: int = 16) -> Path:
    """Write so many pictures of each colour in class folders."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noisy(colour, rng, side).save(root / name / f"{number:02}.png")
    return root
