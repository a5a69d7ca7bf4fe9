"""What the plots of the pages share: one look, the same bytes for the same numbers, and the numbers inside the file."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def is_current(plot: Path, numbers: Any) -> bool:
    """Return whether the plot on disk shows these numbers."""
    return plot.exists() and _text(numbers) in plot.read_text(encoding="utf-8")


@contextmanager
def drawing(plot: Path, numbers: Any, size: tuple[float, float], font: int) -> Generator[Figure]:
    """Give a figure of ``size`` inches to draw on, and write it to ``plot`` with the numbers that it shows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "gpt4image", "svg.fonttype": "path", "font.size": font}
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(plot, metadata={"Date": None, "Description": _text(numbers)})


def plain(axis: Axes) -> None:
    """Give an axis a quiet grid and no frame at the top and on the right."""
    axis.grid(color="#dddcd6", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def _text(numbers: Any) -> str:
    """Return the numbers as JSON, to the sixth digit: the last ones differ between machines."""
    rounded = json.loads(json.dumps(numbers), parse_float=lambda digits: round(float(digits), 6))
    return json.dumps(rounded, separators=(",", ":"))
