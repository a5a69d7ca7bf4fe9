"""What a deployed model says of itself: read as it was written, or refused with the way out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpt4image.base.errors import ModelError
from gpt4image.deploying.metadata import FORMAT, Metadata
from gpt4image.deploying.preprocessing import Preprocessing

HOW = Preprocessing(size=32, resize=36, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WRITTEN = Metadata(classes=("dés", "b\n"), preprocessing=HOW, task="multilabel", source={"seed": 1})


def test_it_is_read_as_it_was_written() -> None:
    assert Metadata.from_json(WRITTEN.to_json(), "model.onnx") == WRITTEN
    without = {name: value for name, value in json.loads(WRITTEN.to_json()).items() if name != "task"}
    assert Metadata.from_json(json.dumps(without), "model.onnx").task == "classification", "as before there were tasks"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "model.onnx does not say what its classes are"),
        ({"format": FORMAT + 1}, f"is of format {FORMAT + 1}; this version of gpt4image reads format {FORMAT}"),
        ({"classes": []}, "its metadata is malformed"),
        ({"classes": "ab"}, "its metadata is malformed"),
        ({"preprocessing": {}}, "its metadata is malformed"),
        ("[", "its metadata is malformed"),
        ("[]", "its metadata is malformed"),
        ("{}", "its metadata is malformed"),
    ],
)
def test_what_is_none_of_ours_is_refused(change: Any, reason: str) -> None:
    text = json.dumps({**json.loads(WRITTEN.to_json()), **change}) if isinstance(change, dict) else change
    with pytest.raises(ModelError, match=reason):
        Metadata.from_json(text, "model.onnx")
