"""The description store: one SQLite file that says who described which image, how, with which words and at what cost.

An image is known by the sha256 of its bytes, so renaming, moving or shuffling files never shifts a pairing. The
identity of a result is digest + prompt + describer settings + sample; asking for it again costs nothing. Failures
are rows too and give way to the next answer. There is one writer at a time and any number of readers (SQLite's WAL).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import filelock

from gpt4image.errors import StoreError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x67344931
_ROWS_PER_QUERY = 500

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

# A good description is never overwritten: it was paid for.
_ADD = """
INSERT INTO results (digest, prompt, describer, sample, status, text, finish_reason, error, tokens_in, tokens_out,
                     cost_usd, latency_s, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    status = excluded.status, text = excluded.text, finish_reason = excluded.finish_reason, error = excluded.error,
    tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, cost_usd = excluded.cost_usd,
    latency_s = excluded.latency_s, created = excluded.created
WHERE status = 'failed'
"""

_JOINED = "results AS r JOIN prompts AS p ON p.id = r.prompt JOIN describers AS d ON d.id = r.describer"
_ORDER = "r.digest, p.name, p.version, p.text, p.class_conditioned, d.settings, r.sample"


@dataclass(frozen=True, order=True)
class Prompt:
    """What a describer was asked.

    Attributes:
        name: short name, e.g. ``paper``.
        version: raised when the text of the name changes.
        text: the question; ``{class_name}`` stands for the class of the image; empty where it is not known.
        class_conditioned: the describer was told the class, so the description may give the label away.
    """

    name: str
    version: int
    text: str
    class_conditioned: bool


@dataclass(frozen=True, kw_only=True)
class Description:
    """One result: a description, or the reason why there is none.

    Attributes:
        digest: sha256 hex digest of the image bytes.
        prompt: what was asked.
        describer: settings of the describer, its whole identity (JSON-serialisable).
        sample: number of this result among several of the same describer and prompt.
        text: the description; None where it failed.
        error: why it failed.
        finish_reason: as the model gave it.
        tokens_in: tokens of the request.
        tokens_out: tokens of the answer.
        cost_usd: price, in US dollars.
        latency_s: time from request to answer, in seconds.
        created: seconds since 1970-01-01 UTC.
    """

    digest: str
    prompt: Prompt
    describer: Mapping[str, Any] = field(hash=False)
    created: float
    sample: int = 0
    text: str | None = None
    error: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None

    @property
    def status(self) -> Literal["ok", "failed"]:
        """``ok`` where there is a text."""
        return "failed" if self.text is None else "ok"


class StoredText(NamedTuple):
    """A description as the text stages read it; ``row`` finds it again in the store (``texts_at``)."""

    digest: str
    text: str
    prompt: Prompt
    row: int


class DescriptionStore:
    """Descriptions of images in one SQLite file. Use as a context manager."""

    def __init__(self, path: Path, *, write: bool = False, wait_s: float = 2.0) -> None:
        """Open the store at ``path``.

        Args:
            path: the SQLite file; made when ``write`` and it does not exist.
            write: allow ``add``; there is one writer at a time.
            wait_s: how long to wait for another writer, in seconds.

        Raises:
            StoreError: missing, foreign, made by another version, locked by another writer or not accessible.
        """
        self.path = path
        self._lock = _acquire_lock(path, wait_s) if write else None
        try:
            with self._explain():
                self._connection = _connect_writer(path) if write else _connect_reader(path)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the file and let another writer in."""
        self._connection.close()
        self._release()

    def add(self, rows: Iterable[Description]) -> int:
        """Write results in one transaction that is on disk when this returns; good ones are never overwritten.

        Returns:
            Number of results that were new or took the place of a failure.

        Raises:
            StoreError: the disk is full or the file cannot be written; nothing of ``rows`` is in the store then.
        """
        with self._explain(), self._connection:
            before = self._connection.total_changes
            references = _References(self._connection)
            values = [_to_row(row, references) for row in rows]
            made = self._connection.total_changes - before
            self._connection.executemany(_ADD, values)
            return self._connection.total_changes - before - made

    def described(self, prompt: Prompt, describer: Mapping[str, Any]) -> set[str]:
        """Return the digests of images that have a description of this describer for this prompt."""
        rows = self._query(
            f"SELECT DISTINCT lower(hex(r.digest)) FROM {_JOINED} WHERE r.status = 'ok' AND p.name = ? "
            "AND p.version = ? AND p.text = ? AND p.class_conditioned = ? AND d.settings = ?",
            (prompt.name, prompt.version, prompt.text, prompt.class_conditioned, canonical_json(describer)),
        )
        return {digest for (digest,) in rows}

    def texts(self, prompt_name: str | None = None) -> Iterator[StoredText]:
        """Yield every description, ordered by digest, prompt, describer and sample, however they were added."""
        prompts = dict(self._prompts())
        where, values = _of_prompt(prompt_name)
        for digest, text, prompt, row in self._query(
            f"SELECT r.digest, r.text, r.prompt, r.id FROM {_JOINED} WHERE r.status = 'ok'{where} ORDER BY {_ORDER}",
            values,
        ):
            yield StoredText(digest.hex(), text, prompts[prompt], row)

    def texts_at(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of the rows that ``texts`` named, in the order of ``rows``."""
        found: dict[int, str] = {}
        for start in range(0, len(rows), _ROWS_PER_QUERY):
            part = [int(row) for row in rows[start : start + _ROWS_PER_QUERY]]
            found.update(self._query(f"SELECT id, text FROM results WHERE id IN ({_marks(part)})", part))
        return [found[int(row)] for row in rows]

    def descriptions(
        self,
        *,
        prompt_name: str | None = None,
        digests: Sequence[str] | None = None,
        status: Literal["ok", "failed"] = "ok",
    ) -> Iterator[Description]:
        """Yield whole results, in the order of ``texts``; ``digests`` limits them to a few images."""
        prompts = dict(self._prompts())
        describers = {number: json.loads(settings) for number, settings in self._query("SELECT * FROM describers")}
        where, values = _of_prompt(prompt_name)
        select = (
            "SELECT r.digest, r.prompt, r.describer, r.created, r.sample, r.text, r.error, r.finish_reason, "
            f"r.tokens_in, r.tokens_out, r.cost_usd, r.latency_s FROM {_JOINED} WHERE r.status = ?{where}"
        )
        wanted = [None] if digests is None else _parts(sorted({bytes.fromhex(digest) for digest in digests}))
        for part in wanted:
            among = "" if part is None else f" AND r.digest IN ({_marks(part)})"
            for row in self._query(f"{select}{among} ORDER BY {_ORDER}", (status, *values, *(part or ()))):
                (
                    digest,
                    prompt,
                    describer,
                    created,
                    sample,
                    text,
                    error,
                    reason,
                    tokens_in,
                    tokens_out,
                    cost,
                    latency,
                ) = row
                yield Description(
                    digest=digest.hex(),
                    prompt=prompts[prompt],
                    describer=describers[describer],
                    created=created,
                    sample=sample,
                    text=text,
                    error=error,
                    finish_reason=reason,
                    tokens_in=tokens_in,
                    tokens_out=tokens_out,
                    cost_usd=cost,
                    latency_s=latency,
                )

    def digests(self, prompt_name: str | None = None) -> set[str]:
        """Return the digests of all images that have a description."""
        where, values = _of_prompt(prompt_name)
        rows = self._query(f"SELECT DISTINCT lower(hex(r.digest)) FROM {_JOINED} WHERE r.status = 'ok'{where}", values)
        return {digest for (digest,) in rows}

    def counts(self) -> list[tuple[Prompt, Mapping[str, Any], str, int]]:
        """Return how many results there are by (prompt, describer settings, status), ordered by these."""
        prompts = dict(self._prompts())
        rows = self._query(
            f"SELECT r.prompt, d.settings, r.status, count(*) FROM {_JOINED} GROUP BY r.prompt, r.describer, r.status"
        )
        ordered = sorted((prompts[prompt], settings, status, count) for prompt, settings, status, count in rows)
        return [(prompt, json.loads(settings), status, count) for prompt, settings, status, count in ordered]

    def _prompts(self) -> Iterator[tuple[int, Prompt]]:
        for number, name, version, text, told in self._query(
            "SELECT id, name, version, text, class_conditioned FROM prompts"
        ):
            yield number, Prompt(name, version, text, bool(told))

    def _query(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with self._explain():
            yield from self._connection.execute(statement, values)

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(_explanation(self.path, error)) from error

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


class _References:
    """Ids of prompts and describers, made where they are new."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[Any, ...], int] = {}

    def prompt(self, prompt: Prompt) -> int:
        columns = "name, version, text, class_conditioned"
        return self._find("prompts", columns, (prompt.name, prompt.version, prompt.text, int(prompt.class_conditioned)))

    def describer(self, settings: Mapping[str, Any]) -> int:
        return self._find("describers", "settings", (canonical_json(settings),))

    def _find(self, table: str, columns: str, values: tuple[Any, ...]) -> int:
        if (table, *values) not in self._known:
            marks = _marks(values)
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", values)
            found = self._connection.execute(f"SELECT id FROM {table} WHERE ({columns}) = ({marks})", values)
            self._known[table, *values] = found.fetchone()[0]
        return self._known[table, *values]


def canonical_json(value: Mapping[str, Any]) -> str:
    """Return ``value`` as JSON with sorted keys: equal settings are equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _to_row(row: Description, references: _References) -> tuple[Any, ...]:
    return (
        bytes.fromhex(row.digest),
        references.prompt(row.prompt),
        references.describer(row.describer),
        row.sample,
        row.status,
        row.text,
        row.finish_reason,
        row.error,
        row.tokens_in,
        row.tokens_out,
        row.cost_usd,
        row.latency_s,
        row.created,
    )


def _of_prompt(name: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if name is None else (" AND p.name = ?", (name,))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _parts(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(values), _ROWS_PER_QUERY):
        yield values[start : start + _ROWS_PER_QUERY]


def _acquire_lock(path: Path, wait_s: float) -> filelock.BaseFileLock:
    """Become the one writer of ``path``; the lock file holds the process id of the one who has it."""
    lock_path = path.with_name(path.name + ".lock")
    lock = filelock.FileLock(lock_path, timeout=wait_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        lock_path.write_text(str(os.getpid()), encoding="ascii")
    except filelock.Timeout:
        owner = lock_path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
        raise StoreError(
            f"{path}: another process (id {owner}) is writing to this store; wait until it is done or stop it."
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: cannot write here ({error.strerror or error}); choose a writable folder.") from error
    return lock


def _connect_writer(path: Path) -> sqlite3.Connection:
    if path.exists():
        _refuse_foreign_bytes(path)
    connection = sqlite3.connect(path)
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


def _connect_reader(path: Path) -> sqlite3.Connection:
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


def _explanation(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    for code, advice in _WHAT_TO_DO.items():
        if name.startswith(code):
            return f"{path}: {advice} ({error})."
    return f"{path}: the store cannot be used ({error})."
