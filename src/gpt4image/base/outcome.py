"""The result of a command: a dataclass whose fields are its facts, and how it is printed, as text, JSON or HTML.

The classes of the commands are in ``config.results``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from gpt4image.base.visible import visible

Facts = Mapping[str, Any]
Row = dict[str, Any]
MOST_NAMED = 20


@dataclass(frozen=True)
class Skipped:
    """One item that a stage skipped: key of the image, or file and line of the row; and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one command. The classes of the commands add its facts as fields; None is left out when it is printed.

    Only JSON has the facts whose field has ``repr=False``.

    Attributes:
        path: file or folder of the result.
        writes: whether the command wrote ``path``, and did not only read it.
        text: text such as a table, printed under the facts and left out of JSON.
        skipped: skipped items; a command with any ends with exit code 1.
        wrote: the files and folders that were written, if not ``path`` alone.
        next: the command to give next, where the stage knows it best.
        counts: by name, on how many images a fact or a score was measured.
        ci95: by name, its 95 % interval over other images that could have been drawn.
    """

    writes: ClassVar[bool] = True
    path: Path | None = None
    text: str = field(default="", repr=False)
    skipped: tuple[Skipped, ...] = ()
    wrote: tuple[Path, ...] = field(default=(), repr=False)
    next: str = field(default="", repr=False)
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @property
    def written(self) -> tuple[Path, ...]:
        """The files and folders that were written."""
        return self.wrote or ((self.path,) if self.path and self.writes else ())

    @property
    def facts(self) -> Row:
        """The facts by name, as JSON has them; without those that are None."""
        return {name: value for name, value, _ in self._facts()}

    def behind(self, name: str) -> str:
        """Return on how many images a fact or score was measured, and its interval, to be printed after it."""
        images = self.counts.get(name)
        if images is None:
            return ""
        interval = "" if name not in self.ci95 else " (95 % interval {:.3f} to {:.3f})".format(*self.ci95[name])
        return f" on {images:,} image{'s' * (images != 1)}{interval}"

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield name and value of each fact that is printed; of a table of facts, each entry after the name alone."""
        for name, value, shown in self._facts():
            if shown and not isinstance(value, Mapping):
                yield name.replace("_", " "), in_words(value) + self.behind(name)
            elif shown and value:
                yield name.replace("_", " "), ""
                for key, each in value.items():
                    yield f"  {key.replace('_', ' ')}", in_words(each) + (self.behind(key) if each is not None else "")

    def _facts(self) -> Iterator[tuple[str, Any, bool]]:
        common = {item.name for item in fields(Rows)}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in common and value is not None:
                yield item.name, value, item.repr

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><th style='text-align: left'>{escape(name).replace('  ', '&emsp;')}</th><td>{escape(value)}</td></tr>"
            for name, value in self.lines()
        )
        named = "".join(f"<li>{escape(each.name)}: {escape(each.reason)}</li>" for each in self.skipped[:MOST_NAMED])
        parts = {
            f"<pre>{escape(self.text)}</pre>": self.text,
            f"<p>{len(self.skipped)} skipped</p><ul>{named}</ul>": self.skipped,
            f"<p>wrote: {escape(', '.join(map(str, self.written)))}</p>": self.written,
            f"<p>next: <code>{escape(self.next)}</code></p>": self.next,
        }
        return f"<table>{''.join(cells)}</table>" + "".join(html for html, there in parts.items() if there)


@dataclass(frozen=True, kw_only=True)
class Rows(Outcome):
    """Result with something to tell of each image, query or arm, which ``read_rows`` gives when first asked."""

    read_rows: Callable[[], list[Row]] = field(default=list, repr=False, compare=False)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows, one dictionary each; all have the same keys."""
        return self.read_rows()


def as_text(outcome: Outcome) -> str:
    """Return a result as a terminal shows it, without skipped items."""
    parts = [f"{name}: {visible(value)}".rstrip() for name, value in outcome.lines()]
    parts += [f"\n{visible(outcome.text)}\n"] if outcome.text else []
    parts += [f"wrote: {visible(', '.join(map(str, outcome.written)))}"] if outcome.written else []
    return "\n".join(parts)


def as_json(outcome: Outcome) -> Row:
    """Return a result as an object of JSON: path, facts, what was measured, and skipped items."""
    measured = {"counts": outcome.counts, "ci95": outcome.ci95}
    skipped = [{"name": item.name, "reason": item.reason} for item in outcome.skipped]
    more = {name: value for name, value in measured.items() if value}
    return {"path": outcome.path, **outcome.facts, **more, "skipped": skipped}


def in_words(value: Any) -> str:
    """Return a fact as it is read: numbers with four digits, lists and tables with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {in_words(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    return str(round(value, 4) if isinstance(value, float) else value)
