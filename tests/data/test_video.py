"""Videos: sets of clips, which frames make one, and what hostile, damaged and endless files come to."""

import builtins
from pathlib import Path

import numpy as np
import pytest

import gpt4image.data.video as module
from gpt4image.base.errors import DecodeError, MissingExtraError
from gpt4image.data import load_dataset
from gpt4image.data.pixels import load_pixels
from gpt4image.data.video import (
    CODECS,
    Frames,
    contact_sheet,
    decode_clip,
    decode_frames,
    frame_size,
    picture_of,
    require_decoder,
)
from openai_cases import picture
from worlds import SIDE, moving_dot, sound, video

DOT = video(moving_dot(0, 3, 10))
FAST = video(moving_dot(0, 3, 10), fast_start=True)
MATROSKA = video(moving_dot(0, 3, 10), container="matroska")
AVI = video(moving_dot(0, 3, 10), container="avi")
LEVELS = np.repeat(np.arange(0, 256, 16, np.uint8), 32 * 32 * 3).reshape(16, 32, 32, 3)
GREYS = video(LEVELS)


def levels(data: bytes, frames: Frames) -> list[int]:
    """The number of each frame that is shown, out of the 16 of GREYS."""
    return [round(float(np.asarray(frame).mean()) / 16) for frame in decode_frames(data, frames)]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "mpeg4"), ("mp4", "h264"), ("mov", "mpeg4"), ("matroska", "h264"), ("webm", "libvpx"), ("avi", "mpeg4")],
)
def test_the_usual_containers_and_codecs_give_the_frames_that_were_written(container: str, codec: str) -> None:
    frames = moving_dot(0, 3, 10)
    data = video(frames, container=container, codec=codec)
    clip = decode_clip(data, SIDE, Frames(8))
    assert clip.shape == (8, SIDE, SIDE, 3)
    assert np.abs(clip.astype(int) - frames).mean() < 8
    dots = [int(np.median(np.nonzero(frame[..., 0] > 128)[1])) for frame in clip]
    assert dots[:6] == pytest.approx([2, 5, 8, 11, 14, 17], abs=1)
    assert frame_size(data) == (SIDE, SIDE)


def test_frames_are_spread_evenly_controls_lose_their_order_and_a_sheet_has_them_in_reading_order() -> None:
    assert levels(GREYS, Frames(4)) == [2, 6, 10, 14]
    assert levels(GREYS, Frames(16)) == list(range(16))
    assert levels(video(LEVELS[[4]]), Frames(3)) == [4, 4, 4], "a short clip shows some again"
    shuffled = levels(GREYS, Frames(8, "shuffled"))
    assert sorted(shuffled) == levels(GREYS, Frames(8)) != shuffled
    assert shuffled == levels(GREYS, Frames(8, "shuffled")), "the same file, the same order"
    assert levels(GREYS, Frames(8, "still")) == [8] * 8
    sheet = contact_sheet(GREYS, Frames(8), side=32)
    assert sheet.size == (4 * 36, 2 * 36)
    centres = [sheet.getpixel((18 + 36 * column, 18 + 36 * row)) for row in range(2) for column in range(4)]
    assert [round(centre[0] / 16) for centre in centres] == levels(GREYS, Frames(8))  # type: ignore[index]
    assert contact_sheet(GREYS, Frames(4), side=32).size == picture_of(GREYS, clips=True).size == (72, 72)
    assert picture_of(picture(), clips=False).size == (40, 30)


