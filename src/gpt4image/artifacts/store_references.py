"""Prompts and describers in a description store: rows that results and batches refer to by id."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from gpt4image.artifacts.results import Prompt, canonical_json

PROMPT = ("name", "version", "text", "class_conditioned", "asked")
"""Columns that identify a prompt, in the order of ``Prompt.row``."""


class References:
    """Ids of prompts and describers, made where they are new; within a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[Any, ...], int] = {}
        self._last: tuple[Mapping[str, Any], int] | None = None

    @contextlib.contextmanager
    def kept_on_success(self) -> Generator[None]:
        """Forget all ids where the block fails: they may have been made in a transaction that is undone."""
        try:
            yield
        except BaseException:
            self._known.clear()
            self._last = None
            raise

    def prompt(self, prompt: Prompt) -> int:
        """Return the id of a prompt."""
        return self._find("prompts", prompt_columns(), prompt.row)

    def describer(self, settings: Mapping[str, Any]) -> int:
        """Return the id of a describer, by its settings."""
        if self._last is None or self._last[0] is not settings:
            self._last = settings, self._find("describers", "settings", (canonical_json(settings),))
        return self._last[1]

    def _find(self, table: str, columns: str, values: tuple[Any, ...]) -> int:
        if (table, *values) not in self._known:
            places = marks(values)
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", values)
            found = self._connection.execute(f"SELECT id FROM {table} WHERE ({columns}) = ({places})", values)
            self._known[table, *values] = found.fetchone()[0]
        return self._known[table, *values]


def prompt_columns(table: str = "") -> str:
    """Return the columns of ``PROMPT`` as SQL has them, each after ``table``, as in "p."."""
    return ", ".join(table + name for name in PROMPT)


def marks(values: Sequence[Any]) -> str:
    """Return a question mark for each value, as SQL has them."""
    return ", ".join("?" * len(values))
