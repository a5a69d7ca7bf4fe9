"""The describer against a server in this process: what is sent, which address and key, and how a run ends."""

from __future__ import annotations

import base64
import io
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import openai_stub as server
from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.describers.openai import describer as calls
from gpt4image.describing.describers.openai import describer as openai_server
from gpt4image.describing.describers.openai import limiter
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import find_server
from gpt4image.describing.prices import FREE, Price
from openai_cases import KEY, PROMPT, ask, ask_one, describer, facts, openai_settings, picture, request

__all__ = ["openai_settings"]
pytestmark = pytest.mark.usefixtures("openai_settings")


# What is sent and what comes back


def test_one_image_is_described() -> None:
    answers, stub = ask_one(
        lambda call: server.answer("a red square", tokens=(120, 7)),
        system="Be exact.",
        temperature=0.5,
        max_tokens=99,
        max_side=32,
        extra_body={"seed": 3},
    )
    (answer,) = answers
    assert (answer.text, answer.error, answer.finish_reason) == ("a red square", None, "stop")
    assert (answer.tokens_in, answer.tokens_out, answer.cost_usd) == (120, 7, 0.0)
    assert 0 < (answer.latency_s or 0) < 5
    (call,) = stub.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    body = call.body
    url = body["messages"][1]["content"][0].pop("image_url")["url"]
    assert body == {
        "model": "tiny",
        "max_tokens": 99,
        "temperature": 0.5,
        "seed": 3,
        "messages": [
            {"role": "system", "content": "Be exact."},
            {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": PROMPT.text}]},
        ],
    }
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 24)


def test_what_is_not_chosen_is_not_sent() -> None:
    (_, stub), (_, low) = (
        ask_one(lambda call: server.answer("x"), system=""),
        ask_one(lambda call: server.answer("x"), detail="low"),
    )
    (message,) = stub.calls[0].body["messages"]
    assert message["content"][0]["image_url"].keys() == {"url"}
    assert stub.calls[0].body.keys() == {"model", "max_tokens", "messages"}
    assert low.calls[0].body["messages"][1]["content"][0]["image_url"]["detail"] == "low"


def test_a_conversation_is_one_answer() -> None:
    def reply(call: server.Call) -> server.Reply:
        said = [m["content"] for m in call.body["messages"] if m["role"] == "assistant"]
        return server.answer(f"part {len(said) + 1}", tokens=(100 + len(said), 10), finish="length" if said else "stop")

    question = request(turns=("One?", "Two?", "Three?"))
    answers, stub = ask_one(reply, question, concurrency=1)
    assert {answer.text for answer in answers} == {"part 1\n\npart 2\n\npart 3"}
    assert {answer.finish_reason for answer in answers} == {"length"}
    assert {(answer.tokens_in, answer.tokens_out) for answer in answers} == {(303, 30)}
    last = stub.calls[-1].body["messages"]
    assert [m["content"] for m in last[2:]] == ["part 1", "Two?", "part 2", "Three?"]


# Images


def gone() -> bytes:
    raise OSError("gone")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda: b"no image", "cannot be decoded: "),
        (lambda: picture()[:60], "cannot be decoded: "),
        (gone, "cannot be read: gone"),
    ],
)
def test_what_cannot_be_read_or_decoded_is_never_sent(read: Any, reason: str) -> None:
    answers, stub = ask_one(lambda call: server.answer("x"), request(read=read))
    assert (answers[0].error or "").startswith(reason)
    assert stub.count == 0


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
    assert server.one_line("key=SECRET-and-more user=SECRET") == "key=*** user=***"


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


def test_a_fault_is_counted_by_its_kind() -> None:
    with server.serve(lambda call: server.failure(503) if call.number == 0 else server.answer("fine")) as stub:
        maker = describer(stub.url)
        (answer,) = ask(maker, request())
    assert (answer.text, answer.error) == ("fine", None)
    assert facts(maker) == {"calls": 2, "calls_per_answer": 2.0, "faults": {"503": 1}}


# What a run that stops has paid for


TURNS = ("One?", "Two?")


NO_QUOTA = server.failure(429, f"no quota for {KEY}", "insufficient_quota")


def second_turn(call: server.Call) -> bool:
    return any(message["role"] == "assistant" for message in call.body["messages"])


