"""Files as images: what is read, what is found, and digests."""

import hashlib
import os
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


def test_digests_are_those_of_the_bytes_and_a_file_that_cannot_be_read_joins_to_nothing(tmp_path: Path) -> None:
    files = [str(tmp_path / f"ä {i}.bin") for i in range(1100)]  # several batches
    for i, file in enumerate(files):
        Path(file).write_bytes(b"%d" % i)
    assert file_digests(files) == tuple(hashlib.sha256(b"%d" % i).hexdigest() for i in range(1100))
    found = file_digests([files[0], "/absent/a.png", "/absent/b.png", files[0]])
    assert found[0] == found[3] and len(set(found)) == 3 and all(len(digest) == 64 for digest in found)
