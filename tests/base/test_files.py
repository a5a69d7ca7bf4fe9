"""Atomic writes: the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import RunError
from gpt4image.base.files import (
    append_json_line,
    atomic_path,
    fingerprint,
    read_json,
    read_json_lines,
    require_writable,
    staging_folder,
    write_json,
    write_json_lines,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, math.nan)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, number in (("folder", errno.EISDIR), ("pipe", errno.EINVAL)):
        with pytest.raises(OSError, match=name) as caught, atomic_path(tmp_path / name):
            raise AssertionError("no work before it")
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder/file")
    (tmp_path / "folder").mkdir()
    for value in (1, 2):  # the file is not there yet, and is
        write_json(tmp_path / "link", value)
        assert (tmp_path / "link").is_symlink() and read_json(tmp_path / "folder" / "file") == value
    assert len(list(tmp_path.iterdir())) == 2


def test_rights_are_those_of_the_file_before_or_of_any_new_one(tmp_path: Path) -> None:
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
    path.write_text('{"half\n' + whole)
    with pytest.raises(ValueError, match="Unterminated") as caught:
        read_json_lines(path)
    assert isinstance(caught.value, RunError) and f"{path} is damaged: its line 1" in str(caught.value)


def test_a_damaged_file_is_named_to_those_who_know_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"{", b"", b"\xff{}"):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"is no JSON.*it is damaged") as caught:
            read_json(path)
        assert str(path) in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_place_that_cannot_be_written_is_called_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    for write in (require_writable, lambda path: write_json(path, 1)):
        with pytest.raises(OSError, match="Permission denied") as caught:
            write(tmp_path / "a.json")
        assert caught.value.filename == str(tmp_path / "a.json")


@given(value=JSON)
def test_a_fingerprint_depends_on_the_content_and_not_on_the_order_of_keys(value: object) -> None:
    assert fingerprint({"a": value, "b": 1}) == fingerprint({"b": 1, "a": value})
    assert fingerprint({"a": value}) != fingerprint({"a": [value]})


def test_what_is_staged_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "place"
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
