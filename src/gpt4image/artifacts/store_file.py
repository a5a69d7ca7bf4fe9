"""The SQLite file of a description store: its layout, its checksums, how it is opened and what its errors mean."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4image.artifacts.answers import Prompt, canonical_json
from gpt4image.base.errors import StoreError, first_few, first_line
from gpt4image.base.files import UNREADABLE, atomic_path, flush
from gpt4image.base.visible import in_one_line

SCHEMA_VERSION = 3
APPLICATION_ID = 0x67344931
PROMPT = ("name", "version", "text", "class_conditioned", "asked")
"""Columns that identify a prompt, in the order of ``Prompt.row``."""
# Columns of a result that are fields of ``Description`` as they are, and all that its checksum covers.
FIELDS = ("sample", "text", "error", "finish_reason", "tokens_in", "tokens_out", "cost_usd", "latency_s", "created")
COLUMNS = ("digest", "prompt", "describer", "status", "answer", *FIELDS)
_REAL = frozenset(map(COLUMNS.index, ("cost_usd", "latency_s", "created")))


_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL,
    class_conditioned INTEGER NOT NULL, asked TEXT NOT NULL,
    UNIQUE (name, version, text, class_conditioned, asked)) STRICT;
CREATE TABLE describers (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE results (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL CHECK (length(digest) = 32),
    prompt INTEGER NOT NULL REFERENCES prompts, describer INTEGER NOT NULL REFERENCES describers,
    sample INTEGER NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')), text TEXT, finish_reason TEXT,
    error TEXT, tokens_in INTEGER, tokens_out INTEGER, cost_usd REAL, latency_s REAL, created REAL NOT NULL,
    answer TEXT, checksum INTEGER, UNIQUE (digest, prompt, describer, sample)) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

# Tables that came later: a writer adds those that are missing, a reader has empty ones in their place.
# written: how many results were ever written, counted in the transaction that wrote them. The same number stands in a
# file beside the store, where a log that is cut or damaged cannot take it along: SQLite skips such a log silently.
# box_formats: how describers write boxes. uncertain_costs: what a model may have cost besides the answers here.
# batches, batch_items: requests at a Batch API. dataset: what answers were last brought for. examples: labelled images
# that every question of a describer began with.
_LATER = {
    "written": "(results INTEGER NOT NULL) STRICT",
    "box_formats": "(describer INTEGER PRIMARY KEY REFERENCES describers, format TEXT NOT NULL, "
    "evidence TEXT NOT NULL) STRICT",
    "uncertain_costs": "(payee TEXT PRIMARY KEY, usd REAL NOT NULL) STRICT",
    "dataset": "(spec TEXT NOT NULL) STRICT",
    "examples": "(describer INTEGER NOT NULL REFERENCES describers, digest BLOB NOT NULL, class TEXT NOT NULL, "
    "PRIMARY KEY (describer, digest)) STRICT, WITHOUT ROWID",
    "batches": "(id INTEGER PRIMARY KEY, describer INTEGER NOT NULL REFERENCES describers, token TEXT NOT NULL UNIQUE, "
    "created REAL NOT NULL, input_file TEXT, server_id TEXT, closed REAL) STRICT",
    "batch_items": "(digest BLOB NOT NULL CHECK (length(digest) = 32), prompt INTEGER NOT NULL REFERENCES prompts, "
    "describer INTEGER NOT NULL REFERENCES describers, sample INTEGER NOT NULL, "
    "batch INTEGER NOT NULL REFERENCES batches, line INTEGER NOT NULL, choice INTEGER NOT NULL, "
    "PRIMARY KEY (digest, prompt, describer, sample)) STRICT, WITHOUT ROWID",
}
_ADD_LATER = f"""
BEGIN IMMEDIATE;
{"".join(f"CREATE TABLE IF NOT EXISTS {name} {columns};" for name, columns in _LATER.items())}
CREATE INDEX IF NOT EXISTS items_of_batch ON batch_items (batch);
INSERT INTO written SELECT count(*) FROM results WHERE NOT EXISTS (SELECT * FROM written);
COMMIT;
"""

MEND = (
    "Restore a backup, or save what can be read: `sqlite3 FILE .recover`. The same `gpt4image describe` command then "
    "asks for what is missing."
)
_AGAIN = "check the disk and its free space, and run the same command again: what was stored before is safe"
_WHAT_TO_DO = {
    "SQLITE_FULL": f"the disk is full; {_AGAIN}",
    "SQLITE_READONLY": "the file or its folder is read-only; choose a writable place for --store",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that the folder exists and may be read and written",
    "SQLITE_IOERR": f"reading or writing failed; {_AGAIN}",
    "SQLITE_NOTADB": "this is not an SQLite file; give another --store",
    "SQLITE_BUSY": "another program has locked the file; close it and run the same command again",
}


def prompt_columns(table: str = "") -> str:
    """Return the columns of ``PROMPT`` as SQL has them, each after ``table``, as in "p."."""
    return ", ".join(table + name for name in PROMPT)


def marks(values: Sequence[Any]) -> str:
    """Return a question mark for each value, as SQL has them."""
    return ", ".join("?" * len(values))


class References:
    """Ids of prompts and describers, made where they are new; within a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.known: dict[tuple[Any, ...], int] = {}

    def prompt(self, prompt: Prompt) -> int:
        """Return the id of a prompt."""
        return self._find("prompts", prompt_columns(), prompt.row)

    def describer(self, settings: Mapping[str, Any]) -> int:
        """Return the id of a describer, by its settings."""
        return self._find("describers", "settings", (canonical_json(settings),))

    def _find(self, table: str, columns: str, values: tuple[Any, ...]) -> int:
        if (table, *values) not in self.known:
            places = marks(values)
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", values)
            found = self._connection.execute(f"SELECT id FROM {table} WHERE ({columns}) = ({places})", values)
            self.known[table, *values] = found.fetchone()[0]
        return self.known[table, *values]


