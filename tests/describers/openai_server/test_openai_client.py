"""Which server is asked, with which key, and what may be known about it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import openai_stub as server
from gpt4image.config import DescriberOptions
from gpt4image.describers.openai_server import describer as openai_server
from gpt4image.describers.openai_server.describer import OpenAIDescriber
from gpt4image.errors import ConfigError, DescriberError, MissingExtraError
from openai_cases import KEY, ask, ask_one, describer, openai_settings, request

__all__ = ["openai_settings"]
pytestmark = pytest.mark.usefixtures("openai_settings")


# Identity and address


def test_the_identity_holds_no_secret_and_nothing_of_speed() -> None:
    maker = describer("http://user:pass-word@localhost:1/v1/?key=hidden", concurrency=99, timeout=7, retries=1)
    same = describer("http://localhost:1/v1")
    assert maker.settings == same.settings
    assert maker.settings["server"] == "http://localhost:1/v1"
    assert describer("http://localhost:1/v1", server_name="lab").settings["server"] == "lab"
    assert same.settings.keys() == {
        *("kind", "model", "server", "system", "temperature", "max_tokens", "max_side", "image_format", "detail"),
        "extra_body",
    }
    assert not maker.repeatable


def test_login_and_query_of_the_address_are_sent_but_never_shown() -> None:
    with server.serve(lambda call: server.failure(401, "not user:pass-word")) as stub:
        url = stub.url.replace("http://", "http://user:pass-word@") + "?version=3"
        with pytest.raises(DescriberError) as caught:
            ask(describer(url), request())
    assert stub.calls[0].headers["authorization"] == "Basic " + base64.b64encode(b"user:pass-word").decode()
    assert stub.calls[0].path == "/v1/chat/completions?version=3"
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://[::1", "http://x:port/v1"])
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        describer(url)


def test_openai_needs_a_key_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAIDescriber("gpt-4o-mini", DescriberOptions(describer="openai:gpt-4o-mini"))
    answers, stub = ask_one(lambda call: server.answer("x"))
    assert answers[0].text == "x"
    assert KEY not in stub.calls[0].headers["authorization"]


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gpt4image\[api\]'"):
        describer("http://localhost:1/v1")


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with server.serve(lambda call: server.answer("x")) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        maker = OpenAIDescriber("tiny", DescriberOptions(describer="openai:tiny"))
        assert ask(maker, request())[0].text == "x"


def test_prices() -> None:
    assert describer("http://localhost:1/v1").price is not None
    assert describer("http://models.example.com/v1").price is None
    price = OpenAIDescriber("gpt-4o-mini", DescriberOptions(describer="openai:gpt-4o-mini")).price
    assert price is not None
    assert price.output > price.input > 0


@pytest.mark.parametrize("options", [{"extra_body": {"messages": []}}, {"extra_body": {"n": 2}}])
def test_fields_that_are_set_anyway_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        describer("http://localhost:1/v1", **options)


def test_a_model_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="name of a model"):
        OpenAIDescriber("", DescriberOptions(describer="openai:"))
