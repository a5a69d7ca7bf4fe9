"""What a stage returns: the path of its result, facts to print, and the items that it skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """One item that a stage skipped because it cannot be used.

    Attributes:
        name: key of the image, or file and line of the row.
        reason: why, in one line.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one stage.

    Attributes:
        path: file or folder of the result; None for stages that write nothing.
        summary: JSON-serialisable facts, printed as ``name: value`` lines or, with ``--json``, as one object.
        record: extra JSON-serialisable facts, printed only with ``--json``.
        text: text such as a table, printed under the summary and left out of ``--json``.
        skipped: skipped items; a stage with any ends with exit code 1.
        wrote: the files and folders that were written.
        next: the command to give next, or the same as a call in Python.
        drawing: what ``plot`` calls; None where there is nothing to see.
    """

    path: Path | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    skipped: tuple[Skipped, ...] = ()
    wrote: tuple[Path, ...] = ()
    next: str = ""
    drawing: Callable[[], Any] | None = None

    def plot(self) -> Any:
        """Return a drawing of the result, which a notebook shows: curves of a run, bars of a comparison.

        Raises:
            AttributeError: there is nothing to see.
        """
        if self.drawing is None:
            raise AttributeError("this outcome has nothing to plot; those of train, evaluate, compare and demo have")
        return self.drawing()

    def __getattr__(self, name: str) -> Any:
        """Return a fact of the summary or the record as an attribute."""
        for facts in (self.__dict__.get("summary", {}), self.__dict__.get("record", {})):
            if name in facts:
                return facts[name]
        raise AttributeError(f"this outcome has no {name!r}; it has {', '.join([*self.__dict__.get('summary', {})])}")

    def _repr_html_(self) -> str:
        """Return the summary as a table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(key.replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>"
            for key, value in self.summary.items()
        )
        text = f"<pre>{escape(self.text)}</pre>" if self.text else ""
        named = "".join(f"<li>{escape(item.name)}: {escape(item.reason)}</li>" for item in self.skipped[:20])
        skipped = f"<p>{len(self.skipped)} skipped</p><ul>{named}</ul>" if self.skipped else ""
        wrote = f"<p>wrote: {escape(', '.join(map(str, self.wrote)))}</p>" if self.wrote else ""
        then = f"<p>next: <code>{escape(self.next)}</code></p>" if self.next else ""
        return f"<table>{rows}</table>{text}{skipped}{wrote}{then}"
