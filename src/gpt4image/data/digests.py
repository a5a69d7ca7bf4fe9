"""Digests of files, cached: a second load of a dataset does not read all its bytes again.

The cache is one SQLite file in the user's cache folder, by path, size and times. It is a help, never a condition: where
it cannot be read or written, digests are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt4image.base.files import user_cache
from gpt4image.base.progress import progress_bar

# Size, time of change of the content, and of the entry: `cp -p` and `touch -r` can set back only the first two.
State = tuple[int, int, int]

BATCH = 500
# A file may change twice within one tick of the file system's clock: younger ones are not cached.
YOUNG_NS = 2_000_000_000
BAR_FROM_BYTES = 500_000_000
_DAMAGED = (sqlite3.Error, UnicodeError)  # the second where SQLite quotes damaged text in its message


def file_digests(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the sha256 hex digest of each file's bytes.

    One that cannot be read gets a digest of its own, which no content has; decoding it later gives the reason.
    """
    state_of = {path: file_state(path) for path in dict.fromkeys(paths)}
    states = [state_of[path] for path in paths]
    names = [os.fsencode(path) for path in paths]
    digests = _recall(names, states)
    missing = [index for index, digest in enumerate(digests) if digest is None]
    batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
    n_bytes = sum((states[index] or (0,))[0] for index in missing)

    def digest_batch(batch: Sequence[int]) -> list[str | None]:
        return [_digest(paths[index]) for index in batch]

    pool = ThreadPoolExecutor()
    try:
        with progress_bar(quiet=n_bytes < BAR_FROM_BYTES) as progress:
            task = progress.add_task("Reading digests", total=len(missing), note="")
            for batch, found in zip(batches, pool.map(digest_batch, batches), strict=True):
                for index, digest in zip(batch, found, strict=True):
                    digests[index] = digest
                _remember([(names[index], states[index], digests[index]) for index in batch])
                progress.advance(task, len(batch))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the rest of the set
    return tuple(
        digest or hashlib.sha256(b"unreadable file\0" + name).hexdigest()
        for name, digest in zip(names, digests, strict=True)
    )


def file_state(path: str) -> State | None:
    """Return size and times of a file, which change when its bytes do; None where it cannot be reached."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path per file costs more than the call)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _database() -> Path:
    return user_cache() / "digests.sqlite"


def _recall(names: Sequence[bytes], states: Sequence[State | None]) -> list[str | None]:
    """Return the cached digests of files that have not changed; None for the others."""
    known: dict[bytes, tuple[State, str]] = {}
    address = f"{_database().absolute().as_uri()}?mode=ro"
    with (
        contextlib.suppress(*_DAMAGED),
        contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as connection,
    ):
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            query = f"SELECT path, size, mtime, ctime, digest FROM digests WHERE path IN ({','.join('?' * len(batch))})"
            for path, size, mtime, ctime, digest in connection.execute(query, batch):
                if isinstance(digest, bytes) and len(digest) == 32:  # else the cache is damaged
                    known[path] = (size, mtime, ctime), digest.hex()
    recalled = (known.get(name, (None, None)) for name in names)
    return [digest if state == now else None for (state, digest), now in zip(recalled, states, strict=True)]


def _remember(files: Sequence[tuple[bytes, State | None, str | None]]) -> None:
    settled = time.time_ns() - YOUNG_NS  # an older file shows another change of its bytes in its times
    known = [file for file in files if file[1] and file[2] and max(file[1][1:]) < settled]
    rows = [(name, *(state or ()), bytes.fromhex(digest or "")) for name, state, digest in known]
    with contextlib.suppress(*_DAMAGED, OSError):
        database = _database()
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests "
                "(path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, digest BLOB) WITHOUT ROWID"
            )
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)
