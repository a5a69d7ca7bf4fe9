"""Clips in the questions of describers: several images of one call, or one sheet."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpt4image
import openai_stub as server
from gpt4image.config import DescriberOptions, ExportDescriptionsConfig
from gpt4image.data.video import Frames, decode_frames
from gpt4image.describing.describers import images
from gpt4image.describing.describers.images import data_urls, pictures
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.descriptions import export_descriptions
from openai_cases import openai_settings, request
from tiny_videos import moving_dot, sound, video
from tiny_vlm import tiny_vlm

__all__ = ["openai_settings", "tiny_vlm"]
pytestmark = pytest.mark.usefixtures("openai_settings")
CLIP = video(moving_dot(0, 3, 10, side=64))
ANSWER = '{"description": "A white dot goes to the right.", "class": "right", "second": null, "confidence": 0.9}'


def images_of(body: dict[str, Any]) -> list[Image.Image]:
    content = next(message for message in body["messages"] if message["role"] == "user")["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


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
    shown = images_of(call.body)
    assert [picture.size for picture in shown] == [(64, 64)] * 8
    dots = [int(np.median(np.nonzero(np.asarray(picture)[..., 0] > 128)[1])) for picture in shown]
    assert dots == sorted(dots)
    assert "What moves" in call.content.decode()
    assert [(item.name, item.reason) for item in outcome.skipped] == [
        ("left/2.mp4", "cannot be decoded: holds no video: only sound, or cut off")
    ]
    export_descriptions(ExportDescriptionsConfig(file=rows, store=store))
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row["digest"], row["class"]) == (hashlib.sha256(CLIP).hexdigest(), "right")
    replayed = gpt4image.describe(**asked, store=tmp_path / "again.db", describer=f"replay:{rows}")
    assert replayed.summary["described"] == 1


def test_a_local_model_sees_several_images_or_one_sheet(tiny_vlm: Path) -> None:
    def answered(**changes: Any) -> tuple[str | None, int | None]:
        made = load_describer(
            DescriberOptions(describer=f"transformers:{tiny_vlm}", max_tokens=24, precision="fp32", **changes)
        )
        ((answer,),) = made.describe([request(read=lambda: CLIP, clips=True)])
        return answer.text, answer.tokens_in

    many, one = answered(frames=3), answered(frames=3, contact_sheet=True)
    assert many[0] and one[0]
    assert (many[1] or 0) - (one[1] or 0) == 2 * 4, "two more images of 2 x 2 patches"


def test_one_frame_of_full_size_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    smaller, most = images._smaller, 0

    def counted(frame: Image.Image, max_side: int) -> Image.Image:
        nonlocal most
        alive.append(weakref.ref(frame))
        most = max(most, sum(one() is not None for one in alive))
        return smaller(frame, max_side)

    monkeypatch.setattr(images, "_smaller", counted)
    shown = pictures(request(read=lambda: CLIP, clips=True), options(frames=8, max_side=32))
    assert len(shown) == 8 == len(alive) and {max(picture.size) for picture in shown} == {32}
    assert most <= 2
