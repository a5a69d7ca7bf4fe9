"""What doctor says of this machine: all extras, no secret."""

import json

import pytest

from gpt4image import cli
from gpt4image.base.errors import install_command
from gpt4image.reporting import doctor
from repository import DEVELOPMENT, EXTRAS, PROJECT


def test_all_extras_and_packages_are_told_how_to_get_what_is_missing_and_keys_only_as_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:password@host/v1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert cli.main(["doctor", "--json"]) == cli.OK
    facts = capsys.readouterr().out
    told = json.loads(facts)
    assert told["extras"].keys() == EXTRAS.keys() - DEVELOPMENT
    assert len(told["packages"]) == len(PROJECT["dependencies"]) and all(told["packages"].values())
    assert told["extras"]["hf"].endswith("installed") and told["machine"]["device"]
    assert (told["environment"]["OPENAI_API_KEY"], told["environment"]["HF_TOKEN"]) == ("set", "not set")
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("datasets", "timm") else known(name))
    assert cli.main(["doctor"]) == cli.OK
    shown = capsys.readouterr().out
    assert install_command("hf") in shown and "timm                   MISSING" in shown
    assert not any(secret in page for page in (facts, shown) for secret in ("secret", "password"))
