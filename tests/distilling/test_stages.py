"""Stages in turn: finished ones stay, changed ones are made again, and what distill did not make is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilling_cases import made
from gpt4image.artifacts.stage_records import StageRecords
from gpt4image.base.errors import RunError
from gpt4image.base.outcome import Outcome
from gpt4image.config import results
from gpt4image.distilling.stages import Stages


def make(out: Path, name: str, key: str) -> int:
    """Carry out one stage that writes a folder of its name; return how often it was made."""
    times = 0

    def write() -> Outcome:
        nonlocal times
        times += 1
        (out / name).mkdir(exist_ok=True)
        (out / name / "content").write_text(key, encoding="utf-8")
        return made(getattr(results, f"{name.capitalize()}Result"), path=out / name)

    stages = Stages(out, StageRecords(out))
    stages.do(name, write, lambda _: "said", key=key, goes_on=key, made=[out / name], needs=[out / name])
    assert stages.outcomes[name].path == out / name
    return times


def test_a_stage_is_made_once_for_the_same_key_and_again_where_its_file_is_gone(tmp_path: Path) -> None:
    assert [make(tmp_path, "label", "a"), make(tmp_path, "label", "a")] == [1, 0]
    (tmp_path / "label" / "content").unlink()
    (tmp_path / "label").rmdir()
    assert make(tmp_path, "label", "a") == 1


def test_a_trained_model_makes_room_and_is_kept_while_what_is_derived_is_removed(tmp_path: Path) -> None:
    for name in ("train", "label"):
        make(tmp_path, name, "a")
        assert make(tmp_path, name, "b") == 1
        assert (tmp_path / name / "content").read_text("utf-8") == "b"
    assert (tmp_path / "earlier-1" / "train" / "content").read_text("utf-8") == "a"
    assert not (tmp_path / "earlier-1" / "label").exists()


def test_what_lies_there_already_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(RunError, match="distill did not make it"):
        make(tmp_path, "train", "a")
    assert not list((tmp_path / "train").iterdir())


def test_a_stage_with_nothing_to_do_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Stages(tmp_path, StageRecords(tmp_path)).leave_out("evaluate", "no human label")
    assert "5/7 evaluate  left out: no human label" in "".join(capsys.readouterr())
