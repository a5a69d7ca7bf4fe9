"""clips: class folders and tables of videos."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from gpt4image.data import load_dataset
from gpt4image.data.pixels import load_pixels
from gpt4image.data.video import Frames, decode_clip
from loaded_sets import label_names
from tiny_videos import moving_dot, sound, video


def write(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video(moving_dot(number, 3, 10)))


@pytest.mark.parametrize("by_path", [False, True])
def test_class_folders_with_splits(tmp_path: Path, by_path: bool) -> None:
    write(tmp_path, "train/left/1.mp4", "train/right/2.MP4", "train/unlabelled/3.mkv", "test/left/4.mp4")
    clips = load_dataset(str(tmp_path) if by_path else f"clips:{tmp_path}")
    assert clips.clips
    assert clips.spec == f"clips:{tmp_path}"
    assert label_names(clips) == {
        "train/left/1.mp4": "left",
        "train/right/2.MP4": "right",
        "train/unlabelled/3.mkv": None,
        "test/left/4.mp4": "left",
    }
    assert [key for key, split in zip(clips.keys, clips.splits, strict=True) if split == "test"] == ["test/left/4.mp4"]
    assert clips.digests[0] == hashlib.sha256((tmp_path / clips.keys[0]).read_bytes()).hexdigest()
    assert clips.select([2, 0]).clips


@pytest.mark.parametrize("header", ["key,label", "path,label", "video,class"])
def test_a_table_of_clips(tmp_path: Path, header: str) -> None:
    write(tmp_path, "a/1.mp4", "a/2.mp4")
    (tmp_path / "clips.csv").write_text(f"{header}\na/1.mp4,left\na/2.mp4,right\na/3.mp4,right\n")
    clips = load_dataset(f"clips:{tmp_path / 'clips.csv'}")
    assert (clips.clips, clips.keys, clips.classes) == (True, ("a/1.mp4", "a/2.mp4"), ("left", "right"))
    assert [item.name for item in clips.skipped] == ["a/3.mp4"]


@pytest.mark.parametrize("name", ["manifest:", ""])
def test_a_table_of_videos_is_one_of_clips_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a/1.mp4", "a/2.mp4")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na/1.mp4,left\na/2.mp4,right\n")
    assert load_dataset(f"{name}{table}").clips
    (tmp_path / "a" / "3.png").touch()
    (tmp_path / "a" / "4.png").touch()
    table.write_text("path,label\na/1.mp4,left\na/3.png,left\na/4.png,right\n")
    assert not load_dataset(f"{name}{table}").clips


def test_what_is_of_another_kind_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "left/1.mp4", "right/2.mp4")
    for name in ("left/1.png", "left/1.heic"):
        (tmp_path / name).touch()
    assert load_dataset(f"clips:{tmp_path}").skipped == ()
    assert "since they are no clips: 1 .heic, 1 .png." in " ".join(capsys.readouterr().err.split())
    (tmp_path / "right" / "2.png").touch()
    load_dataset(f"folder:{tmp_path}")
    assert "since they are no images: 2 .mp4. clips:PATH reads videos." in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["memory", "workers"])
def test_pixels_hold_the_frames_one_after_the_other_and_broken_clips_are_named(tmp_path: Path, limit: float) -> None:
    write(tmp_path, "left/1.mp4", "right/2.mp4")
    (tmp_path / "right" / "3.mp4").write_bytes(sound())
    clips = load_dataset(f"clips:{tmp_path}")
    pixels, _, _ = load_pixels(clips, 32, memory_limit_gb=limit, workers=0, frames=Frames(5))
    (batch,) = pixels.stream([np.arange(3)])
    assert batch.shape == (3, 15, 32, 32)
    whole = decode_clip(clips.read(1), 32, Frames(5))
    assert (batch[1].unflatten(0, (5, 3)).permute(0, 2, 3, 1).numpy() == whole).all()
    assert [(item.name, item.reason) for item in pixels.skipped] == [
        ("right/3.mp4", "holds no video: only sound, or cut off")
    ]
    assert (batch[2] == 255).all()
