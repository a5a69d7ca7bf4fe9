"""Files reach a repository of the hub as one commit; a token is asked for first and is written nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt4image.base.errors import ExportError
from gpt4image.deploying.hub import push, require_login
from hub_server import Hub, serve_hub

TOKEN = "hf_secretOfTheTests"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub(TOKEN) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_files_are_one_commit_of_a_private_repository(hub: Hub, tmp_path: Path) -> None:
    require_login()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    url = push("me/model", {"README.md": tmp_path / "a", "model.bin": tmp_path / "b"}, message="first", out=tmp_path)
    assert url == f"{hub.url}/me/model"
    assert hub.files == {"me/model": {"README.md": b"a" * 1000, "model.bin": b"b" * 1000}}
    assert hub.private == {"me/model": True}
    push("me/model", {"README.md": tmp_path / "b"}, message="second", out=tmp_path)
    assert hub.files["me/model"]["README.md"] == b"b" * 1000, "a repository that is there gets another commit"
    assert hub.commits == ["first", "second"]


def test_without_a_token_the_error_says_how_to_get_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match=r"set HF_TOKEN, or give `hf auth login`"):
        require_login()


def test_a_token_that_is_refused_is_not_shown(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(ExportError, match="check HF_TOKEN") as login:
        require_login()
    for name in ("a", "a.md"):
        (tmp_path / name).write_bytes(b"a")
    with pytest.raises(ExportError, match="complete on this machine, but not at me/model") as pushed:
        push("me/model", {"README.md": tmp_path / "a"}, message="first", out=tmp_path)
    assert f"try `hf upload --private me/model {tmp_path}`" in str(pushed.value)
    with pytest.raises(ExportError, match="complete on this machine") as of_files:
        card = tmp_path / "a.md"
        push("me/model", {"a": tmp_path / "a", "README.md": card}, message="first", out=tmp_path / "a")
    both = f"`hf upload --private me/model {tmp_path / 'a'} a && hf upload --private me/model {card} README.md`"
    assert both in str(of_files.value), "the card of a file is beside it"
    assert "hf_expired" not in f"{login.value}{pushed.value}"
    assert hub.files == {}


def test_a_hub_that_is_not_there_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ExportError, match="does not answer as it should") as error:
        require_login()
    assert "\n" not in str(error.value) and TOKEN not in str(error.value)