def test_the_first_turn_is_accounted_for_where_the_second_stops_the_run() -> None:
    with server.serve(lambda call: NO_QUOTA if second_turn(call) else server.answer("A cat.")) as stub:
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match="quota"):
            for group in describer(stub.url, concurrency=1).describe([request(turns=TURNS)]):
                answers += group
    (answer,) = answers
    assert (answer.text, answer.error) == (None, "HTTP 429: no quota for ***")
    assert (answer.tokens_in, answer.tokens_out) == (100, 10)


def test_what_waits_for_another_turn_or_try_is_accounted_for_where_another_call_stops_the_run() -> None:
    paid = server.json_reply({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}, delay=0.05)

    def reply(call: server.Call) -> server.Reply:
        if call.number < 6:
            return server.answer("A cat.", delay=0.2) if call.number % 2 else paid
        return NO_QUOTA

    with server.serve(reply) as stub:
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match="quota"):
            for group in describer(stub.url, concurrency=6).describe(request(n, turns=TURNS) for n in range(6)):
                answers += group
    assert sum(answer.tokens_in or 0 for answer in answers) == 6 * 100
    assert all(answer.error for answer in answers)
    assert len({answer.request.digest for answer in answers}) == len(answers)


def test_what_is_given_up_in_flight_is_accounted_for() -> None:
    def reply(call: server.Call) -> server.Reply:
        return server.answer("A cat.", delay=60.0 if second_turn(call) else 0.0)

    with server.serve(reply) as stub:
        maker = describer(stub.url, concurrency=3)
        running = maker.describe([request(0), *(request(number, turns=TURNS) for number in (1, 2))])
        came = list(next(iter(running)))
        deadline = time.monotonic() + 5
        while stub.count < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        running.close()  # type: ignore[attr-defined]
        came += maker.arrived()
    assert sorted((answer.error or "", answer.tokens_in) for answer in came) == [
        ("", 100),
        *[("the run was stopped before the answer was complete", 100)] * 2,
    ]


def test_a_key_that_no_header_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds characters") as caught:
        find_server("http://localhost:1/v1")
    assert "sk-" not in str(caught.value)


def test_a_server_that_is_closed_for_a_day_stops_the_run_and_says_when_to_go_on() -> None:
    closed = server.failure(429, "daily limit", retry_after="86400")
    with server.serve(lambda call: server.answer("fine") if call.number < 2 else closed) as stub:
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match=r"no more calls for 1 day, 0:00:00 \(HTTP \d+: daily limit\)"):
            for group in describer(stub.url, concurrency=1).describe(map(request, range(10))):
                answers += group
    assert len(answers) == 2 and stub.count == 3


def test_a_run_that_is_held_says_how_long_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calls, "_UNTOLD_S", 0.3)
    held = server.failure(429, "too many", retry_after_ms="900")
    with server.serve(lambda call: held if call.number == 1 else server.answer("fine")) as stub:
        ask(describer(stub.url, concurrency=1), *map(request, range(3)))
    told = " ".join(capsys.readouterr().err.split())
    assert "No call is sent for 1 s" in told and "HTTP 429: too many (the server asks for 1 s)" in told


def test_an_address_without_v1_is_hinted_at() -> None:
    with (
        server.serve(lambda call: server.Reply(404, b"Not Found")) as stub,
        pytest.raises(DescriberError, match="end in /v1"),
    ):
        ask(describer(stub.url.removesuffix("/v1")), request())


@pytest.mark.parametrize(
    ("good", "reason", "least"), [(0, "rejects every image .*no vision", 8), (5, "rejects the last 50 images", 55)]
)
def test_a_server_that_rejects_every_image_stops_the_run(good: int, reason: str, least: int) -> None:
    def reply(call: server.Call) -> server.Reply:
        return server.answer("x") if call.number < good else server.failure(400, "no vision")

    with server.serve(reply) as stub:
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match=reason):
            for group in describer(stub.url, concurrency=2).describe(map(request, range(1000))):
                answers += group
    assert least <= len(answers) <= stub.count <= least + 4


def test_a_port_where_nobody_listens_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "UNREACHABLE_S", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(DescriberError, match="is it running"):
            ask(describer(url), *map(request, range(100)))