class RowChecksums:
    """The SQL function ``row_checksum``, of the values of COLUMNS, the prompt and the describer: SQLite has none."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._prompts, self._describers = dict[int, str](), dict[int, str]()
        connection.create_function("row_checksum", len(COLUMNS), self._of)

    def learn(self, prompts: set[int], describers: set[int]) -> None:
        """Read what these ids refer to, where it is not known yet: to be called before the function is."""
        if not (prompts <= self._prompts.keys() and describers <= self._describers.keys()):
            query = self._connection.execute  # once: a class list may be long
            self._prompts = {row: repr(own) for row, *own in query(f"SELECT id, {prompt_columns()} FROM prompts")}
            self._describers = {row: repr(own) for row, *own in query("SELECT id, settings FROM describers")}

    def _of(self, digest: bytes, prompt: int, describer: int, *values: Any) -> int:
        kept = (
            float(value) if place in _REAL and value is not None else value for place, value in enumerate(values, 3)
        )
        about = self._prompts.get(prompt, "None"), self._describers.get(describer, "None")
        return zlib.crc32(f"({', '.join((repr(digest), *about, *map(repr, kept)))})".encode())

    def require_whole(self, path: Path) -> None:
        """Check the structure of the file at ``path`` and rows with a checksum. StoreError, sqlite3.DatabaseError."""
        (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise StoreError(f"{path} is damaged: {in_one_line(found)}. {MEND}")
        self.learn({-1}, set())
        wrong = f"SELECT id FROM results WHERE checksum IS NOT row_checksum({', '.join(COLUMNS)})"
        for (row,) in self._connection.execute(f"{wrong} AND checksum IS NOT NULL ORDER BY id LIMIT 1"):
            raise StoreError(
                f"{path} is damaged: row {row} of its results does not match its checksum. Restore a backup; or remove "
                f"it, `sqlite3 {path} 'DELETE FROM results WHERE id = {row}'`, and ask again with `gpt4image describe`."
            )


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn errors of SQLite and of the disk about the file at ``path`` into StoreError: what they mean, what to do."""
    try:
        yield
    except (sqlite3.Error, AttributeError, *UNREADABLE) as error:  # the others of values in a damaged file
        name = getattr(error, "sqlite_errorname", "")
        advice = next((advice for code, advice in _WHAT_TO_DO.items() if name.startswith(code)), None)
        unknown = f"the store cannot be used ({first_line(error)}), or is damaged. {MEND}"
        raise StoreError(f"{path}: {advice} ({error})." if advice else f"{path}: {unknown}") from error
    except OSError as error:
        what = f"the store cannot be used ({error.strerror or error}); check the folder, its rights and the free space"
        raise StoreError(f"{path}: {what}.") from error


