"""Files that are no readable image are counted by extension: pictures as skipped items, others in a note."""

from __future__ import annotations

import pytest

from gpt4image.data.other_files import other_files


def test_pictures_are_skipped_items_and_other_files_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = other_files({".cr2": 2, ".psd": 1, ".txt": 1200, "": 3}, "folder:photos-with-others")
    assert [item.name for item in skipped] == ["2 *.cr2", "1 *.psd"]
    assert all("save them as JPEG or PNG" in item.reason for item in skipped)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "folder:photos-with-others: files left out, since they are no images: 3 no extension, 1,200 .txt." in said


def test_nothing_is_said_of_a_folder_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert other_files({}, "folder:clean") == ()
    assert "".join(capsys.readouterr()) == ""
