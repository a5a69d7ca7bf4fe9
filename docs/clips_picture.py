"""Renew docs/images/clips.png: ``python docs/clips_picture.py``.

It shows frames of one test clip per motion of `openmoji-clips`.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from gpt4image.data.openmoji_clips import FRAMES, MOTIONS, SIDE, drawn, plan

OUT = Path(__file__).parent / "images" / "clips.png"
SHOWN, GAP = 6, 4
ORDER = ("rise", "grow", "spin", "fall", "shrink", "cross")
"""Two motions stand beside each other, so that the picture is wide."""


def main() -> None:
    """Draw the picture."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (2 * SHOWN * step + GAP, len(ORDER) // 2 * step - GAP), "white")
    clips = {MOTIONS[clip.label]: clip for clip in plan()["test"][: len(MOTIONS)]}
    for place, motion in enumerate(ORDER):
        frames = list(drawn(clips[motion]))
        for number in range(SHOWN):
            column = place // 3 * SHOWN + number
            left = column * step + place // 3 * 2 * GAP
            sheet.paste(frames[number * (FRAMES - 1) // (SHOWN - 1)], (left, place % 3 * step))
    sheet.quantize(64, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
