"""Images that are files below one folder, and digests of files.

Digests are cached in one SQLite file in the user's cache folder, by path, size and times, where that can be written.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import Gpt4ImageError, parsing
from gpt4image.base.files import atomic_path, make_folder, user_cache
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.data.dataset import Dataset, is_unicode
from gpt4image.data.decode import EXTENSIONS

IMAGES = ".images"  # suffix of the folder of images beside a table that ``review`` or ``export-labels`` writes
TABLES = ("manifest", "metadata", "labels")
"""Names of a table that decides what a folder is, whatever else lies there."""
AUDIT = "audit"  # beginning of the name of a table that `audit` writes
OUTSIDE = "leads out of the folder of the dataset"
MAX_FILE_BYTES = 512 * 1024 * 1024
DIGESTS = "digests.sqlite"
# Size, time of change of the content, and of the entry: `cp -p` and `touch -r` can set back only the first two.
State = tuple[int, int, int]

BATCH = 500
# A file may change twice within one tick of the file system's clock: younger ones are not cached.
YOUNG_NS = 2_000_000_000
BAR_FROM_BYTES = 500_000_000
_DAMAGED = (sqlite3.Error, UnicodeError)  # the second where SQLite quotes damaged text in its message


class FileSource:
    """Bytes of files, by paths relative to a folder."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = str(root.absolute())
        self._names = names

    def read(self, row: int) -> bytes:
        """Return the bytes of one file. Raises OSError where it cannot be read or is larger than 512 MiB."""
        return read_bounded(self.path(row))

    def digests(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the sha256 hex digest of each file's bytes; that of an unchanged file is cached."""
        return file_digests([self.path(row) for row in rows])

    def path(self, row: int) -> str:
        """Return the absolute path of one file."""
        return os.path.join(self._root, self._names[row])  # noqa: PTH118


def read_bounded(path: str, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file of at most ``limit``, by default 512 MiB. Raises OSError, without waiting."""
    limit = MAX_FILE_BYTES if limit is None else limit
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("no regular file: a pipe or device may never end")
        if status.st_size > limit:
            raise OSError(f"the file has {status.st_size:,} bytes, more than the allowed {limit:,}")
        return file.read()


def lines_of(file: Path, what: str) -> list[str]:
    """Return the lines of a text file, stripped. Raises DataError, in which ``what`` names the file and its kind."""
    with parsing(f"{what} that can be read"):
        return [line.strip() for line in read_bounded(str(file)).decode("utf-8-sig").strip().splitlines()]


def with_slashes(paths: Sequence[str], folder: Path) -> list[str]:
    """Return paths with slashes in place of the back slashes of Windows, except of files whose name has these."""
    there = os.path.exists
    return [path if "\\" not in path or there(folder / path) else path.replace("\\", "/") for path in paths]


def locate_all(folder: Path, paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return for each path the file below ``folder``, relative to it, or else why it cannot be used: (file, fault)."""
    root = os.path.realpath(folder)
    real_folder = functools.cache(os.path.realpath)  # each folder is looked up once

    def locate(path: str) -> tuple[str, str]:
        if not path or "\0" in path or not is_unicode(path):
            return "", "its path is empty" if not path else "its path holds characters that no path may have"
        parent, name = os.path.split(os.path.join(root, path))  # noqa: PTH118
        file = os.path.join(real_folder(parent), name)  # noqa: PTH118
        try:
            mode = os.lstat(file).st_mode
            if stat.S_ISLNK(mode):
                file = os.path.realpath(file)
                mode = os.stat(file).st_mode  # noqa: PTH116
        except OSError as error:
            return "", f"cannot be found: {error.strerror}"
        if not is_below(file, root):
            return "", OUTSIDE
        return (os.path.relpath(file, root), "") if stat.S_ISREG(mode) else ("", "is not a file")

    return [locate(path) for path in paths]


def write_beside(table: Path, images: Dataset) -> tuple[list[str], dict[int, Skipped]]:
    """Write images to a folder beside a table; return their paths from it, and the rows that cannot be read.

    They are hard links where the disk allows it, else copies. A name is a digest, so that one that is there stays.
    """
    folder = table.with_suffix(IMAGES)
    places, unread = list[str](), dict[int, Skipped]()
    with progress_bar() as progress:
        for row in progress.track(range(len(images)), description=f"writing images to {folder}"):
            suffix = Path(images.keys[row]).suffix.lower()
            file = folder / (images.digests[row] + (suffix if suffix in EXTENSIONS else ""))
            places.append(f"{folder.name}/{file.name}")
            if isinstance(images.source, FileSource):
                with contextlib.suppress(OSError):  # it is there, or on another disk
                    make_folder(folder)
                    os.link(os.path.realpath(images.source.path(int(images.rows[row]))), file)
            if not file.is_file():
                try:
                    content = images.read(row)
                except (OSError, Gpt4ImageError) as error:
                    unread[row] = Skipped(name=images.keys[row], reason=str(error))
                    continue
                with atomic_path(file) as temporary:
                    temporary.write_bytes(content)
    return places, unread


def expanded(path: str) -> Path:
    """Return a path with ``~`` as the home folder; with an unknown ``~user`` it stays as it is, and is no file."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (that of Path raises RuntimeError)


def is_below(real_path: str, real_root: str) -> bool:
    """Return whether a path lies below a folder; both without links."""
    return real_path.startswith(real_root.rstrip(os.sep) + os.sep)


def files_below(root: Path, folder: Path, extensions: Collection[str] = EXTENSIONS) -> tuple[list[str], list[Skipped]]:
    """Return the files below a folder, as paths from ``root``, in order; and those that are skipped, as links out."""
    found, skipped, real_root = list[str](), list[Skipped](), os.path.realpath(root)

    def skip(path: str, reason: str) -> None:
        skipped.append(Skipped(os.fsencode(os.path.relpath(path, root)).decode(errors="backslashreplace"), reason))

    walk = os.walk(folder, onerror=lambda error: skip(error.filename, f"cannot be read: {error.strerror}"))
    for where, folders, names in walk:
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(where, root)
        for name in [name for name in folders if not is_unicode(name)]:
            skip(os.path.join(where, name), "its name is not valid UTF-8")  # noqa: PTH118
            folders.remove(name)
        for name in folders:
            if os.path.islink(path := os.path.join(where, name)):  # noqa: PTH114, PTH118
                skip(path, "a link to a folder, which is not followed")
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in extensions:  # noqa: PTH122
                continue
            path = os.path.join(where, name)  # noqa: PTH118
            mode = os.lstat(path).st_mode
            if not is_unicode(name):
                skip(path, "its name is not valid UTF-8")
            elif stat.S_ISLNK(mode) and not is_below(os.path.realpath(path), real_root):
                skip(path, OUTSIDE)
            elif not (stat.S_ISREG(mode) or os.path.isfile(path)):  # noqa: PTH113
                skip(path, "is not a file")
            else:
                found.append(name if inside == "." else f"{inside}/{name}".replace(os.sep, "/"))
    return found, skipped


def table_in(folder: Path, ignored: Collection[str] = ()) -> Path | None:
    """Return the table that says what the images of a folder are: by its name, or one beside at most one folder."""
    children = [child for child in folder.iterdir() if child.name not in ignored and not child.name.startswith(".")]
    tables = [child for child in children if child.suffix in (".csv", ".parquet") and child.is_file()]
    tables = [table for table in tables if not table.stem.startswith(AUDIT)]  # looks at some images
    named = [table for table in tables if table.stem.lower() in TABLES]
    alone = len(tables) == 1 and sum(child.is_dir() for child in children) < 2
    return named[0] if len(named) == 1 else tables[0] if alone else None


def unlisted(root: Path, listed: Collection[str], extensions: Collection[str], *, below: bool) -> list[str]:
    """Return images that a table does not list: in the folders of those listed, or all ``below`` its root."""
    if below:
        found = (file for file in files_below(root, root, extensions)[0] if f"{IMAGES}/" not in file)
        real, known = os.path.realpath(root), {os.path.normpath(file) for file in listed}
        found = [file for file in found if os.path.normpath(file) not in known]
        return [file for file in found if os.path.relpath(os.path.realpath(root / file), real) not in known]
    folders = {os.path.dirname(file) for file in listed}  # noqa: PTH120
    return sorted(
        inside
        for folder in folders
        for entry in os.scandir(root / folder)
        if os.path.splitext(entry.name)[1].lower() in extensions and not entry.name.startswith(".")  # noqa: PTH122
        if (inside := os.path.join(folder, entry.name)) not in listed and not entry.is_symlink()  # noqa: PTH118
    )


def file_digests(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the sha256 hex digest of each file's bytes.

    One that cannot be read gets a digest of its own, which no content has; decoding it later gives the reason.
    """
    states = {path: file_state(path) for path in dict.fromkeys(paths)}
    digests = _recalled(states)
    missing = [path for path in states if path not in digests]
    batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
    n_bytes = sum((states[path] or (0,))[0] for path in missing)

    def read(batch: Sequence[str]) -> dict[str, str]:
        return {path: digest for path in batch if (digest := _digest(path))}

    pool = ThreadPoolExecutor()
    try:
        with progress_bar(quiet=n_bytes < BAR_FROM_BYTES) as progress:
            task = progress.add_task("Reading digests", total=len(missing), note="")
            for batch, found in zip(batches, pool.map(read, batches), strict=True):
                digests |= found
                _remember({path: (state, found[path]) for path in found if (state := states[path])})
                progress.advance(task, len(batch))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the rest of the set
    for path in states.keys() - digests.keys():
        digests[path] = hashlib.sha256(b"unreadable file\0" + os.fsencode(path)).hexdigest()
    return tuple(digests[path] for path in paths)


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


def _recalled(states: Mapping[str, State | None]) -> dict[str, str]:
    """Return the cached digests of files that have not changed."""
    found, paths = dict[str, str](), list(states)
    with contextlib.suppress(*_DAMAGED), contextlib.closing(_connected("ro")) as connection:
        for start in range(0, len(paths), BATCH):
            path_of = {os.fsencode(path): path for path in paths[start : start + BATCH]}
            marks = ", ".join("?" * len(path_of))
            query = f"SELECT path, size, mtime, ctime, digest FROM digests WHERE path IN ({marks})"
            for name, *state, digest in connection.execute(query, list(path_of)):
                # Another type or length: the cache is damaged.
                if tuple(state) == states[path_of[name]] and isinstance(digest, bytes) and len(digest) == 32:
                    found[path_of[name]] = digest.hex()
    return found


def _remember(files: Mapping[str, tuple[State, str]]) -> None:
    settled = time.time_ns() - YOUNG_NS  # an older file shows another change of its bytes in its times
    known = [(path, *file) for path, file in files.items() if max(file[0][1:]) < settled]
    rows = [(os.fsencode(path), *state, bytes.fromhex(digest)) for path, state, digest in known]
    with contextlib.suppress(*_DAMAGED, OSError):
        user_cache().mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_connected("rwc")) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests "
                "(path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, digest BLOB) WITHOUT ROWID"
            )
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)


def _connected(mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{(user_cache() / DIGESTS).absolute().as_uri()}?mode={mode}", uri=True, timeout=10)
