"""Pictures of coloured shapes with masks: red discs and blue squares on grey, some pictures only with tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = {"disc": (200, 40, 40), "square": (40, 40, 200)}
SIZE = (48, 40)
SMALL = {
    "model": "resnet10t", "model_args": {"channels": [8, 16, 16, 16], "stem_width": 8}, "image_size": 32,
    "batch_size": 8, "threads": 1, "precision": "fp32", "memory_format": "contiguous",
}  # fmt: skip
"""Options of a small training."""


def draw(folder: Path, *, train: int = 24, test: int = 8, tagged: int = 0, seed: int = 0) -> str:
    """Write a dataset, and return its SPEC."""
    rng = np.random.default_rng(seed)
    tags = ["key,tags"]
    for split, count in (("train", train), ("test", test), ("tagged", tagged)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture, mask, there = _picture(rng)
            picture.save(folder / "images" / split / f"{number:03}.png")
            if split == "tagged":
                tags.append(f"tagged/{number:03}.png,{'|'.join(there) or 'background'}")
            else:
                mask.save(folder / "masks" / split / f"{number:03}.png")
    (folder / "classes.txt").write_text("\n".join(["background", *SHAPES]))
    (folder / "tags.csv").write_text("\n".join(tags))
    return f"masks:{folder}"


def _picture(rng: np.random.Generator) -> tuple[Image.Image, Image.Image, list[str]]:
    picture, mask, there = Image.new("RGB", SIZE, (120, 120, 120)), Image.new("L", SIZE, 0), []
    for number, (name, colour) in enumerate(SHAPES.items(), 1):
        if rng.random() < 0.6:
            x, y = (int(rng.integers(0, side - 17)) for side in SIZE)
            box = (x, y, x + 16, y + 16)
            for image, fill in ((picture, colour), (mask, number)):
                pen = ImageDraw.Draw(image)
                (pen.ellipse if name == "disc" else pen.rectangle)(box, fill=fill)
            there.append(name)
    return picture, mask, there


def set_and_run(root: Path) -> None:
    """Write a dataset, some pictures of it only with tags, and train a small run on it."""
    from gpt4image.config import TrainConfig
    from gpt4image.training.train import train

    data = draw(root / "set", tagged=8)
    train(TrainConfig(**{"data": data, "out": root / "run", "epochs": 14, **SMALL}))
