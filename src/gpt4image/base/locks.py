"""One writer at a time, and a name for the one who is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import filelock

FileLock = filelock.BaseFileLock


class LockedError(Exception):
    """Another process holds the lock; the message says which."""


def acquire_lock(path: Path, wait_s: float) -> FileLock:
    """Hold the lock file ``path`` until the result is released or the process ends, however it ends.

    Args:
        path: lock file; it holds the process id of its owner and stays in place.
        wait_s: how long to wait for another owner, in seconds.

    Raises:
        LockedError: somebody else holds it.
        OSError: the file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        owner = path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
        raise LockedError(f"another process (id {owner})") from None
    path.write_text(str(os.getpid()), encoding="ascii")
    return lock
