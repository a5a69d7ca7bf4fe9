"""What pages show of images and clips."""

from __future__ import annotations

import pytest

from gpt4image.base.errors import DecodeError
from gpt4image.data.pictures import picture_of
from openai_cases import picture
from tiny_videos import moving_dot, video


def test_an_image_is_shown_as_it_is_and_a_clip_by_four_frames() -> None:
    assert picture_of(picture(), clips=False).size == (40, 30)
    assert picture_of(video(moving_dot(0, 3, 10)), clips=True).size == (72, 72)
    with pytest.raises(DecodeError):
        picture_of(video(moving_dot(0, 3, 10)), clips=False)
