"""Progress without a terminal: plain lines every few seconds, as in a log or a pipe."""

from __future__ import annotations

import pytest

from gpt4image.base import progress


def test_without_a_terminal_a_line_is_printed_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar() as bar:
        task = bar.add_task("train", total=1000, note="")
        for step in range(1, 13):
            now[0] += 1.0
            bar.update(task, completed=100 * step, note=f"loss {step}")
    assert capsys.readouterr().err == "train 500/1,000 loss 5\ntrain 1,000/1,000 loss 10\n"


def test_a_quiet_bar_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.progress_bar(quiet=True) as bar:
        bar.update(bar.add_task("train", total=2, note=""), completed=1)
    assert capsys.readouterr().err == ""
