"""Pictures as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from gpt4image.data.decode import decode

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))
