"""Models in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

from gpt4image.base.errors import first_line
from gpt4image.models.hugging_face import find_folder, without_progress_bars


def test_a_folder_is_itself_and_a_hub_id_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_folder(str(tmp_path), ("*.json",)) == tmp_path
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_folder("owner/model", ("*.json", "*.safetensors")) == tmp_path
    assert asked == [("owner/model", ["*.json", "*.safetensors"])]


@pytest.mark.parametrize("name", ["", "/nowhere/model", "./model", "a/b/c"])
def test_a_path_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(LookupError, match="give a folder or a Hugging Face id"):
        find_folder(name, ("*.json",))


def test_what_the_hub_does_not_give_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LookupError, match=r"no such folder here and Hugging Face does not give it \(.+\); check"):
        find_folder("owner/no-such-model", ("*.json",))


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_as_before_afterwards(shown: bool) -> None:
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        with pytest.raises(KeyError), without_progress_bars():
            assert not logging.is_progress_bar_enabled()
            raise KeyError
        assert logging.is_progress_bar_enabled() == shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_first_line_is_never_empty() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
