"""Images that are files below one folder."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import parsing
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import is_unicode
from gpt4image.data.decode import EXTENSIONS
from gpt4image.data.digests import file_digests

OUTSIDE = "leads out of the folder of the dataset"
MAX_FILE_BYTES = 512 * 1024 * 1024


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
    """Return the bytes of a file. Raises OSError where it cannot be read, is no regular file or has over ``limit``.

    The limit is 512 MiB if none is given.
    """
    limit = MAX_FILE_BYTES if limit is None else limit
    with open(path, "rb", opener=_without_waiting) as file:
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


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting: opening a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def locate_all(folder: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
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


def usable(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[Skipped]]:
    """Return the paths that lead to files below a folder, as they are given, and the others as skipped items."""
    faults = [fault for _, fault in locate_all(folder, paths)]
    aside = [Skipped(name=path, reason=fault) for path, fault in zip(paths, faults, strict=True) if fault]
    return [path for path, fault in zip(paths, faults, strict=True) if not fault], aside


def expanded(path: str) -> Path:
    """Return a path with ``~`` as the home folder; with an unknown ``~user`` it stays as it is, and is no file."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (that of Path raises RuntimeError)


def is_below(real_path: str, real_root: str) -> bool:
    """Return whether a path lies below a folder; both without links."""
    return real_path.startswith(real_root.rstrip(os.sep) + os.sep)


def pictures_below(root: Path, folder: Path) -> list[str]:
    """Return the paths of all images below a folder, from ``root``, in order; links to folders are not followed."""
    return [path for path in files_below(root, folder) if PurePosixPath(path).suffix.lower() in EXTENSIONS]


def files_below(root: Path, folder: Path) -> list[str]:
    """Return the paths of all files below a folder that are not hidden; see ``pictures_below``."""
    found: list[str] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(where).relative_to(root)
        found += [(inside / name).as_posix() for name in sorted(files) if not name.startswith(".")]
    return found
