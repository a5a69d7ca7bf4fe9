"""Files as images: what is read, and digests that are right, remembered and never stale."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from gpt4image.data import file_source
from gpt4image.data.file_source import file_digests, files_below, locate_all, read_bounded


def test_a_file_is_read_up_to_the_limit_and_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    monkeypatch.setattr(file_source, "MAX_FILE_BYTES", 10)
    assert read_bounded(str(tmp_path / "a")) == bytes(10)
    monkeypatch.setattr(file_source, "MAX_FILE_BYTES", 9)
    with pytest.raises(OSError, match="the file has 10 bytes, more than the allowed 9"):
        read_bounded(str(tmp_path / "a"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_bounded(str(tmp_path / "pipe"))


def test_paths_are_found_below_a_folder_or_said_why_not(tmp_path: Path) -> None:
    (tmp_path / "set/in").mkdir(parents=True)
    for name in ("set/in/1.PNG", "set/in/2.txt", "set/in/.3.png", "outside.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "set/link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "set/inner.png").symlink_to("in/1.PNG")
    for path in ("in/1.PNG", "in/../in/1.PNG", "inner.png"):
        assert locate_all(tmp_path / "set", [path]) == [("in/1.PNG", "")]
    reasons = {"link.png": "leads out", "../outside.png": "leads out", "in": "is not a file", "none.png": "be found"}
    reasons |= {"": "its path is empty", "a\0b": "no path may", "\ud800": "no path may"}
    for (path, fault), reason in zip(locate_all(tmp_path / "set", list(reasons)), reasons.values(), strict=True):
        assert path == "" and reason in fault
    found, skipped = files_below(tmp_path / "set", tmp_path / "set")
    assert found == ["inner.png", "in/1.PNG"] and [item.name for item in skipped] == ["link.png"]
    assert files_below(tmp_path / "set", tmp_path / "set/in", {".txt"}) == (["in/2.txt"], [])


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
    monkeypatch.setattr(file_source, "YOUNG_NS", -(10**12))


def truth(paths: list[str]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths whose bytes were read."""
    seen: list[str] = []
    digest = file_source._digest
    monkeypatch.setattr(file_source, "_digest", lambda path: seen.append(path) or digest(path))
    return seen


@pytest.mark.usefixtures("patient")
def test_a_change_is_seen_even_with_the_old_size_and_time(
    files: list[str], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_source, "BATCH", 7)
    file_digests(files)
    assert file_digests(files[::-1]) == truth(files[::-1]) and len(reads) == 30, "a second look reads no bytes"
    status = Path(files[3]).stat()
    time.sleep(0.02)  # the next tick of the file system's clock
    Path(files[3]).write_bytes(b"x" * 100)
    os.utime(files[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    reads.clear()
    assert file_digests(files) == truth(files)
    assert reads == [files[3]]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("obstacle", ["not a database", "cache is a file", "locked", "a digest is damaged"])
def test_without_a_usable_cache_digests_are_computed(files: list[str], own_cache: Path, obstacle: str) -> None:
    database = own_cache / "digests.sqlite"
    if obstacle == "cache is a file":
        own_cache.write_text("in the way")
    elif obstacle == "a digest is damaged":
        file_digests(files)
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            assert connection.execute("UPDATE digests SET digest = 5").rowcount == len(files)
    else:
        own_cache.mkdir()
        database.write_bytes(b"garbage" * 1000 if obstacle == "not a database" else b"")
    if obstacle == "locked":
        database.chmod(0o400)
    assert file_digests(files) == file_digests(files) == truth(files)


def test_a_file_that_cannot_be_read_joins_to_nothing(files: list[str]) -> None:
    found = file_digests([files[0], "/absent/a.png", "/absent/b.png", files[1]])
    assert (found[0], found[3]) == truth(files[:2])
    assert len(set(found)) == 4
    assert all(len(digest) == 64 for digest in found)
