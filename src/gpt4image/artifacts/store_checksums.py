"""Checksums of the results in a description store: SQLite has none, and a bit may turn over in any text or number.

One stands in each row, and covers the prompt and the describer that the row refers to. Layouts 1 and 2 had none.
"""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from gpt4image.base.errors import StoreError
from gpt4image.base.visible import in_one_line

COLUMNS = (
    *("digest", "prompt", "describer", "status", "answer", "sample", "text", "error", "finish_reason"),
    *("tokens_in", "tokens_out", "cost_usd", "latency_s", "created"),
)
_REAL = frozenset(map(COLUMNS.index, ("cost_usd", "latency_s", "created")))
MEND = (
    "Restore a backup, or save what can be read: `sqlite3 FILE .recover`. The same `gpt4image describe` command then "
    "asks for what is missing."
)
_CONTENT = {"prompts": "id, name, version, text, class_conditioned, asked", "describers": "id, settings"}


class RowChecksums:
    """The function ``row_checksum`` of a connection, of the values of COLUMNS."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._content: dict[str, dict[int, str]] = {table: {} for table in _CONTENT}
        connection.create_function("row_checksum", len(COLUMNS), self._of)

    def learn(self, prompts: set[int], describers: set[int]) -> None:
        """Read what these ids refer to, where it is not known yet: to be called before the function is."""
        if not (prompts <= self._content["prompts"].keys() and describers <= self._content["describers"].keys()):
            for table, columns in _CONTENT.items():
                rows = self._connection.execute(f"SELECT {columns} FROM {table}")
                self._content[table] = {number: repr(values) for number, *values in rows}  # once: a list may be long

    def _of(self, digest: bytes, prompt: int, describer: int, *values: Any) -> int:
        kept = (
            float(value) if place in _REAL and value is not None else value for place, value in enumerate(values, 3)
        )
        about = self._content["prompts"].get(prompt, "None"), self._content["describers"].get(describer, "None")
        return zlib.crc32(f"({', '.join((repr(digest), *about, *map(repr, kept)))})".encode())

    def require_whole(self, path: Path) -> None:
        """Check the structure of the file, which is at ``path``, and every row that has a checksum.

        Raises:
            StoreError: something is damaged.
            sqlite3.DatabaseError: the file cannot be read to its end.
        """
        (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise StoreError(f"{path} is damaged: {in_one_line(found)}. {MEND}")
        self.learn({-1}, set())
        wrong = f"SELECT id FROM results WHERE checksum IS NOT row_checksum({', '.join(COLUMNS)})"
        for (row,) in self._connection.execute(f"{wrong} AND checksum IS NOT NULL ORDER BY id LIMIT 1"):
            raise StoreError(
                f"{path} is damaged: row {row} of its results does not match its checksum. Restore a backup; or remove "
                f"the row, `sqlite3 {path} 'DELETE FROM results WHERE id = {row}'`, and give the same `gpt4image "
                "describe` command, which asks for it again."
            )
