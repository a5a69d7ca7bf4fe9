"""Files as images: only whole regular files are read, and names and paths are told apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from gpt4image.data import file_source
from gpt4image.data.file_source import (
    FileSource,
    files_below,
    locate_all,
    pictures_below,
    read_bounded,
)


def test_bytes_and_digests_are_those_of_the_files_whatever_the_folder_is_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    monkeypatch.chdir(tmp_path.parent)
    source = FileSource(Path(tmp_path.name), ["c", "a"])
    monkeypatch.chdir("/")
    assert [source.read(row) for row in (0, 1)] == [b"ccc", b"aaa"]
    assert source.digests(np.array([1, 0])) == tuple(hashlib.sha256(part).hexdigest() for part in (b"aaa", b"ccc"))


def test_a_file_is_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    monkeypatch.setattr(file_source, "MAX_FILE_BYTES", 10)
    assert read_bounded(str(tmp_path / "a")) == bytes(10)
    monkeypatch.setattr(file_source, "MAX_FILE_BYTES", 9)
    with pytest.raises(OSError, match="the file has 10 bytes, more than the allowed 9"):
        read_bounded(str(tmp_path / "a"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_bounded(str(tmp_path / "pipe"))


def test_paths_are_found_below_a_folder_or_said_why_not(tmp_path: Path) -> None:
    (tmp_path / "set/in").mkdir(parents=True)
    for name in ("set/in/1.PNG", "set/in/2.txt", "set/in/.3.png", "outside.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "set/link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "set/inner.png").symlink_to("in/1.PNG")
    given = [
        "in/1.PNG",
        "in/../in/1.PNG",
        "inner.png",
        "link.png",
        "../outside.png",
        "in",
        "none.png",
        "",
        "a\0b",
        "\ud800",
    ]
    found = locate_all(tmp_path / "set", given)
    assert [path for path, _ in found] == ["in/1.PNG"] * 3 + [""] * 7
    reasons = [
        "leads out",
        "leads out",
        "is not a file",
        "cannot be found",
        "its path is empty",
        "no path may",
        "no path may",
    ]
    assert [part in fault for part, (_, fault) in zip(reasons, found[3:], strict=True)] == [True] * 7
    assert files_below(tmp_path / "set", tmp_path / "set") == ["inner.png", "link.png", "in/1.PNG", "in/2.txt"]
    assert pictures_below(tmp_path / "set", tmp_path / "set/in") == ["in/1.PNG"]