def connect_writer(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open the store for writing, or make it; every commit is on disk when it returns. Raises StoreError, OSError."""
    if path.exists() and not path.is_file():
        raise StoreError(f"{path}: this is not a file; give another --store.")
    refuse_orphaned_log(path)
    if _is_absent(path):
        _make_store(path)

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        if set(_LATER) - _tables(connection):
            connection.executescript(_ADD_LATER)

    return _connect(path, "mode=rw", prepare, check_same_thread=not any_thread)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading, in a read-only folder too. Raises StoreError where there is none."""
    require_store(path)

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA temp_store = MEMORY")
        for name in set(_LATER) - _tables(connection):
            connection.execute(f"CREATE TEMP TABLE {name} {_LATER[name]}")
        connection.execute("PRAGMA query_only = ON")

    try:
        # Opened for writing, where that is allowed, only so that the last reader tidies SQLite's side files away.
        return _connect(path, "mode=rw", prepare)
    except sqlite3.OperationalError:
        # In a read-only folder SQLite cannot make the files that WAL needs. Without a log that is not merged yet the
        # file is complete and can be read as it is.
        if any(log.name.endswith("-wal") for log in _logs(path)):
            raise
        return _connect(path, "immutable=1", prepare)


def require_store(path: Path) -> None:
    """Refuse a path at which there is no store. Raises StoreError."""
    refuse_orphaned_log(path)
    if not path.is_file():
        raise StoreError(
            f"{path}: there is no description store; make one with `gpt4image describe` or `descriptions import`."
        )


def _connect(
    path: Path, how: str, prepare: Callable[[sqlite3.Connection], None], *, check_same_thread: bool = True
) -> sqlite3.Connection:
    """Open a file that is a store of this layout. Raises StoreError, sqlite3.Error."""
    address = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=check_same_thread)
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            kind = "an SQLite file of another program" if _tables(connection) else "an empty SQLite file"
            raise StoreError(f"{path}: this is not a description store but {kind}; give another --store.")
        if version != SCHEMA_VERSION:
            found = f"the store has layout {version}, but this gpt4image reads layout {SCHEMA_VERSION}"
            raise StoreError(
                f"{path}: {found}; update gpt4image, or export its descriptions with the version that wrote it."
            )
        _require_nothing_lost(connection, path)
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_store(path: Path) -> None:
    """Write an empty store in one step: a process that is killed leaves a whole one or none."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA + _ADD_LATER)
        content = bytearray(connection.serialize())
    content[18:20] = b"\2\2"  # WAL, as the file format has it
    count_file(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    flush(path.parent)


def beside(path: Path, suffix: str) -> Path:
    """Return the file of this suffix beside a store."""
    file = path.resolve()  # a link and the file that it leads to are one store
    return file.with_name(file.name + suffix)


def count_file(path: Path) -> Path:
    """Return the file beside a store that says how many results were written to it."""
    return beside(path, ".count")


def _is_absent(path: Path) -> bool:
    return not path.exists() or (path.is_file() and not path.stat().st_size)


def _logs(path: Path) -> list[Path]:
    logs = (beside(path, suffix) for suffix in ("-wal", "-journal", "-shm"))
    return [log for log in logs if log.is_file() and log.stat().st_size]


def refuse_orphaned_log(path: Path) -> None:
    """Refuse a store that is gone while its log is there: SQLite would delete the log, and the answers in it."""
    if _is_absent(path) and (logs := _logs(path)):
        raise StoreError(
            f"{path} is {'empty' if path.exists() else 'missing'}, but beside it is {first_few(x.name for x in logs)}, "
            f"which may hold the last answers of a store; nothing was touched. Put {path.name} back beside it. Or move "
            f"{path.name}-wal, -shm and -journal away; then restore a backup, or run the same command for a new store."
        )


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def written(connection: sqlite3.Connection) -> int:
    """Return how many results were ever written to a store."""
    if "written" not in _tables(connection):
        return 0
    (found,) = connection.execute("SELECT max(results) FROM written").fetchone()
    return found or 0


def _require_nothing_lost(connection: sqlite3.Connection, path: Path) -> None:
    """Compare the results in a store to the number beside it, before anything is paid for again."""
    aside = count_file(path)
    try:
        known = int(aside.read_text(encoding="ascii"))  # first: a writer may add results meanwhile
    except (OSError, ValueError):
        return
    if (there := written(connection)) < known:
        raise StoreError(
            f"{path}: {known - there} of the {known} results that were written to it are gone: its log "
            f"({path.name}-wal) was cut or damaged, or an earlier copy took its place. Restore a backup that has them. "
            f"Or delete {aside} to go on with what is there, which asks for the lost ones, and pays for them, again."
        )
