"""The describer against a server in this process: what is sent, which address and key, and how a run ends."""

import base64
import re
from typing import Any

import pytest

import openai_stub as server
from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.describers.openai import describer as calls
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import PROVIDERS, find_server
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.prices import FREE, Price
from openai_cases import KEY, PROMPT, ask, ask_one, describer, request

# What is sent and what comes back


def test_one_image_is_described_with_what_was_chosen_and_nothing_else() -> None:
    chosen = {"system": "Be exact.", "temperature": 0.5, "max_tokens": 99, "max_side": 32, "extra_body": {"seed": 3}}
    (answer,), stub = ask_one(lambda call: server.answer("a red square", tokens=(120, 7)), **chosen, detail="low")
    assert (answer.text, answer.error, answer.finish_reason) == ("a red square", None, "stop")
    assert (answer.tokens_in, answer.tokens_out, answer.cost_usd) == (120, 7, 0.0) and 0 < (answer.latency_s or 0) < 5
    (call,) = stub.calls
    assert call.path == "/v1/chat/completions" and call.headers["authorization"] == f"Bearer {KEY}"
    shown = call.body["messages"][1]["content"][0].pop("image_url")
    content = [{"type": "image_url"}, {"type": "text", "text": PROMPT.text}]
    messages = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": content}]
    assert call.body == {"model": "tiny", "max_tokens": 99, "temperature": 0.5, "seed": 3, "messages": messages}
    assert shown["url"].startswith("data:image/jpeg;base64,") and shown["detail"] == "low"
    assert call.pictures[0].size == (32, 24)
    _, stub = ask_one(lambda call: server.answer("x"), system="")
    assert stub.calls[0].body.keys() == {"model", "max_tokens", "messages"}
    (message,) = stub.calls[0].body["messages"]
    assert message["content"][0]["image_url"].keys() == {"url"}


# Identity, address and price


def test_the_identity_holds_no_secret_and_nothing_of_speed() -> None:
    maker = describer("http://user:pass-word@localhost:1/v1/?key=hidden", concurrency=99, timeout=7, retries=1)
    same = describer("http://localhost:1/v1")
    assert maker.settings == same.settings and maker.settings["server"] == "http://localhost:1/v1"
    assert describer("http://localhost:1/v1", server_name="lab").settings["server"] == "lab"
    names = "kind model server system temperature max_tokens max_side image_format detail extra_body"
    assert same.settings.keys() == set(names.split()) and not maker.repeatable


