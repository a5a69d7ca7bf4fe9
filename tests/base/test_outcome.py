"""What commands return: facts as typed fields, by name as the command line tells them, and as rows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from gpt4image.config.results import TrainResult

TRAINED = TrainResult(
    path=Path("run"), chosen={"model": "<b>"}, train_images=36, val_images=3, test_images=9, classes=3, labelled=12,
    described=0, val={"top1": 0.5}, seconds=1.5, images_per_second=9.0, text="a < b",
)  # fmt: skip


def test_facts_have_the_names_that_the_command_line_tells_and_what_is_not_known_is_left_out() -> None:
    names = "chosen train_images val_images test_images classes labelled described val_top1 seconds images_per_second"
    assert list(TRAINED.summary) == names.split() and TRAINED.record == {}
    assert TRAINED.val_images == 3 and getattr(TRAINED, "val_top1") == 0.5 and "val_top1" in dir(TRAINED)  # noqa: B009
    assert replace(TRAINED, val={}).summary["val"] is None
    with pytest.raises(AttributeError, match="no 'pictures'; it has chosen, train_images"):
        _ = TRAINED.pictures
    assert "a &lt; b" in TRAINED._repr_html_() and "&lt;b&gt;" in TRAINED._repr_html_()
    assert "a < b" not in repr(TRAINED)
    assert pickle.loads(pickle.dumps(TRAINED)) == TRAINED  # noqa: S301
