"""Atomic writes and JSON on disk: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt4image.base.errors import RunError


class DamagedError(RunError, ValueError):
    """A file is no JSON; a ValueError too, for those who know what it belongs to and can say more."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``.

    Raises:
        OSError: ``path`` is there and no file (a device would be replaced by one), or it cannot be written.
    """
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    path = _target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_file(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk: a file that was made or renamed there is found after a power cut."""
    with contextlib.suppress(OSError):  # not every file system can; the files themselves are flushed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable(path: Path) -> None:
    """Check that ``atomic_path`` can write ``path``, before work whose result would be lost. Raises OSError."""
    _temporary_file(_target(path)).unlink()


def _target(path: Path) -> Path:
    """Return what a link leads to: that is written, and the link stays."""
    return path.resolve() if path.is_symlink() else path


def _temporary_file(path: Path) -> Path:
    """Make an empty file beside ``path``, with the rights of a new one; an OSError names ``path``, not this file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return temporary


def remove_unfinished(path: Path) -> None:
    """Remove what ``atomic_path`` leaves beside ``path`` where its process is killed; nobody may be writing it."""
    path = _target(path)
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """Yield a temporary folder in ``place``; on success all that is in it is flushed to disk and moved to ``place``.

    What is there under the same name is replaced where it is a file; a folder with something in it is an OSError.
    """
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".staging-") as name:
        staging = Path(name)
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                with path.open("rb+") as written:
                    os.fsync(written.fileno())
        for path in sorted(staging.iterdir()):
            path.replace(place / path.name)


def user_cache() -> Path:
    """Return this package's folder in the user's cache (XDG_CACHE_HOME, else ~/.cache); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gpt4image"


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinities are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedError, a RunError and ValueError, where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(
            f"{path} is no JSON ({error}): it is damaged. Bring back a copy of it, or make again what it belongs to."
        ) from None


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON object as a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_json_line(value))


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(map(_json_line, values)))


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def read_json_lines(path: Path) -> list[Any]:
    """Read a JSON-lines file; a last line that a crash cut short is dropped.

    Raises:
        DamagedError: another line is no JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[Any] = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number != len(lines) - 1:
                raise DamagedError(
                    f"{path} is damaged: its line {number + 1} is no JSON ({error}). Bring back a copy of it, or make "
                    "again what it belongs to."
                ) from None
    return rows


def fingerprint(value: Any) -> str:
    """Return the sha256 hex digest of ``value`` as canonical JSON: the identity of a configuration."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
