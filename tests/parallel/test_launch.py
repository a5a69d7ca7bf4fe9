"""One of several processes knows its place, and only the first one speaks."""

from __future__ import annotations

import sys

import pytest

from gpt4image.cli import main
from gpt4image.parallel import launch


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_process_alone_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (launch.count(), launch.rank(), launch.local_rank(), launch.local_count()) == (1, 0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as cluster managers set it for jobs of one process too
    assert (launch.count(), launch.rank(), launch.local_count()) == (1, 0, 1)


def test_only_the_first_process_speaks(second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (launch.count(), launch.rank(), launch.local_rank(), launch.local_count()) == (2, 1, 1, 2)
    with launch.only_first_speaks():
        print("second")
        print("second", file=sys.stderr)
    second_of_two.setenv("RANK", "0")
    with launch.only_first_speaks():
        print("first")
    assert capsys.readouterr() == ("first\n", "")


@pytest.mark.parametrize("words", [["compare", "--data", "openmoji", "--out", "x"], ["descriptions", "stats"]])
def test_commands_that_run_in_one_process_are_refused_once(
    words: list[str], second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", "")
    second_of_two.setenv("RANK", "0")
    assert main(words) == 2
    assert "was started in 2 processes" in (said := capsys.readouterr().err)
    assert "Processes can share train and evaluate." in said
