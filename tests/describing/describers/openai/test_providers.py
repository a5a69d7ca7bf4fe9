"""anthropic:MODEL, gemini:MODEL and ollama:MODEL: the client of openai:MODEL with another address and key."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import PROVIDERS
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.prices import FREE
from openai_cases import ask, request
from openai_stub import answer, serve

KEYS = {kind: f"{kind.upper()}_API_KEY" for kind in ("anthropic", "gemini", "ollama", "openai")}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS.values(), "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def load(spec: str, **options: Any) -> OpenAIDescriber:
    made = load_describer(DescriberOptions(describer=spec, **options))
    assert isinstance(made, OpenAIDescriber)
    return made


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        ("anthropic:claude-haiku-4-5", "https://api.anthropic.com/v1"),
        ("gemini:gemini-2.5-flash", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("ollama:qwen2.5vl:3b", "http://localhost:11434/v1"),
    ],
)
def test_each_has_its_address_its_key_and_its_price(spec: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, model = spec.partition(":")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:1/v1")
    if PROVIDERS[kind].needs_key:
        with pytest.raises(ConfigError, match=f"{KEYS[kind]} is not set"):
            load(spec)
    monkeypatch.setenv(KEYS[kind], "key-of-its-own")
    made = load(spec)
    assert (made.settings["server"], made.settings["model"]) == (url, model)
    assert made.price is not None and (made.price == FREE) == (kind == "ollama")
    with serve(lambda _: answer("a red square")) as stub:
        (found,) = ask(load(f"{kind}:tiny", base_url=stub.url), request())
    assert found.text == "a red square" and stub.calls[0].path == "/v1/chat/completions"
    assert stub.calls[0].headers["authorization"] == "Bearer key-of-its-own"
    same = load(f"openai:{model}", base_url=url).settings
    assert same == made.settings, "an answer is paid for once, however it is asked"
    with pytest.raises(ConfigError, match=f"{kind}:MODEL needs the name of a model, .* e.g. {kind}:"):
        load(f"{kind}:")
