"""Progress on standard error: bars with rate and time left; without a terminal, plain lines every few seconds."""

import importlib.util
import time
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

console = Console(stderr=True, markup=False, emoji=False, highlight=False)
LINE_SECONDS = 5.0
"""Time between plain lines of progress."""


def say(text: str) -> None:
    """Print one line about what is going on."""
    console.print(text, soft_wrap=True)


class PlainLines(progress.Progress):
    """Progress as plain lines, for logs, pipes and notebooks without ipywidgets."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self._said = time.monotonic()

    def update(self, task_id: progress.TaskID, **changes: Any) -> None:
        """Update a task, and print a line about it where none was printed for some seconds."""
        super().update(task_id, **changes)
        if time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            task = self._tasks[task_id]
            total = "" if task.total is None else f"/{task.total:,.0f}"
            say(f"{task.description} {task.completed:,.0f}{total} {task.fields.get('note', '')}".rstrip())


class RateColumn(progress.ProgressColumn):
    """Finished items per second, or seconds per item where an item takes longer."""

    def render(self, task: progress.Task) -> Text:
        """Return e.g. ``12.3/s`` or ``25 s each``."""
        speed = task.finished_speed or task.speed
        rate = "" if not speed else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.3g} s each"
        return Text(rate, style="progress.data.speed")


def progress_bar(*, quiet: bool = False, lines: bool = True) -> progress.Progress:
    """Return a progress bar whose tasks have a ``note``; without a terminal ``lines``, or nothing."""
    drawn = console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
    if not quiet and not drawn and lines:
        return PlainLines()
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        RateColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=quiet or not drawn,
    )
