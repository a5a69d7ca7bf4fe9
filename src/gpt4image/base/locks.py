"""One writer at a time; an error names the process that holds the lock."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import filelock

from gpt4image.base.files import naming

FileLock = filelock.BaseFileLock


def acquire_lock(path: Path, wait_s: float, busy: Callable[[str], Exception] = RuntimeError) -> FileLock:
    """Hold the lock file ``path`` until the result is released or the process ends, however it ends.

    Raises OSError, or what ``busy`` makes of the words for the process that holds it, whose id is in the file.
    """
    lock = filelock.FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        owner = "unknown"
        with contextlib.suppress(PermissionError):  # Windows lets nobody read what is locked
            owner = path.read_text(encoding="ascii", errors="replace").strip() or owner
        raise busy(f"another process (id {owner})") from None
    try:
        with contextlib.suppress(PermissionError), naming(path):  # nor write it, not even its owner
            path.write_text(str(os.getpid()), encoding="ascii")
    except OSError:
        lock.release()
        raise
    return lock
