"""Progress: bars with rates on a terminal, plain lines every few seconds without one."""

import io

import pytest
from rich.console import Console

from gpt4image.base import progress


def test_without_a_terminal_a_line_is_printed_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for quiet in (False, True):
        with progress.progress_bar(quiet=quiet) as bar:
            task = bar.add_task("train", total=1000, note="")
            for step in range(1, 13):
                now[0] += 1.0
                bar.update(task, completed=100 * step, note=f"loss {step}")
    assert capsys.readouterr().err == "train 500/1,000 loss 5\ntrain 1,000/1,000 loss 10\n"
    line = "voc:V: 2 boxes of [red]a:smile: were cut, and " + 20 * "none was dropped, "
    progress.say(line)
    assert capsys.readouterr().err == f"{line}\n", "as it is"


def test_a_bar_shows_count_rate_and_note_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, quiet in ((True, False), (True, True), (False, False)):
        shown = io.StringIO()
        monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=terminal, width=200))
        with progress.progress_bar(quiet=quiet) as bar:
            task = bar.add_task("images of voc:V: [b]", total=4, note="loss 0.5")
            bar.update(task, completed=4)
        if terminal and not quiet:
            assert all(part in shown.getvalue() for part in ("images of voc:V: [b]", "4/4", "loss 0.5"))
        else:
            assert shown.getvalue().strip() == ""
