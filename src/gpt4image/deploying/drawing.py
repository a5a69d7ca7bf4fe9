"""Predicted boxes drawn on their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import ImageDraw

from gpt4image.base.files import atomic_path
from gpt4image.base.visible import in_one_line
from gpt4image.data.decode import decode
from gpt4image.data.file_source import read_bounded
from gpt4image.deploying.rows import Prediction

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#c2185b")


def draw(row: Prediction, place: Path, number: int, classes: Sequence[str]) -> None:
    """Write a picture with its boxes into a folder, as NUMBER-NAME.jpg. Raises OSError, DecodeError."""
    picture = decode(read_bounded(row.image))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    for name, score, box in reversed(list(zip(row.classes, row.probabilities, row.boxes or (), strict=True))):
        colour = COLOURS[classes.index(name) % len(COLOURS)]
        words = in_one_line(f"{name} {score:.2f}")
        pen.rectangle(list(box), outline=colour, width=width)
        left, top, right, bottom = pen.textbbox((box[0] + width, box[1] + width), words)
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill=colour)
        pen.text((box[0] + width, box[1] + width), words, fill="white")
    place.mkdir(parents=True, exist_ok=True)
    with atomic_path(place / f"{number:06d}-{Path(row.image).stem}.jpg") as temporary, temporary.open("wb") as file:
        picture.save(file, "JPEG", quality=90)
