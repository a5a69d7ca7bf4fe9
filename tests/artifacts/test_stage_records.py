"""What is noted of stages outlasts the process, and a stage that began anew is not finished."""

from __future__ import annotations

from pathlib import Path

from distilling_cases import made
from gpt4image.artifacts.stage_records import StageRecords, changed
from gpt4image.base.outcome import Skipped
from gpt4image.config.results import LabelResult


def test_what_came_of_a_stage_is_found_by_what_it_was_made_of_where_both_name_it(tmp_path: Path) -> None:
    records = StageRecords(tmp_path)
    assert records.begun("label") is None and records.finished("label", {"k": 1}) is None
    records.write_options({"epochs": 3})
    records.begin("label", {"a": (1,)})
    done = made(
        LabelResult,
        path=tmp_path / "x",
        coverage=0.5,
        page=tmp_path / "x.html",
        notes=["n"],
        text="t",
        skipped=(Skipped(name="1", reason="r"),),
    )
    records.finish("label", {"k": 1, "gone": 2}, done)
    again = StageRecords(tmp_path)
    assert (
        again.options == {"epochs": 3} and not changed(again.begun("label"), {"a": [1]}) and again.is_finished("label")
    )
    assert again.finished("label", {"k": 1, "new": 3}) == done and again.finished("label", {"k": 2}) is None
    again.begin("label", {"b": 1})
    assert StageRecords(tmp_path).finished("label", {"k": 1}) is None
    assert not StageRecords(tmp_path).is_finished("label") and changed("a fingerprint", {"b": 1}) == ["b"]
