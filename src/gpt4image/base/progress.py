"""Progress bars with rate and time left, on standard error; none without a terminal."""

from __future__ import annotations

from rich import progress
from rich.console import Console
from rich.text import Text

console = Console(stderr=True)


class RateColumn(progress.ProgressColumn):
    """Finished items per second."""

    def render(self, task: progress.Task) -> Text:
        """Return e.g. ``12.3/s``."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


def progress_bar(*, quiet: bool = False) -> progress.Progress:
    """Return a progress bar whose tasks take ``description``, ``total`` and a ``note`` field (losses, cost)."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        RateColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=console,
        disable=quiet or not console.is_terminal,
    )
