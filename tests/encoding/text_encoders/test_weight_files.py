"""Files of a text encoder: pickles are refused, and the revision is what the files hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.weight_files import folder_revision, refuse_pickles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "vocab.txt", "1_Pooling/config.json", "README.md"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_the_revision_knows_contents_and_names_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    revision = folder_revision(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("other words")
    assert folder_revision(copy) == revision
    (copy / "1_Pooling" / "config.json").write_text("{}")
    assert folder_revision(copy) != revision
    shutil.rmtree(copy / "1_Pooling")
    assert folder_revision(copy) != revision


def test_pickles_are_allowed_only_beside_the_safetensors_that_are_read_instead(folder: Path) -> None:
    (folder / "pytorch_model.bin").touch()
    refuse_pickles(folder)
    (folder / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match=r"adapter_model\.bin: pickled weights are never loaded"):
        refuse_pickles(folder)
