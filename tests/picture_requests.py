"""Pictures, and requests about them, for tests of describers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from gpt4image.artifacts.store import Prompt
from gpt4image.describing.describers.base import Request

QUESTION = "Describe this image in detail."
COLOURS = ("red", "green", "blue", "white", "black", "orange", "purple")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def plain(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    return png(Image.new("RGB", size, colour))


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return png(Image.fromarray(pixels))


def request(
    data: bytes,
    *turns: str,
    sample: int = 0,
    read: Callable[[], bytes] | None = None,
) -> Request:
    digest = hashlib.sha256(data).hexdigest()
    turns = turns or (QUESTION,)
    return Request(
        digest=digest,
        keys=(f"{digest[:8]}.png",),
        prompt=Prompt("asked", 1, "\n---\n".join(turns), class_conditioned=False),
        turns=turns,
        sample=sample,
        read=read or (lambda: data),
    )
