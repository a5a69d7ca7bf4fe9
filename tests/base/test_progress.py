"""Progress bars: rates, and silence without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gpt4image.base import progress


def test_a_bar_shows_count_rate_and_note_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, quiet in ((True, False), (True, True), (False, False)):
        shown = io.StringIO()
        monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=terminal, width=200))
        with progress.progress_bar(quiet=quiet) as bar:
            task = bar.add_task("images", total=4, note="loss 0.5")
            bar.update(task, completed=4)
        if terminal and not quiet:
            assert all(part in shown.getvalue() for part in ("images", "4/4", "loss 0.5"))
        else:
            assert shown.getvalue().strip() == ""


def test_the_rate_is_unknown_before_the_first_item() -> None:
    bar = progress.progress_bar(quiet=True)
    bar.add_task("images", total=4, note="")
    (task,) = bar.tasks
    assert progress.RateColumn().render(task).plain == ""
    task.finished_speed = 12.34
    assert progress.RateColumn().render(task).plain == "12.3/s"
