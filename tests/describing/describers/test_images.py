"""Images and clips as describers see them: bounded, without metadata, several of one call or one sheet."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpt4image
import openai_stub as server
from gpt4image.config import DescriberOptions, ExportDescriptionsConfig
from gpt4image.data.video import Frames, decode_frames
from gpt4image.describing.describers.images import bounded, data_url, data_urls, pictures
from gpt4image.describing.descriptions import export_descriptions
from openai_cases import request
from worlds import encoded, moving_dot, sound, video


def picture(width: int, height: int, kind: str = "jpeg", **options: object) -> bytes:
    across = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return encoded(Image.fromarray(across.astype(np.uint8)), kind, **options)


def sent(data: bytes, side: int, kind: str = "jpeg") -> bytes:
    """What is sent of an image."""
    mime, _, content = data_url(bounded(data, side), kind).partition(";base64,")
    assert mime == f"data:image/{kind}"
    return base64.b64decode(content)


def test_the_longer_side_is_bounded_and_a_large_jpeg_read_at_a_reduced_scale_looks_alike() -> None:
    bounds = {(1600, 1200, 768): (768, 576), (300, 200, 768): (300, 200), (5000, 2, 100): (100, 1)}
    for (width, height, side), expected in bounds.items():
        for kind in ("jpeg", "png"):
            image = bounded(picture(width, height, kind), side)
            assert (image.size, image.mode) == (expected, "RGB")
    from_jpeg, from_png = (np.asarray(bounded(picture(1600, 1200, kind), 300)).astype(int) for kind in ("jpeg", "png"))
    assert np.abs(from_jpeg - from_png).mean() < 2


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_nothing_but_pixels_is_sent(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at a secret place"
    data = picture(64, 48, exif=exif, comment=b"secret comment", icc_profile=b"secret profile")
    assert b"secret" in data
    content = sent(data, 768, image_format)
    assert b"secret" not in content
    image = Image.open(io.BytesIO(content))
    assert image.size == (64, 48)
    assert not image.getexif()


# Clips

CLIP = video(moving_dot(0, 3, 10, side=64))
ANSWER = '{"description": "A white dot goes to the right.", "class": "right", "second": null, "confidence": 0.9}'


def options(**changes: Any) -> DescriberOptions:
    return DescriberOptions(describer="openai:tiny", **changes)


def test_the_frames_are_shown_in_their_order_and_bounded() -> None:
    asked = request(read=lambda: CLIP, clips=True)
    shown = pictures(asked, options(frames=4, max_side=32))
    assert [picture.size for picture in shown] == [(32, 32)] * 4
    whole = decode_frames(CLIP, Frames(4))
    assert all(np.array_equal(one, other) for one, other in zip(pictures(asked, options(frames=4)), whole, strict=True))
    assert len(data_urls(asked, options())) == 8
    (sheet,) = pictures(asked, options(contact_sheet=True))
    assert sheet.size == (4 * 68, 2 * 68)
    assert options().clip_settings == {}, "what is not the default is a part of the identity of results"
    assert options(frames=1, contact_sheet=True).clip_settings == {"frames": 1, "contact_sheet": True}


def test_describe_asks_about_clips_and_keeps_answers_by_the_digest_of_the_file(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / "clips" / name).mkdir(parents=True)
    (tmp_path / "clips" / "right" / "1.mp4").write_bytes(CLIP)
    (tmp_path / "clips" / "left" / "2.mp4").write_bytes(sound())
    store, rows = tmp_path / "clips.db", tmp_path / "rows.jsonl"
    asked: Any = {"data": f"clips:{tmp_path / 'clips'}", "prompt": "motion", "ask": "description,class"}
    with server.serve(lambda call: server.answer(ANSWER)) as stub:
        outcome = gpt4image.describe(**asked, store=store, describer="openai:tiny", base_url=stub.url)
    (call,) = stub.calls
    assert [picture.size for picture in call.pictures] == [(64, 64)] * 8
    dots = [int(np.median(np.nonzero(np.asarray(picture)[..., 0] > 128)[1])) for picture in call.pictures]
    assert dots == sorted(dots)
    assert "What moves" in call.content.decode()
    assert [(item.name, item.reason) for item in outcome.skipped] == [
        ("left/2.mp4", "cannot be decoded: holds no video: only sound, or cut off")
    ]
    export_descriptions(ExportDescriptionsConfig(file=rows, store=store))
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row["digest"], row["class"]) == (hashlib.sha256(CLIP).hexdigest(), "right")
    replayed = gpt4image.describe(**asked, store=tmp_path / "again.db", describer=f"replay:{rows}")
    assert replayed.described == 1
