"""What doctor says of this machine: all extras, no secret."""

from __future__ import annotations

import json

import pytest

from gpt4image import cli
from gpt4image.base.errors import install_command
from gpt4image.reporting import doctor
from project_file import DEVELOPMENT, EXTRAS, PROJECT


def test_all_extras_and_required_packages_are_told_and_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--json"]) == cli.OK
    told = json.loads(capsys.readouterr().out)
    assert told["extras"].keys() == EXTRAS.keys() - DEVELOPMENT
    assert len(told["packages"]) == len(PROJECT["dependencies"])
    assert all(told["packages"].values())
    assert told["extras"]["hf"]["missing"] == []
    assert told["machine"]["device"]
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("datasets", "timm") else known(name))
    assert cli.main(["doctor"]) == cli.OK
    shown = capsys.readouterr().out
    assert install_command("hf") in shown and "timm                   MISSING" in shown


def test_keys_are_told_as_set_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:password@host/v1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for words in (["doctor"], ["doctor", "--json"]):
        assert cli.main(words) == cli.OK
        told = capsys.readouterr().out
        assert "secret" not in told
        assert "password" not in told
    assert json.loads(told)["environment"]["OPENAI_API_KEY"] == "set"
    assert json.loads(told)["environment"]["HF_TOKEN"] == "not set"
