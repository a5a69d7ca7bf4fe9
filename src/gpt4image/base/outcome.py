"""The result of a command: the path of its result, its facts as typed fields, and the items that it skipped.

A fact is a field of the class of its command; the command line prints the fields in their order, or writes them as one
JSON object with ``--json``. The classes of the commands are in ``config.results``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

Facts = Mapping[str, Any]
Row = dict[str, Any]


def several(prefix: str = "", *, shown: bool = True) -> Any:
    """Return a field of several facts, whose names depend on the task, say; each is called the prefix and its key."""
    return field(default_factory=dict[str, Any], metadata={"prefix": prefix, "shown": shown})


def unshown(default: Any = None) -> Any:
    """Return a field of a fact that only ``--json`` writes."""
    return field(default=default, metadata={"shown": False})


@dataclass(frozen=True)
class Skipped:
    """One item that a stage skipped: key of the image, or file and line of the row; and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one command; those with facts are derived from it.

    A fact with a default is left out where it is None; one without a default is always told.

    Attributes:
        path: file or folder of the result; None for commands that write nothing.
        text: text such as a table, printed under the facts and left out of ``--json``.
        skipped: skipped items; a command with any ends with exit code 1.
        wrote: the files and folders that were written.
        next: the command to give next, or the same as a call in Python.
        counts: on how many images a fact of the summary was measured: of few, a score says little.
        ci95: the 95 % interval of a fact that was measured, where other images could have been drawn.
        drawing: what ``plot`` calls; None where there is nothing to see.
    """

    path: Path | None = None
    text: str = field(default="", repr=False)
    skipped: tuple[Skipped, ...] = ()
    wrote: tuple[Path, ...] = field(default=(), repr=False)
    next: str = ""
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    drawing: Callable[[], Any] | None = field(default=None, repr=False)

    @property
    def summary(self) -> Row:
        """The facts by name, as the command line prints them."""
        return self._facts(shown=True)

    @property
    def record(self) -> Row:
        """The facts that only ``--json`` writes, by name."""
        return self._facts(shown=False)

    @classmethod
    def of_facts(cls, facts: Facts, **others: Any) -> Self:
        """Return the result with these facts, as ``summary`` and ``record`` have them. Raises TypeError: one lacks."""
        single = {item.name for item in cls._fields() if "prefix" not in item.metadata}
        for item in sorted(cls._fields(), key=lambda item: -len(item.metadata.get("prefix", ""))):
            prefix = item.metadata.get("prefix")
            if prefix is not None:
                names = [name for name in facts if name.startswith(prefix) and name not in single]
                others[item.name] = {name.removeprefix(prefix): facts[name] for name in names}
                facts = {name: value for name, value in facts.items() if name not in names}
            elif item.name in facts:
                value = facts[item.name]
                others[item.name] = Path(value) if value is not None and "Path" in str(item.type) else value
        return cls(**others)

    def plot(self) -> Any:
        """Return a drawing of the result, for notebooks. Raises AttributeError: there is nothing to see."""
        if self.drawing is None:
            raise AttributeError("this outcome has nothing to plot; those of train, evaluate, compare and demo have")
        return self.drawing()

    def behind(self, name: str) -> str:
        """Return on how many images a fact of the summary was measured, and its interval, to be printed after it."""
        images = self.counts.get(name)
        if images is None or self.summary[name] is None:
            return ""
        interval = "" if name not in self.ci95 else " (95 % interval {:.3f} to {:.3f})".format(*self.ci95[name])
        return f" on {images:,} image{'s' * (images != 1)}{interval}"

    @classmethod
    def _fields(cls) -> list[Field[Any]]:
        own = {item.name for item in fields(Rows)}
        return [item for item in fields(cls) if item.name not in own]

    def _facts(self, *, shown: bool) -> Row:
        facts: Row = {}
        for item in self._fields():
            if item.metadata.get("shown", True) is not shown:
                continue
            value = getattr(self, item.name)
            if "prefix" in item.metadata:
                facts |= {item.metadata["prefix"] + name: each for name, each in value.items()}
            elif value is not None or (item.default is MISSING and item.default_factory is MISSING):
                facts[item.name] = str(value) if isinstance(value, Path) else value
        return facts

    if not TYPE_CHECKING:  # for a type checker a fact is what has a field

        def __getattr__(self, name: str) -> Any:
            """Return one of several facts as an attribute: ``val_top1``."""
            facts = {} if name.startswith("_") or "path" not in self.__dict__ else {**self.record, **self.summary}
            if name in facts:
                return facts[name]
            raise AttributeError(f"this outcome has no {name!r}; it has {', '.join(facts)}")

    def __dir__(self) -> list[str]:
        """Return the attributes, each of several facts too."""
        return [*super().__dir__(), *self.summary]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(key.replace('_', ' '))}</th>"
            f"<td>{escape(str(value))}{self.behind(key)}</td></tr>"
            for key, value in self.summary.items()
        )
        named = "".join(f"<li>{escape(item.name)}: {escape(item.reason)}</li>" for item in self.skipped[:20])
        parts = {
            f"<pre>{escape(self.text)}</pre>": self.text,
            f"<p>{len(self.skipped)} skipped</p><ul>{named}</ul>": self.skipped,
            f"<p>wrote: {escape(', '.join(map(str, self.wrote)))}</p>": self.wrote,
            f"<p>next: <code>{escape(self.next)}</code></p>": self.next,
        }
        return f"<table>{rows}</table>" + "".join(html for html, there in parts.items() if there)


@dataclass(frozen=True, kw_only=True)
class Rows(Outcome):
    """Result with something to tell of each image, query or arm, which ``read_rows`` gives when first asked."""

    read_rows: Callable[[], list[Row]] = field(default=list, repr=False, compare=False)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows, one dictionary each; all have the same keys."""
        return self.read_rows()
