"""Renew docs/images/scenes-boxes.png from a run on `openmoji-scenes`: ``python docs/scenes_picture.py RUN``.

It shows what the run finds on test scenes, as ``predict --draw`` draws it. The scenes are rendered larger than the
dataset has them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from gpt4image.config import PredictConfig
from gpt4image.data.openmoji import render
from gpt4image.data.openmoji_scenes import plan, svg_of_scene
from gpt4image.deploying.predict import predict

OUT = Path(__file__).parent / "images" / "scenes-boxes.png"
COLUMNS, ROWS, SIDE, GAP = 3, 2, 320, 6
COLOURS = 64
"""As many as keep the picture below 60 kB."""


def main() -> None:
    """Draw the picture."""
    if len(sys.argv) != 2:
        sys.exit("give the folder of a run: python docs/scenes_picture.py RUN")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, scene in enumerate(plan()["test"][: COLUMNS * ROWS]):
            (folder / f"{number}.png").write_bytes(render(svg_of_scene(scene), SIDE, scene.colour))
        predict(
            PredictConfig(
                model=Path(sys.argv[1]), images=(name,), draw=folder / "drawn", out=folder / "boxes.csv", device="cpu"
            )
        )
        sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, ROWS * (SIDE + GAP) - GAP), "white")
        for number, file in enumerate(sorted((folder / "drawn").glob("*.jpg"))):
            with Image.open(file) as drawn:
                sheet.paste(drawn, (number % COLUMNS * (SIDE + GAP), number // COLUMNS * (SIDE + GAP)))
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
