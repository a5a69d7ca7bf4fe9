"""The SQLite file of a description store: its layout, how it is opened and what its errors mean."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Generator
from pathlib import Path

from gpt4image.base.errors import StoreError, first_few, first_line
from gpt4image.base.files import UNREADABLE, atomic_path, flush

SCHEMA_VERSION = 3
APPLICATION_ID = 0x67344931

_PROMPTS = """(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL,
    class_conditioned INTEGER NOT NULL, asked TEXT NOT NULL,
    UNIQUE (name, version, text, class_conditioned, asked)) STRICT
"""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE prompts {_PROMPTS};
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

# Layout 1 knew neither class lists nor structured answers. A constraint cannot be altered, so the table is made anew;
# what refers to its rows does so by id.
_FROM_1 = f"""
BEGIN IMMEDIATE;
CREATE TABLE new_prompts {_PROMPTS};
INSERT INTO new_prompts SELECT id, name, version, text, class_conditioned, '' FROM prompts;
DROP TABLE prompts;
ALTER TABLE new_prompts RENAME TO prompts;
ALTER TABLE results ADD COLUMN answer TEXT;
ALTER TABLE results ADD COLUMN checksum INTEGER;
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

# Layout 2 had no checksums; its rows stay without.
_FROM_2 = f"""
BEGIN IMMEDIATE;
ALTER TABLE results ADD COLUMN checksum INTEGER;
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_MIGRATIONS = {1: _FROM_1, 2: _FROM_2}

# The same for readers, who change nothing: names of the temporary schema come first.
_VIEWS = {
    1: """
PRAGMA temp_store = MEMORY;
CREATE TEMP VIEW prompts AS SELECT *, '' AS asked FROM main.prompts;
CREATE TEMP VIEW results AS SELECT *, NULL AS answer, NULL AS checksum FROM main.results;
""",
    2: """