@pytest.mark.parametrize("turn", [90, 180, None])
def test_a_video_that_is_turned_is_upright(turn: int | None) -> None:
    quarters = np.zeros((4, 32, 48, 3), np.uint8)
    quarters[:, :16, :24], quarters[:, :16, 24:], quarters[:, 16:, :24] = 240, 160, 80
    data = bytearray(video(quarters, rotation=turn or 0))
    if turn is None:  # a display matrix of zeros turns nothing
        track = data.find(b"tkhd") + 4 + 40
        data[track : track + 36] = bytes(36)
    (upright,) = decode_frames(bytes(data), Frames(1))
    expected = np.rot90(quarters[0], (turn or 0) // 90)
    assert np.abs(np.asarray(upright).astype(int) - expected).mean() < 12


def test_a_whole_file_may_begin_late_and_one_cut_off_is_still_named() -> None:
    late = video(LEVELS, first=40)
    assert len(decode_frames(late, Frames(len(LEVELS)))) == len(LEVELS)
    with pytest.raises(DecodeError):
        decode_frames(late[: len(late) * 2 // 3], Frames(4))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"#EXTM3U\n#EXTINF:1\nfile:///etc/hostname\n", "not a video"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a video"),
        (b"\0\0\0\x18ftypavif" + bytes(100), "not a video"),
        (DOT[:40] + bytes(500), "damaged"),
        (DOT[: len(DOT) // 2], "no video"),
        (FAST[:-60], "cut off|damaged"),
        (MATROSKA[: len(MATROSKA) // 2], "damaged"),
        (AVI[: len(AVI) * 4 // 5], "damaged"),
        (sound(), "no video"),
        (b"RIFF\0\0\0\0AVI " + bytes(64), "damaged|no video"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_what_is_no_whole_video_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_frames(data, Frames(8))


def test_no_file_and_no_address_is_opened_besides_the_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A MOV file may say that its data lie in another file: they are not looked for there."""
    secret = tmp_path / "secret.mov"
    secret.write_bytes(video(moving_dot(0, 3, 10), container="mov"))
    data = bytearray(secret.read_bytes())
    place = data.find(b"url ")
    path = str(secret).encode()
    reference = (12 + len(path) + 1).to_bytes(4, "big") + b"url \0\0\0\0" + path + b"\0"
    hostile = bytes(data[: place - 4]) + reference + bytes(data[place + 8 :])
    opened: list[object] = []
    monkeypatch.setattr(builtins, "open", lambda *arguments, **_: opened.append(arguments))
    with pytest.raises(DecodeError):
        decode_frames(hostile, Frames(8))
    assert opened == []


def test_frames_pixels_seconds_and_codecs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 10)
    with pytest.raises(DecodeError, match="more than the allowed 10 frames: cut it"):
        decode_frames(GREYS, Frames(8))
    assert len(decode_frames(DOT, Frames(8))) == 8
    monkeypatch.setattr(module, "MAX_SECONDS", -1.0)
    with pytest.raises(DecodeError, match="seconds"):
        decode_frames(DOT, Frames(8))
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_PIXELS", 32 * 31)
    with pytest.raises(DecodeError, match=r"32 x 32 pixels are more than the allowed 992|damaged"):
        decode_frames(DOT, Frames(8))
    monkeypatch.undo()
    assert "gif" not in CODECS
    with pytest.raises(DecodeError, match=r"its codec, (huffyuv|ffvhuff), is not among"):
        decode_frames(video(moving_dot(0, 3, 10), container="avi", codec="huffyuv", pixels="yuv422p"), Frames(8))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[video\]"):
        require_decoder("clips:")


def write(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video(moving_dot(number, 3, 10)))


@pytest.mark.parametrize(
    ("header", "name", "options"),
    [("key,label", "clips:", ""), ("path,label", "manifest:", ""), ("video,class", "", ",path=video,label=class")],
)
def test_a_table_of_clips(tmp_path: Path, header: str, name: str, options: str) -> None:
    write(tmp_path, "a/1.mp4", "a/2.mp4")
    table = tmp_path / "clips.csv"
    table.write_text(f"{header}\na/1.mp4,left\na/2.mp4,right\na/3.mp4,right\n")
    clips = load_dataset(f"{name}{table}{options}")
    assert (clips.clips, clips.keys, clips.classes) == (True, ("a/1.mp4", "a/2.mp4"), ("left", "right"))
    assert [item.name for item in clips.skipped] == ["a/3.mp4"]


@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["memory", "workers"])
def test_pixels_hold_the_frames_one_after_the_other_and_broken_clips_are_named(tmp_path: Path, limit: float) -> None:
    write(tmp_path, "left/1.mp4", "right/2.mp4")
    (tmp_path / "right" / "3.mp4").write_bytes(sound())
    clips = load_dataset(str(tmp_path))
    assert clips.clips and clips.spec == f"clips:{tmp_path}" and clips.select([2, 0]).clips
    pixels, _, _ = load_pixels(clips, 32, memory_limit_gb=limit, workers=0, frames=Frames(5))
    (batch,) = pixels.stream([np.arange(3)])
    assert batch.shape == (3, 15, 32, 32)
    whole = decode_clip(clips.read(1), 32, Frames(5))
    assert (batch[1].unflatten(0, (5, 3)).permute(0, 2, 3, 1).numpy() == whole).all()
    assert [(item.name, item.reason) for item in pixels.skipped] == [
        ("right/3.mp4", "holds no video: only sound, or cut off")
    ]
    assert (batch[2] == 255).all()
