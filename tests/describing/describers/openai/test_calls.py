"""Whatever a server does, the images that can be answered are answered, or the run stops with the reason."""

from __future__ import annotations

import socket
import time

import pytest

import openai_stub as server
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.describers.openai import calls, circuit_breaker
from gpt4image.describing.describers.openai.client import find_server
from openai_cases import KEY, ask, ask_one, describer, facts, openai_settings, request

__all__ = ["openai_settings"]
pytestmark = pytest.mark.usefixtures("openai_settings")


def test_a_fault_is_counted_by_its_kind() -> None:
    with server.serve(lambda call: server.failure(503) if call.number == 0 else server.answer("fine")) as stub:
        maker = describer(stub.url)
        (answer,) = ask(maker, request())
    assert (answer.text, answer.error) == ("fine", None)
    assert facts(maker) == {"calls": 2, "calls_per_answer": 2.0, "faults": {"503": 1}}


def test_what_a_malformed_answer_cost_is_counted() -> None:
    paid = server.json_reply({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 4}})
    answers, _ = ask_one(lambda call: paid if call.number == 0 else server.answer("fine", tokens=(40, 6)))
    assert (answers[0].tokens_in, answers[0].tokens_out) == (80, 10)


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
    assert told.count("No call is sent for 1 s") == 1 and "HTTP 429: too many (the server asks for 1 s)" in told


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
    monkeypatch.setattr(circuit_breaker, "UNREACHABLE_S", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(DescriberError, match="is it running"):
            ask(describer(url), *map(request, range(100)))