PRAGMA temp_store = MEMORY;
CREATE TEMP VIEW results AS SELECT *, NULL AS checksum FROM main.results;
""",
}

# Requests at a Batch API: tables made only in stores that use one; readers do not need them.
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

# How many results were ever written, in the transaction that wrote them. The same number stands in a file beside the
# store, where a log that is cut or damaged cannot take it along: SQLite passes over such a log without a word.
_WRITTEN = """
BEGIN IMMEDIATE;
CREATE TABLE written (results INTEGER NOT NULL) STRICT;
INSERT INTO written SELECT count(*) FROM results;
COMMIT;
"""

# How describers write boxes: a table made only in stores that know it of one.
_BOX_FORMATS = """
CREATE TABLE IF NOT EXISTS box_formats (
    describer INTEGER PRIMARY KEY REFERENCES describers, format TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
"""


# What a model may have cost besides the answers that are stored: a table made only where costs have a limit.
_UNCERTAIN_COSTS = "CREATE TABLE IF NOT EXISTS uncertain_costs (payee TEXT PRIMARY KEY, usd REAL NOT NULL) STRICT;"


def connect_writer(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open the store for writing, or make it; every commit is on disk when it returns.

    With ``any_thread``, other threads than this one may use the connection, one at a time.

    Raises:
        StoreError: the file is no store or damaged, or it is gone and its log is still there.
        OSError: the file cannot be made.
    """
    if path.exists() and not path.is_file():
        raise StoreError(f"{path}: this is not a file; give another --store.")
    _refuse_orphaned_log(path)
    if _is_absent(path):
        _make_store(path)
    _refuse_foreign_bytes(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=not any_thread)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if _is_new(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        version = _check_schema(connection, path)
        require_nothing_lost(connection, path)
        if statements := _MIGRATIONS.get(version):
            connection.executescript(statements)
        if not has_table(connection, "written"):
            connection.executescript(_WRITTEN)
    except BaseException:
        connection.close()
        raise
    return connection


def count_file(path: Path) -> Path:
    """Return the file beside a store that says how many results were written to it."""
    file = path.resolve()
    return file.with_name(file.name + ".count")


def require_nothing_lost(connection: sqlite3.Connection, path: Path) -> None:
    """Compare the results in a store to the number beside it, before anything is paid for again.

    A copy of the log is kept, since SQLite deletes it when the store is closed.

    Raises:
        StoreError: there are fewer.
    """
    aside = count_file(path)
    try:
        known = int(aside.read_text(encoding="ascii"))  # first: a writer may add results meanwhile
    except (OSError, ValueError):
        return
    there = written(connection)
    if there >= known:
        return
    log = path.resolve().with_name(path.resolve().name + "-wal")
    kept = ""
    if log.is_file() and log.stat().st_size:
        copy = log.with_name(log.name + ".damaged")
        shutil.copyfile(log, copy)
        kept = f" A copy of the log is kept in {copy.name}."
    raise StoreError(
        f"{path}: {known - there} of the {known} results that were written to it are gone: its log ({log.name}) was "
        f"cut or damaged, or an earlier copy took its place.{kept} Restore a backup that has them. Or delete {aside} "
        "to go on with what is there, which asks for the lost ones, and pays for them, again."
    )


def written(connection: sqlite3.Connection) -> int:
    """Return how many results were ever written to a store."""
    if not has_table(connection, "written"):
        return 0
    (found,) = connection.execute("SELECT max(results) FROM written").fetchone()
    return found or 0


def make_batch_tables(connection: sqlite3.Connection) -> None:
    """Add the tables of the batch ledger if they are missing."""
    connection.executescript(_BATCHES)


def make_box_formats_table(connection: sqlite3.Connection) -> None:
    """Add the table of conventions if it is missing."""
    connection.executescript(_BOX_FORMATS)


def make_uncertain_costs_table(connection: sqlite3.Connection) -> None:
    """Add the table of costs that no answer tells if it is missing."""
    connection.executescript(_UNCERTAIN_COSTS)


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether the store has a table."""
    return connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0] > 0


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading, in a read-only folder too. Raises StoreError where there is none."""
    require_store(path)
    _refuse_foreign_bytes(path)
    uri = path.absolute().as_uri()
    # Opened for writing, where that is allowed, only so that the last reader tidies SQLite's side files away.
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True)
    try:
        _open_for_reading(connection, path)
    except sqlite3.OperationalError:
        # In a read-only folder SQLite cannot make the files that WAL needs. Without a log that is not merged yet the
        # file is complete and can be read as it is.
        connection.close()
        if any(log.name.endswith("-wal") for log in _logs(path)):
            raise
        connection = sqlite3.connect(f"{uri}?immutable=1", uri=True)
        _open_for_reading(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def require_store(path: Path) -> None:
    """Refuse a path at which there is no store. Raises StoreError."""
    _refuse_orphaned_log(path)
    if not path.is_file():
        raise StoreError(
            f"{path}: there is no description store; make one with `gpt4image describe` or `descriptions import`."
        )


def _open_for_reading(connection: sqlite3.Connection, path: Path) -> None:
    version = _check_schema(connection, path)
    require_nothing_lost(connection, path)
    if statements := _VIEWS.get(version):
        connection.executescript(statements)
    connection.execute("PRAGMA query_only = ON")


def back_up(connection: sqlite3.Connection, copy: Path) -> None:
    """Copy an open store, as it is at one moment, to a new file that appears when it is complete and checked.

    Raises:
        StoreError: there is a file ``copy`` already, or a log beside it; it cannot be written; the store is damaged.
    """
    _refuse_orphaned_log(copy)
    if copy.exists() or copy.is_symlink():
        raise StoreError(f"{copy}: there is such a file already, and a backup replaces none; give another name.")
    with explained(copy):
        count_file(copy).unlink(missing_ok=True)  # of a store of that name that is gone
        with atomic_path(copy) as temporary, contextlib.closing(sqlite3.connect(temporary)) as target:
            connection.backup(target)
            (verdict,) = target.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(
                    f"{copy}: no backup was made, as the store is damaged ({' '.join(verdict.split())}). Keep earlier "
                    "backups, and save what can be read with `gpt4image descriptions export`."
                )
        flush(copy.parent)


def _make_store(path: Path) -> None:
    """Write an empty store in one step: a process that is killed leaves a whole one or none."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        content = bytearray(connection.serialize())
    content[18:20] = b"\2\2"  # WAL, as the file format has it
    count_file(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    flush(path.parent)


def _is_absent(path: Path) -> bool:
    """Return whether nothing was stored yet; older versions that were killed left an empty file."""
    return not path.exists() or (path.is_file() and not path.stat().st_size)


def _logs(path: Path) -> list[Path]:
    """Return the non-empty files beside a store in which SQLite keeps what is not merged into it yet."""
    file = path.resolve()
    beside = (file.with_name(file.name + suffix) for suffix in ("-wal", "-journal", "-shm"))
    return [log for log in beside if log.is_file() and log.stat().st_size]


def _refuse_orphaned_log(path: Path) -> None:
    """Refuse a store that is gone while its log is there: SQLite would delete the log, and the answers in it."""
    if _is_absent(path) and (logs := _logs(path)):
        what = "empty" if path.exists() else "missing"
        raise StoreError(
            f"{path} is {what}, but beside it is {first_few(log.name for log in logs)}, which may hold the last "
            f"answers of a store; nothing was touched. Put {path.name} back beside it. Or move {path.name}-wal, -shm "
            "and -journal to another folder; then restore a backup, or run the same command again for a new store."
        )


def _refuse_foreign_bytes(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if start and not start.strip(b"\0"):
        raise StoreError(f"{path}: the file is damaged (it begins with zeros); {_RESTORE}.")
    if start and start != _MAGIC:
        raise StoreError(f"{path}: this is not a description store (not an SQLite file); give another --store.")


def _is_new(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0


def _check_schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the layout of the store. Raises StoreError: it is none, or of a later version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        kind = "an empty SQLite file" if _is_new(connection) else "an SQLite file of another program"
        raise StoreError(f"{path}: this is not a description store but {kind}; give another --store.")
    if not 1 <= version <= SCHEMA_VERSION:
        raise StoreError(
            f"{path}: the store has layout {version}, but this gpt4image reads layouts 1 to {SCHEMA_VERSION}; "
            f"use the version of gpt4image that wrote it to export its descriptions."
        )
    return version


_MAGIC = b"SQLite format 3\0"
_RESTORE = (
    "restore a backup, after moving the file and those beside it (-wal, -shm, .count) away; the same `gpt4image "
    "describe` command asks for what is missing there"
)
_WHAT_TO_DO = {
    "SQLITE_FULL": "the disk is full; what was stored before is safe: free some space and run the same command again",
    "SQLITE_READONLY": "the file or its folder is read-only; choose a writable place for --store",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that the folder exists and may be read and written",
    "SQLITE_IOERR": "reading or writing failed; check the disk and its free space and run the same command again",
    "SQLITE_NOTADB": "this is not an SQLite file; give another --store",
    "SQLITE_CORRUPT": f"the file is damaged; {_RESTORE}, or save what can be read: sqlite3 FILE .recover",
    "SQLITE_BUSY": "another program has locked the file; close it and run the same command again",
}


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn errors of SQLite and of the disk about the file at ``path`` into StoreError: what they mean, what to do."""
    try:
        yield
    except (sqlite3.Error, AttributeError, *UNREADABLE) as error:  # the others of values in a damaged file
        name = getattr(error, "sqlite_errorname", "")
        advice = next((advice for code, advice in _WHAT_TO_DO.items() if name.startswith(code)), None)
        unknown = f"the store cannot be used ({first_line(error)}); if it is damaged, {_RESTORE}."
        raise StoreError(f"{path}: {advice} ({error})." if advice else f"{path}: {unknown}") from error
    except OSError as error:
        raise StoreError(
            f"{path}: the store cannot be used ({error.strerror or error}); check the folder, its rights and the free "
            "space."
        ) from error
