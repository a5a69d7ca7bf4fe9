"""Images that are files below one folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.digests import file_digests

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


def read_bounded(path: str) -> bytes:
    """Return the bytes of a file. Raises OSError where it cannot be read, is no regular file or has over 512 MiB."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("no regular file: a pipe or device may never end")
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(f"the file has {status.st_size:,} bytes, more than the allowed {MAX_FILE_BYTES:,}")
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting: opening a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def expanded(path: str) -> Path:
    """Return a path with ``~`` as the home folder; with an unknown ``~user`` it stays as it is, and is no file."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (that of Path raises RuntimeError)


def is_below(real_path: str, real_root: str) -> bool:
    """Return whether a path lies below a folder; both without links."""
    return real_path.startswith(real_root.rstrip(os.sep) + os.sep)


def is_unicode(name: str) -> bool:
    """Return whether the name of a file is valid UTF-8; other names cannot be written as keys."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
