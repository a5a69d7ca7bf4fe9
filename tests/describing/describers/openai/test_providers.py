"""anthropic:MODEL, gemini:MODEL and ollama:MODEL: the client of openai:MODEL with another address and key."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError
from gpt4image.config import DescriberOptions
from gpt4image.describing.answer_json import Parsed, parse_answer
from gpt4image.describing.class_lists import ClassNames
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import PROVIDERS
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.prices import FREE
from gpt4image.describing.questions import asking_for, schema_of
from openai_cases import ask, request
from openai_stub import Call, Reply, answer, failure, serve

KEYS = {
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    "openai": "OPENAI_API_KEY",
}


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
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-its-own")
    assert load(f"openai:{model}", base_url=url).settings == made.settings, (
        "an answer is paid for once, however it is asked"
    )
    with pytest.raises(ConfigError, match=f"{kind}:MODEL needs the name of a model, .* e.g. {kind}:"):
        load(f"{kind}:")


@pytest.mark.parametrize("kind", [*KEYS])
def test_only_its_own_key_is_sent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other, name in KEYS.items():
        monkeypatch.setenv(name, f"key-of-{other}")
    with serve(lambda _: answer("a red square")) as stub:
        (found,) = ask(load(f"{kind}:tiny", base_url=stub.url), request())
    assert found.text == "a red square" and stub.calls[0].path == "/v1/chat/completions"
    assert stub.calls[0].headers["authorization"] == f"Bearer key-of-{kind}"


def test_a_server_that_knows_no_structure_still_brings_structured_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anthropic's endpoint ignores response_format and logprobs; Google's may refuse a field by its name."""

    def told(call: Call) -> Reply:
        if "logprobs" in call.body:
            return failure(400, 'Invalid JSON payload received. Unknown name "logprobs": Cannot find field.')
        return answer('Here it is:\n```json\n{"class": "oak", "second": null, "confidence": 0.9}\n```')

    monkeypatch.setenv("GEMINI_API_KEY", "key-of-its-own")
    prompt = asking_for(Prompt("paper", 1, "Describe it.", False), ("class",), [("oak", ""), ("elm", "")])  # type: ignore[list-item]
    with serve(told) as stub:
        maker = load("gemini:tiny", base_url=stub.url)
        found = ask(maker, *(request(n, prompt=prompt, schema=schema_of(prompt)) for n in range(3)))
    parsed = [parse_answer(one.text or "", prompt, ClassNames(["oak", "elm"])) for one in found]
    assert [isinstance(one, Parsed) and one.answer.class_name for one in parsed] == ["oak"] * 3
    assert 4 <= len(stub.calls) <= 6, "the field is refused by calls that are on their way together, and then left out"
