"""Manifests: what changed in a folder since it was written is named."""

from pathlib import Path

import pytest

from gpt4image.base.errors import DamagedError, FormatError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.manifest import MANIFEST, adding, faults, read_manifest, require_whole, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"abc")
    write_manifest(tmp_path / MANIFEST, ["a.bin"], {"fact": 1})
    return tmp_path


def test_a_listed_file_that_changed_or_is_gone_is_named(folder: Path) -> None:
    require_whole(folder)
    assert read_manifest(folder / MANIFEST)["fact"] == 1
    for content, fault in ((b"abd", "its content has changed"), (None, "it is missing")):
        (folder / "a.bin").unlink()
        if content:
            (folder / "a.bin").write_bytes(content)
        assert dict(faults(folder / MANIFEST)) == {folder / "a.bin": fault}
        with pytest.raises(DamagedError, match=r"a\.bin is damaged"):
            require_whole(folder)


def test_a_file_that_is_written_anew_is_listed_only_while_it_is_whole(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), adding(folder, ["a.bin", "b.bin"]):
        raise KeyboardInterrupt
    assert read_manifest(folder / MANIFEST)["files"] == {}
    with adding(folder, ["b.bin"]):
        (folder / "b.bin").write_bytes(b"new")
    assert [path.name for path, fault in faults(folder / MANIFEST) if not fault] == ["b.bin"]


@pytest.mark.parametrize("files", [["a"], None, {"../a": ""}, {"/a": ""}])
def test_a_list_that_is_malformed_or_leads_out_is_refused(folder: Path, files: object) -> None:
    write_json(folder / MANIFEST, read_json(folder / MANIFEST) | {"files": files})
    with pytest.raises(DamagedError, match="it lists"):
        require_whole(folder)
    write_json(folder / MANIFEST, {"format": 9, "files": {}})
    with pytest.raises(FormatError, match="is of format 9"):
        require_whole(folder)
