"""Atomic writes: the old file or the new one, never half of one."""

import errno
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gpt4image.base.errors import DamagedError, RunError
from gpt4image.base.files import (
    append_json_line,
    atomic_path,
    open_npy,
    read_json,
    read_json_lines,
    read_parquet,
    require_writable,
    staging_folder,
    write_json,
    write_json_lines,
    write_parquet,
    write_text,
)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, math.nan)
    require_writable(path)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, number in (("folder", errno.EISDIR), ("pipe", errno.EINVAL)):
        with pytest.raises(OSError, match=name) as caught, atomic_path(tmp_path / name):
            raise AssertionError("no work before it")
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))


def test_links_and_rights_stay(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder/file")
    (tmp_path / "folder").mkdir()
    for value in (1, 2):  # the file is not there yet, and is
        write_json(tmp_path / "link", value)
        assert (tmp_path / "link").is_symlink() and read_json(tmp_path / "folder" / "file") == value
    (tmp_path / "secret").touch(0o600)
    before = os.umask(0o027)
    try:
        for name in ("secret", "new"):
            write_text(tmp_path / name, "x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("secret", "new")] == [0o600, 0o640]


def test_a_last_line_that_a_crash_cut_is_dropped_and_a_broken_one_between_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_json_lines(path, [{"a": 1}, {"b": "é\n"}])
    append_json_line(path, 3)
    assert read_json_lines(path) == [{"a": 1}, {"b": "é\n"}, 3]
    whole = path.read_text()
    path.write_text(whole + '{"half')
    assert read_json_lines(path) == [{"a": 1}, {"b": "é\n"}, 3]
    write_json_lines(path, ["a\u2028b\x85c"])
    assert read_json_lines(path) == ["a\u2028b\x85c"], "these are text, not line ends"
    path.write_text('{"half\n' + whole)
    with pytest.raises(ValueError, match="Unterminated") as caught:
        read_json_lines(path)
    assert isinstance(caught.value, RunError) and f"{path} is damaged: its line 1" in str(caught.value)


def test_what_is_staged_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / f".staging.{os.getpid()}.tmp").mkdir(parents=True)  # of one that was killed in a container
    with staging_folder(place) as staging:
        write_text(staging / "card.md", "a card")
        write_text(staging / "model" / "config.json", "{}")
        assert not (place / "card.md").exists()
    assert (place / "card.md").read_text(encoding="utf-8") == "a card"
    with pytest.raises(RuntimeError, match="half"), staging_folder(place) as staging:
        write_text(staging / "other.md", "half a card")
        raise RuntimeError("half a card")
    assert sorted(path.name for path in place.iterdir()) == ["card.md", "model"]
    assert (place / "model" / "config.json").stat().st_mode & 0o044 == 0o044, "others may read it"


@pytest.mark.parametrize(
    "text", ["{", "", "\xff{}", "NaN", "[-Infinity]", '{"a": 1e999}', "1" + "0" * 400, "[" * 101 + "]" * 101]
)
def test_a_damaged_file_or_json_that_no_record_holds_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(DamagedError, match=r"a\.json is damaged: it is no JSON"):
        read_json(tmp_path / "a.json")


def test_arrays_that_are_cut_longer_or_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.int64))
    assert open_npy(path, np.int64, (6,)).tolist() == list(range(6))
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:70], whole.replace(b"<i8", b"|O8"), b"PK\x03\x04" + whole):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"a\.npy is damaged"):
            open_npy(path, np.int64, (6,))
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match=r"holds int64 \(6,\), not int64 \(7,\)"):
        open_npy(path, np.int64, (7,))
    with pytest.raises(DamagedError, match="cannot be read"):
        open_npy(tmp_path / "gone.npy", np.int64, (6,))


def test_parquet_that_is_no_parquet_or_lacks_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key=1" / "a.parquet"  # what other readers take for a column
    write_parquet(path, pa.table({"x": [1, 2], "y": ["a", "b"]}))
    assert read_parquet(path).to_pydict() == {"x": [1, 2], "y": ["a", "b"]}
    assert read_parquet(path, ["y"]).to_pydict() == {"y": ["a", "b"]}
    with pytest.raises(DamagedError, match="it has no column 'z'"):
        read_parquet(path, ["x", "z"])
    for content in (b"", b"PAR1", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="cannot be read as Parquet"):
            read_parquet(path)


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX alone")
def test_a_new_name_is_on_disk_when_a_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_json(tmp_path / "a.json", 1)
    assert flushed[0].name.startswith(".a.json.") and flushed[1:] == [tmp_path]
    flushed.clear()
    with staging_folder(tmp_path / "place") as staging:
        write_text(staging / "model" / "b", "b")
    assert flushed[-1] == tmp_path / "place" and any(path.name == "model" for path in flushed)


@pytest.mark.skipif(os.name != "posix", reason="fork")
def test_the_next_writer_of_a_place_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with atomic_path(tmp_path / "a.json"), staging_folder(tmp_path):
            os._exit(9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    kept = [".notes.tmp", ".a.json.mine.tmp", f".a.json.{os.getppid()}.tmp", f".b.json.{child}.tmp"]
    for name in kept:
        (tmp_path / name).touch()
    write_json(tmp_path / "a.json", 1)
    with staging_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.json"])


def test_a_full_disk_names_the_file_and_no_temporary_one(tmp_path: Path) -> None:
    for error in (OSError("5 requested and 1 written"), OSError(errno.ENOSPC, "full", str(tmp_path / ".a.7.tmp"))):
        with pytest.raises(OSError, match="No space left") as caught, atomic_path(tmp_path / "a"):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError, match="other"), atomic_path(tmp_path / "a"):
        raise FileNotFoundError(errno.ENOENT, "not there", "other")
