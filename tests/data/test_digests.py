"""Digests of files are right, remembered, and never stale."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from gpt4image.data import digests
from gpt4image.data.digests import file_digests


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for i in range(30):
        path = tmp_path / f"ä {i}.bin"
        path.write_bytes(bytes([i]) * 100)
        long_ago = time.time() - 1000
        os.utime(path, (long_ago, long_ago))
        paths.append(str(path))
    return paths


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written a moment ago count as old: the time of change of an entry cannot be set back."""
    monkeypatch.setattr(digests, "YOUNG_NS", -(10**12))


def truth(paths: list[str]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths whose bytes were read."""
    seen: list[str] = []
    digest = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda path: seen.append(path) or digest(path))
    return seen


@pytest.mark.usefixtures("patient")
def test_a_second_look_reads_no_bytes(files: list[str], reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BATCH", 7)
    assert file_digests(files) == truth(files)
    assert len(reads) == 30
    assert file_digests(files[::-1]) == truth(files[::-1])
    assert len(reads) == 30


@pytest.mark.usefixtures("patient")
def test_a_change_is_seen_even_with_the_old_size_and_time(files: list[str], reads: list[str]) -> None:
    file_digests(files)
    status = Path(files[3]).stat()
    time.sleep(0.02)  # the next tick of the file system's clock
    Path(files[3]).write_bytes(b"x" * 100)
    os.utime(files[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    reads.clear()
    assert file_digests(files) == truth(files)
    assert reads == [files[3]]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("obstacle", ["not a database", "a folder", "cache is a file", "locked"])
def test_without_a_usable_cache_digests_are_computed(files: list[str], own_cache: Path, obstacle: str) -> None:
    database = own_cache / "digests.sqlite"
    if obstacle == "cache is a file":
        own_cache.write_text("in the way")
    elif obstacle == "a folder":
        database.mkdir(parents=True)
    else:
        own_cache.mkdir()
        database.write_bytes(b"garbage" * 1000 if obstacle == "not a database" else b"")
    if obstacle == "locked":
        database.chmod(0o400)
    assert file_digests(files) == truth(files)
    assert file_digests(files) == truth(files)


def test_a_file_that_cannot_be_read_joins_to_nothing(files: list[str]) -> None:
    found = file_digests([files[0], "/absent/a.png", "/absent/b.png", files[1]])
    assert (found[0], found[3]) == truth(files[:2])
    assert len(set(found)) == 4
    assert all(len(digest) == 64 for digest in found)


def test_a_damaged_digest_in_the_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "1.png").write_bytes(b"content")
    with monkeypatch.context() as later:
        later.setattr("time.time_ns", lambda: 2**62)  # of a file that was written a moment ago nothing is kept
        digests = file_digests([str(tmp_path / "1.png")])
    with contextlib.closing(sqlite3.connect(tmp_path / "gpt4image" / "digests.sqlite")) as connection, connection:
        assert connection.execute("UPDATE digests SET digest = 5").rowcount == 1
    assert file_digests([str(tmp_path / "1.png")]) == digests
