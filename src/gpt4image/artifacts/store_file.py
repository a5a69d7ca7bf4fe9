"""The SQLite file of a description store: its layout, how it is opened and what its errors mean."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gpt4image.base.errors import StoreError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x67344931

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL,
    class_conditioned INTEGER NOT NULL, UNIQUE (name, version, text, class_conditioned)) STRICT;
CREATE TABLE describers (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE results (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL CHECK (length(digest) = 32),
    prompt INTEGER NOT NULL REFERENCES prompts, describer INTEGER NOT NULL REFERENCES describers,
    sample INTEGER NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')), text TEXT, finish_reason TEXT,
    error TEXT, tokens_in INTEGER, tokens_out INTEGER, cost_usd REAL, latency_s REAL, created REAL NOT NULL,
    UNIQUE (digest, prompt, describer, sample)) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

# What is on its way through a Batch API: made in the store of whoever uses one, no part of what readers need.
_BATCHES = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY, describer INTEGER NOT NULL REFERENCES describers, token TEXT NOT NULL UNIQUE,
    created REAL NOT NULL, input_file TEXT, server_id TEXT, closed REAL) STRICT;
CREATE TABLE IF NOT EXISTS batch_items (
    digest BLOB NOT NULL CHECK (length(digest) = 32), prompt INTEGER NOT NULL REFERENCES prompts,
    describer INTEGER NOT NULL REFERENCES describers, sample INTEGER NOT NULL,
    batch INTEGER NOT NULL REFERENCES batches, line INTEGER NOT NULL, choice INTEGER NOT NULL,
    PRIMARY KEY (digest, prompt, describer, sample)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_of_batch ON batch_items (batch);
"""


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the store for writing, with every commit on disk when it returns; make it where it is new."""
    if path.exists():
        _refuse_foreign_bytes(path)
    connection = sqlite3.connect(path.absolute())  # else some names mean something else: ":memory:"
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if _is_new(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        _check_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def make_batch_tables(connection: sqlite3.Connection) -> None:
    """Add the tables of the batch ledger where there are none yet."""
    connection.executescript(_BATCHES)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading, in a read-only folder too. Raises StoreError where there is none."""
    if not path.is_file():
        raise StoreError(
            f"{path}: there is no description store; make one with `gpt4image describe` or "
            f"`gpt4image descriptions import`."
        )
    _refuse_foreign_bytes(path)
    uri = path.absolute().as_uri()
    # Opened for writing, where that is allowed, only so that the last reader tidies SQLite's side files away.
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True)
    try:
        connection.execute("PRAGMA query_only = ON")
        _check_schema(connection, path)
    except sqlite3.OperationalError:
        # In a read-only folder SQLite cannot make the files that WAL needs. Without a log that is not merged yet the
        # file is complete and can be read as it is.
        connection.close()
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
        _check_schema(connection, path)
    except StoreError:
        connection.close()
        raise
    return connection


def _refuse_foreign_bytes(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if start and start != b"SQLite format 3\0":
        raise StoreError(f"{path}: this is not a description store (not an SQLite file); give another --store.")


def _is_new(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        kind = "an empty SQLite file" if _is_new(connection) else "an SQLite file of another program"
        raise StoreError(f"{path}: this is not a description store but {kind}; give another --store.")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the store has layout {version}, but this gpt4image reads layout {SCHEMA_VERSION}; "
            f"use the version of gpt4image that wrote it to export its descriptions."
        )


_WHAT_TO_DO = {
    "SQLITE_FULL": "the disk is full; what was stored before is safe: free some space and run the same command again",
    "SQLITE_READONLY": "the file or its folder is read-only; choose a writable place for --store",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that the folder exists and may be read and written",
    "SQLITE_IOERR": "reading or writing failed; check the disk and its free space and run the same command again",
    "SQLITE_NOTADB": "this is not an SQLite file; give another --store",
    "SQLITE_CORRUPT": "the file is damaged; restore a copy or export what can be read with the sqlite3 tool",
    "SQLITE_BUSY": "another program has locked the file; close it and run the same command again",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite about the file at ``path`` into StoreError: what they mean, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_explanation(path, error)) from error


def _explanation(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    for code, advice in _WHAT_TO_DO.items():
        if name.startswith(code):
            return f"{path}: {advice} ({error})."
    return f"{path}: the store cannot be used ({error})."
