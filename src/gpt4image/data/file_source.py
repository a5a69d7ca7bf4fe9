"""Images that are files below one folder, and digests of files."""

import functools
import hashlib
import itertools
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt4image.base.errors import parsing
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.data.decode import EXTENSIONS

IMAGES = ".images"  # suffix of the folder of images beside a table that ``review`` or ``export-labels`` writes
TABLES = tuple(f"{name}{kind}" for name in ("labels", "manifest") for kind in (".csv", ".parquet"))
"""Names of a table that says what the images of its folder are."""
OUTSIDE = "leads out of the folder of the dataset"
MAX_FILE_BYTES = 512 * 1024 * 1024
BATCH, BAR_FROM = 500, 10_000  # files


class FileSource:
    """Bytes of files, by paths relative to a folder."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = str(root.absolute())
        self._names = names

    def read(self, row: int) -> bytes:
        """Return the bytes of one file. Raises OSError where it cannot be read or is larger than 512 MiB."""
        return read_bounded(self.path(row))

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
            file = os.path.realpath(file) if os.path.islink(file) else file  # noqa: PTH114
            mode = os.stat(file).st_mode  # noqa: PTH116
        except OSError as error:
            return "", f"cannot be found: {error.strerror}"
        if not is_below(file, root):
            return "", OUTSIDE
        return (os.path.relpath(file, root), "") if stat.S_ISREG(mode) else ("", "is not a file")

    return [locate(path) for path in paths]


def is_unicode(name: str) -> bool:
    """Return whether a name is valid UTF-8; others cannot be written as keys or class names."""
    return name.isascii() or name.encode(errors="ignore").decode() == name


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
        for name in folders:
            if os.path.islink(path := os.path.join(where, name)):  # noqa: PTH114, PTH118
                skip(path, "a link to a folder, which is not followed")
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in extensions:  # noqa: PTH122
                continue
            path = os.path.join(where, name)  # noqa: PTH118
            key = name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")
            mode = os.lstat(path).st_mode
            if not is_unicode(key):
                skip(path, "its name is not valid UTF-8")
            elif stat.S_ISLNK(mode) and not is_below(os.path.realpath(path), real_root):
                skip(path, OUTSIDE)
            elif not (stat.S_ISREG(mode) or os.path.isfile(path)):  # noqa: PTH113
                skip(path, "is not a file")
            else:
                found.append(key)
    return found, skipped


def table_in(folder: Path) -> Path | None:
    """Return the table that says what the images of a folder are; None without one."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def file_digests(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the sha256 hex digest of each file's bytes.

    One that cannot be read gets a digest of its own, which no content has; decoding it later gives the reason.
    """
    starts = range(0, len(paths), BATCH)

    def read(start: int) -> list[str]:
        return list(map(_digest, paths[start : start + BATCH]))

    pool = ThreadPoolExecutor()
    try:
        with progress_bar(quiet=len(paths) < BAR_FROM) as progress:
            done = progress.track(
                pool.map(read, starts), len(starts), description=f"Reading digests, {BATCH} at a time"
            )
            return tuple(itertools.chain.from_iterable(done))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for the rest of the set


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256(b"unreadable file\0" + os.fsencode(path)).hexdigest()
