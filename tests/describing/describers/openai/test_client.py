"""Which server is asked, with which key, and what may be known about it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

import openai_stub as server
from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.openai import describer as openai_server
from gpt4image.describing.describers.openai.client import find_server
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.untrusted import one_line
from gpt4image.describing.prices import FREE, Price
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


@pytest.mark.parametrize(
    ("before_host", "query", "echo"),
    [
        ("", "?api-key=QUERY/SECRET+12%3D", lambda call: call.path),
        ("", "?api-key=QUERY/SECRET+12%3D", lambda call: "api-key is QUERY/SECRET 12="),
        ("", "?api-key=QUERY/SECRET+12%3D", lambda call: "QUERY/SECRET+12%3D, QUERY%2FSECRET%2012%3D"),
        ("", "?api-key=QUERY/SECRET+12%3D", lambda call: call.path.partition("?")[2]),
        ("SECRET%2Ftoken@", "", lambda call: base64.b64decode(call.headers["authorization"][6:]).decode()),
        ("SECRET%2Ftoken@", "", lambda call: f"no user SECRET/token or SECRET%2Ftoken ({call.headers})"),
        (":pass-word-SECRET@", "", lambda call: str(call.headers)),
    ],
)
def test_no_secret_of_the_address_comes_back_in_what_is_kept(before_host: str, query: str, echo: Any) -> None:
    with server.serve(lambda call: server.failure(500, echo(call))) as stub:
        url = stub.url.replace("http://", f"http://{before_host}") + query
        (answer,) = ask(describer(url, retries=0), request())
    error = answer.error or ""
    assert "***" in error
    assert "SECRET" not in error and "token" not in error
    assert base64.b64encode(b"SECRET/token:").decode() not in error
    assert base64.b64encode(b":pass-word-SECRET").decode() not in error


def test_a_secret_inside_another_does_not_leave_its_rest() -> None:
    server = find_server("http://SECRET@localhost:1/v1?key=SECRET-and-more")
    assert one_line("key=SECRET-and-more user=SECRET", server.secrets) == "key=*** user=***"


def test_parameters_of_the_address_that_are_no_secrets_stay_readable() -> None:
    server = find_server("http://me@localhost:1/v1?api-version=2024-10-21&deployment=gpt-4.1-mini&n=3#key=anything")
    assert server.secrets == (KEY, base64.b64encode(b"me:").decode())


def test_an_address_that_is_none_is_shown_without_its_secrets() -> None:
    with pytest.raises(ConfigError, match="--base-url localhost:8000/v1: write") as caught:
        find_server("me:pass-word@localhost:8000/v1?api-key=QUERYSECRET")
    assert "QUERYSECRET" not in str(caught.value)


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
    with pytest.raises(MissingExtraError, match=r"pip install .*\[api\]'"):
        describer("http://localhost:1/v1")


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with server.serve(lambda call: server.answer("x")) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        maker = OpenAIDescriber("tiny", DescriberOptions(describer="openai:tiny"))
        assert ask(maker, request())[0].text == "x"


def test_a_private_address_is_free_unless_it_is_a_gateway_to_openai(tmp_path: Path) -> None:
    def price_at(url: str, **options: Any) -> Price | None:
        return OpenAIDescriber("gpt-4o-mini", DescriberOptions(describer="-", base_url=url, **options)).price

    assert describer("http://localhost:1/v1").price == FREE
    assert describer("http://models.example.com/v1").price is None
    assert price_at("http://litellm:4000/v1") == price_at("https://api.openai.com/v1") != FREE
    (tmp_path / "prices.json").write_text('{"gpt-4o-mini": {"input": 0, "output": 0}}')
    assert price_at("http://litellm:4000/v1", prices=tmp_path / "prices.json") == FREE


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("messages", "leave it out"),
        ("n", "leave it out"),
        ("max_tokens", "--max-tokens"),
        ("max_completion_tokens", "--max-tokens"),
    ],
)
def test_fields_that_are_set_anyway_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        describer("http://localhost:1/v1", extra_body={name: 2})


def test_a_model_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="name of a model"):
        OpenAIDescriber("", DescriberOptions(describer="openai:"))