def test_secrets_of_an_address_are_shown_in_no_spelling_and_nothing_else_is_hidden() -> None:
    found = find_server("http://SECRET%2Ftoken:pass-word-SECRET@localhost:1/v1?api-key=QUERY/SECRET+12%3D&version=3")
    login = base64.b64encode(b"SECRET/token:pass-word-SECRET").decode()
    for text in (
        *("/v1?api-key=QUERY/SECRET%2012%3D", "QUERY/SECRET 12=", "QUERY%2FSECRET%2012%3D", "SECRET/token"),
        *("SECRET%2Ftoken", "pass-word-SECRET", f"Basic {login}", f"{KEY}, pass-word-SECRET"),
    ):
        shown = found.one_line(f"no {text}, version=3")
        assert "***" in shown and "version=3" in shown
        assert not any(secret in shown for secret in ("SECRET", "token", login, KEY))
    found = find_server("http://me@localhost:1/v1?api-version=2024-10-21&deployment=gpt-4.1-mini&n=3#key=anything")
    assert found.secrets == (KEY,)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("me:pass-word@localhost:8000/v1?api-key=SECRET", {}, "--base-url localhost:8000/v1: write"),
        *((url, {}, "http://localhost:8000/v1") for url in ("localhost:8000", "ftp://x/v1", "http://", "http://[::1")),
        ("http://x:port/v1", {}, "http://localhost:8000/v1"),
        ("http://localhost:1/v1", {"extra_body": {"messages": 2}}, "leave it out"),
        ("http://localhost:1/v1", {"extra_body": {"n": 2}}, "leave it out"),
        ("http://localhost:1/v1", {"extra_body": {"max_completion_tokens": 2}}, "see --max-tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        describer(url, **options)
    assert "SECRET" not in str(caught.value) and "pass-word" not in str(caught.value)


def test_the_key_the_client_and_a_model_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="name of a model"):
        OpenAIDescriber("", DescriberOptions(describer="openai:"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds characters") as caught:
        find_server("http://localhost:1/v1")
    assert "sk-" not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAIDescriber("gpt-4o-mini", DescriberOptions(describer="openai:gpt-4o-mini"))
    with server.serve(lambda call: server.answer("x")) as stub:  # others need no key
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        (answer,) = ask(OpenAIDescriber("tiny", DescriberOptions(describer="openai:tiny")), request())
    assert answer.text == "x" and KEY not in stub.calls[0].headers["authorization"]
    monkeypatch.setattr(calls, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[api\]'"):
        describer("http://localhost:1/v1")


def test_a_private_address_is_free_unless_it_is_a_gateway_to_openai() -> None:
    def price_at(url: str, **options: Any) -> Price | None:
        return OpenAIDescriber("gpt-4o-mini", DescriberOptions(describer="openai:x", base_url=url, **options)).price

    assert describer("http://localhost:1/v1").price == FREE
    assert describer("http://models.example.com/v1").price is None
    assert price_at("http://litellm:4000/v1") == price_at("https://api.openai.com/v1") != FREE
    assert price_at("http://models.example.com/v1", price=(0.4, 1.6)) == Price(0.4, 1.6)


# How a run ends

CLOSED = server.failure(429, "daily limit", retry_after="86400")


@pytest.mark.parametrize(
    ("good", "bad", "reason", "least", "most"),
    [
        (2, CLOSED, r"no calls for 1 day, 0:00:00 \(HTTP \d+: daily limit\)", 2, 3),
        (0, server.failure(400, "no vision"), "rejects every image .*no vision", 8, 12),
        (5, server.failure(400, "no vision"), "rejects the last 50 images", 55, 59),
        (0, server.Reply(404, b"Not Found"), "end in /v1", 0, 2),
    ],
)
def test_what_every_call_meets_stops_the_run_and_keeps_what_came(
    good: int, bad: server.Reply, reason: str, least: int, most: int
) -> None:
    with server.serve(lambda call: server.answer("x") if call.number < good else bad) as stub:
        answers: list[Answer] = []
        url = stub.url.removesuffix("/v1") if bad.status == 404 else stub.url
        with pytest.raises(DescriberError, match=reason):
            ask(describer(url, concurrency=2), *map(request, range(200)), into=answers)
    assert least <= len(answers) and stub.count <= most


def test_a_run_that_is_held_says_how_long_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calls, "_UNTOLD_S", 0.3)
    held = server.failure(429, "too many", retry_after_ms="900")
    with server.serve(lambda call: held if call.number == 1 else server.answer("fine")) as stub:
        ask(describer(stub.url, concurrency=1), *map(request, range(3)))
    told = " ".join(capsys.readouterr().err.split())
    assert "No call is sent for 1 s" in told and "HTTP 429: too many (the server asks for 1 s)" in told


# Other providers

KEYS = {kind: f"{kind.upper()}_API_KEY" for kind in ("anthropic", "gemini", "ollama", "openai")}


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
    monkeypatch.delenv(KEYS[kind], raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:1/v1")
    if PROVIDERS[kind].needs_key:
        with pytest.raises(ConfigError, match=f"{KEYS[kind]} is not set"):
            load(spec)
    monkeypatch.setenv(KEYS[kind], "key-of-its-own")
    made = load(spec)
    assert (made.settings["server"], made.settings["model"]) == (url, model)
    assert made.price is not None and (made.price == FREE) == (kind == "ollama")
    with server.serve(lambda _: server.answer("a red square")) as stub:
        (found,) = ask(load(f"{kind}:tiny", base_url=stub.url), request())
    assert found.text == "a red square" and stub.calls[0].path == "/v1/chat/completions"
    assert stub.calls[0].headers["authorization"] == "Bearer key-of-its-own"
    same = load(f"openai:{model}", base_url=url).settings
    assert same == made.settings, "an answer is paid for once, however it is asked"
    with pytest.raises(ConfigError, match=f"{kind}:MODEL needs the name of a model, .* e.g. {kind}:"):
        load(f"{kind}:")
