"""The describer against a server in this process: answers, faults, places in flight, and the end of a run."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import openai_stub as server
from gpt4image.config import DescriberOptions
from gpt4image.describers import Answer, Request, calls, health
from gpt4image.describers.openai_server import OpenAIDescriber
from gpt4image.errors import ConfigError, DescriberError
from gpt4image.store import Prompt

PROMPT = Prompt("paper", 1, "Describe it.", class_conditioned=False)
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(calls, "_BACKOFF_S", 0.01)


def picture(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, number // 256, 100)).save(file, "png")
    return file.getvalue()


def request(number: int = 0, **changes: Any) -> Request:
    fields = {"digest": f"{number:064x}", "keys": (f"{number}.png",), "prompt": PROMPT, "turns": (PROMPT.text,)}
    return Request(**{**fields, "read": lambda: picture(number), **changes})


def describer(url: str, **options: Any) -> OpenAIDescriber:
    return OpenAIDescriber("tiny", DescriberOptions(describer="openai:tiny", base_url=url, **options))


def ask(maker: OpenAIDescriber, *requests: Request) -> list[Answer]:
    return [answer for group in maker.describe(iter(requests)) for answer in group]


def one(handler: server.Handler, question: Request | None = None, **options: Any) -> tuple[list[Answer], server.Stub]:
    with server.serve(handler) as stub:
        return ask(describer(stub.url, **options), question or request()), stub


def facts(maker: OpenAIDescriber) -> dict[str, Any]:
    return dict(maker.report(None).facts)  # type: ignore[arg-type]


# What is sent and what comes back


def test_one_image_is_described() -> None:
    answers, stub = one(
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


def test_without_system_message_and_temperature_none_is_sent() -> None:
    _, stub = one(lambda call: server.answer("x"), system="")
    assert [message["role"] for message in stub.calls[0].body["messages"]] == ["user"]
    assert "temperature" not in stub.calls[0].body
    assert "n" not in stub.calls[0].body


@pytest.mark.parametrize(
    ("message", "text", "reason"),
    [
        ({"role": "assistant", "content": "a cat"}, "a cat", "stop"),
        ({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"text": " cat"}]}, "a cat", "stop"),
        ({"role": "assistant", "content": None, "refusal": "I cannot."}, "I cannot.", "refusal"),
        ({"role": "assistant", "content": None, "reasoning_content": "hm"}, "", "stop"),
    ],
)
def test_shapes_of_an_answer(message: dict[str, Any], text: str, reason: str) -> None:
    reply = server.json_reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    (answer,), _ = one(lambda call: reply)
    assert (answer.text, answer.finish_reason, answer.error) == (text, reason, None)
    assert answer.tokens_in is None


def test_a_conversation_is_one_answer() -> None:
    def reply(call: server.Call) -> server.Reply:
        said = [m["content"] for m in call.body["messages"] if m["role"] == "assistant"]
        return server.answer(f"part {len(said) + 1}", tokens=(100 + len(said), 10), finish="length" if said else "stop")

    question = request(turns=("One?", "Two?", "Three?"), samples=(0, 1))
    answers, stub = one(reply, question, concurrency=1)
    assert sorted(answer.sample for answer in answers) == [0, 1]
    assert {answer.text for answer in answers} == {"part 1\n\npart 2\n\npart 3"}
    assert {answer.finish_reason for answer in answers} == {"length"}
    assert {(answer.tokens_in, answer.tokens_out) for answer in answers} == {(303, 30)}
    last = stub.calls[-1].body["messages"]
    assert [m["content"] for m in last[2:]] == ["part 1", "Two?", "part 2", "Three?"]


def test_several_samples_of_one_call_share_its_cost(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"tiny": {"input": 1.0, "output": 10.0}}))
    answers, stub = one(
        lambda call: server.answer("a", "b", "c", tokens=(100, 31)), request(samples=(2, 5, 7)), prices=prices
    )
    assert stub.calls[0].body["n"] == 3
    assert {answer.sample: answer.text for answer in answers} == {2: "a", 5: "b", 7: "c"}
    assert sum(answer.tokens_in or 0 for answer in answers) == 100
    assert sum(answer.tokens_out or 0 for answer in answers) == 31
    assert sum(answer.cost_usd or 0 for answer in answers) == pytest.approx((100 + 310) / 1e6)


def test_a_server_that_ignores_n_is_asked_again() -> None:
    answers, stub = one(lambda call: server.answer(f"answer {call.number}"), request(samples=(0, 1, 2)))
    assert [call.body.get("n") for call in stub.calls] == [3, 2, None]
    assert {answer.text for answer in answers} == {"answer 0", "answer 1", "answer 2"}


# Images


@pytest.mark.parametrize("data", [b"", b"no image", picture()[:60]])
def test_what_cannot_be_decoded_is_never_sent(data: bytes) -> None:
    answers, stub = one(lambda call: server.answer("x"), request(read=lambda: data))
    assert (answers[0].error or "").startswith("cannot be decoded: ")
    assert stub.count == 0


def test_what_cannot_be_read_is_never_sent() -> None:
    def read() -> bytes:
        raise OSError("gone")

    answers, stub = one(lambda call: server.answer("x"), request(read=read))
    assert answers[0].error == "cannot be read: gone"
    assert stub.count == 0


# Faults


FAULTS = {
    "429": server.failure(429),
    "429 at a time": server.failure(429, retry_after="0.05"),
    "500": server.failure(500),
    "503": server.failure(503),
    "529": server.failure(529),
    "408": server.failure(408),
    "html": server.Reply(200, b"<html>hello</html>", {"content-type": "text/html"}),
    "no choices": server.answer(),
    "half of the JSON": server.Reply(200, b'{"choices": [{"mess'),
    "null": server.Reply(200, b"null"),
    "nothing": server.Reply(200, b""),
    "error in a 200": server.json_reply({"error": {"message": "no", "code": 502}}),
    "broken gzip": server.Reply(200, b"nonsense", {"content-encoding": "gzip"}),
    "closed": server.Reply(cut=0),
    "half a response": server.Reply(200, b"{}" * 100, cut=120),
    "bad status line": server.Reply(999, b""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_costs_one_more_call(fault: str) -> None:
    with server.serve(lambda call: FAULTS[fault] if call.number == 0 else server.answer("fine")) as stub:
        maker = describer(stub.url)
        (answer,) = ask(maker, request())
    assert (answer.text, answer.error) == ("fine", None)
    assert stub.count == 2
    assert facts(maker)["calls_per_answer"] == 2
    assert sum(facts(maker)["faults"].values()) == 1


@pytest.mark.parametrize("hang", [server.answer("late", delay=5.0), server.Reply(200, b"{}", {"content-length": "99"})])
def test_a_hang_ends_with_the_timeout(hang: server.Reply) -> None:
    began = time.monotonic()
    answers, stub = one(lambda call: hang if call.number == 0 else server.answer("fine"), timeout=0.3)
    assert answers[0].text == "fine"
    assert stub.count == 2
    assert time.monotonic() - began < 3


def test_the_budget_of_tries_is_kept_and_the_reason_named_without_the_key() -> None:
    answers, stub = one(lambda call: server.failure(500, f"bad day for {KEY}\n" + "x" * 999), retries=3)
    assert stub.count == 4
    error = answers[0].error or ""
    assert "HTTP 500: bad day for ***" in error
    assert "4 tries" in error
    assert KEY not in error
    assert len(error) < 330


def test_what_a_malformed_answer_cost_is_counted() -> None:
    paid = server.json_reply({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 4}})
    answers, _ = one(lambda call: paid if call.number == 0 else server.answer("fine", tokens=(40, 6)))
    assert (answers[0].tokens_in, answers[0].tokens_out) == (80, 10)


def test_retry_after_is_obeyed() -> None:
    _, stub = one(lambda call: server.failure(429, retry_after="1") if call.number == 0 else server.answer("fine"))
    assert stub.calls[1].time - stub.calls[0].time >= 1.0


def test_a_content_filter_settles_the_image() -> None:
    answers, stub = one(lambda call: server.failure(400, "flagged", "content_policy_violation"))
    assert (answers[0].text, answers[0].finish_reason, answers[0].error) == ("", "content_filter", None)
    assert stub.count == 1


def test_a_rejected_image_is_not_sent_again_and_others_go_on() -> None:
    def reply(call: server.Call) -> server.Reply:
        return server.failure(413, "too large") if call.number % 2 else server.answer("fine")

    with server.serve(reply) as stub:
        answers = ask(describer(stub.url, concurrency=2), *map(request, range(40)))
    assert stub.count == 40
    assert Counter(answer.error for answer in answers) == {None: 20, "HTTP 413: too large": 20}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (server.failure(401, f"Incorrect API key provided: {KEY}."), "OPENAI_API_KEY"),
        (server.failure(403, "no access"), "no access"),
        (server.failure(404, "The model `tiny` does not exist"), "model tiny"),
        (server.failure(429, "You exceeded your current quota", "insufficient_quota"), "quota"),
        (server.failure(402, "Insufficient credits"), "quota"),
    ],
)
def test_what_stops_every_call_stops_the_run_after_the_answers_that_came(reply: server.Reply, words: str) -> None:
    with server.serve(lambda call: server.answer("fine") if call.number < 3 else reply) as stub:
        maker = describer(stub.url, concurrency=1)
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match=words) as caught:
            for group in maker.describe(map(request, range(1000))):
                answers += group
    assert [answer.text for answer in answers] == ["fine"] * 3
    assert stub.count == 4
    assert KEY not in str(caught.value)


def test_an_address_without_v1_is_hinted_at() -> None:
    with (
        server.serve(lambda call: server.Reply(404, b"Not Found")) as stub,
        pytest.raises(DescriberError, match="end in /v1"),
    ):
        ask(describer(stub.url.removesuffix("/v1")), request())


def test_a_server_that_rejects_every_image_stops_the_run() -> None:
    with server.serve(lambda call: server.failure(400, "images are not supported")) as stub:
        answers: list[Answer] = []
        with pytest.raises(DescriberError, match="images are not supported"):
            for group in describer(stub.url, concurrency=2).describe(map(request, range(1000))):
                answers += group
    assert 8 <= len(answers) <= 12
    assert stub.count <= 12


def test_a_port_where_nobody_listens_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "UNREACHABLE_S", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(DescriberError, match="is it running"):
            ask(describer(url), *map(request, range(100)))


def test_a_server_that_is_down_for_long_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DOWN_S", 0.3)
    with (
        server.serve(lambda call: server.failure(500, "broken")) as stub,
        pytest.raises(DescriberError, match="has not answered"),
    ):
        ask(describer(stub.url, retries=1000), *map(request, range(100)))


def test_a_restart_of_the_server_costs_no_image() -> None:
    began = time.monotonic()
    down = server.failure(502)
    with server.serve(
        lambda call: down if 0.2 < time.monotonic() - began < 1.2 else server.answer("x", delay=0.02)
    ) as stub:
        answers = ask(describer(stub.url, concurrency=8), *map(request, range(200)))
    assert len({answer.request.digest for answer in answers}) == 200
    assert all(answer.text == "x" for answer in answers)
    assert stub.count < 260


# What models do not take


def test_the_other_name_of_max_tokens_is_used_for_the_whole_run() -> None:
    def reply(call: server.Call) -> server.Reply:
        if "max_tokens" in call.body:
            return server.failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return server.answer("fine")

    with server.serve(reply) as stub:
        maker = describer(stub.url, concurrency=1, retries=0)
        answers = ask(maker, *map(request, range(5)))
    assert [answer.text for answer in answers] == ["fine"] * 5
    assert stub.count == 6


def test_a_temperature_that_the_model_does_not_take_is_the_users_to_drop() -> None:
    refuse = server.failure(400, "Unsupported value: 'temperature' does not support 0.2 with this model.")
    with server.serve(lambda call: refuse) as stub, pytest.raises(DescriberError, match="--temperature"):
        ask(describer(stub.url, temperature=0.2), request())


# Places in flight


def test_answers_that_are_not_on_disk_count_as_in_flight() -> None:
    with server.serve(lambda call: server.answer("x")) as stub:
        groups = describer(stub.url, concurrency=4).describe(map(request, range(12)))
        taken = len(next(groups))
        time.sleep(0.4)
        assert stub.count == 4
        rest = sum(len(group) for group in groups)
    assert taken + rest == 12
    assert stub.most_in_flight <= 4


def test_never_more_calls_than_allowed_and_that_many_where_the_server_is_slow() -> None:
    with server.serve(lambda call: server.answer("x", delay=0.2)) as stub:
        answers = ask(describer(stub.url, concurrency=12), *map(request, range(60)))
    assert len(answers) == 60
    assert stub.most_in_flight == 12


def test_requests_are_pulled_as_there_is_room() -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for number in range(10_000):
            pulled += 1
            yield request(number)

    with server.serve(lambda call: server.answer("x", delay=0.05)) as stub:
        maker = describer(stub.url, concurrency=4)
        answered = 0
        for group in maker.describe(requests()):
            answered += len(group)
            assert pulled <= answered + 20
            if answered > 50:
                break


def test_breaking_off_leaves_nothing_running_and_keeps_what_arrived() -> None:
    threads = threading.active_count()
    with server.serve(lambda call: server.answer("x", delay=0.0 if call.number < 4 else 60.0)) as stub:
        maker = describer(stub.url, concurrency=8)
        running = maker.describe(map(request, range(100)))
        came = list(next(running))
        deadline = time.monotonic() + 5
        while stub.count < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        running.close()  # type: ignore[attr-defined]
        came += maker.arrived()
        assert len(came) == 4
        assert threading.active_count() <= threads + 1, "only the server is left"


def test_requests_that_end_early_let_the_calls_in_flight_finish_and_more_may_be_asked_later() -> None:
    with server.serve(lambda call: server.answer("x", delay=0.1)) as stub:
        maker = describer(stub.url)
        assert len(ask(maker, *map(request, range(5)))) == 5
        assert len(ask(maker, *map(request, range(5, 8)))) == 3
        assert ask(maker) == []
    assert facts(maker) == {"calls": 8, "calls_per_answer": 1.0}


def test_an_error_of_the_requests_is_raised_after_the_answers() -> None:
    def requests() -> Iterator[Request]:
        yield request(0)
        raise RuntimeError("no more")

    with server.serve(lambda call: server.answer("x")) as stub:
        answers: list[Answer] = []
        with pytest.raises(RuntimeError, match="no more"):
            for group in describer(stub.url).describe(requests()):
                answers += group
    assert [answer.text for answer in answers] in ([], ["x"])


# Identity and address


def test_the_identity_holds_no_secret_and_nothing_of_speed() -> None:
    maker = describer("http://user:pass-word@localhost:1/v1/?key=hidden", concurrency=99, timeout=7, retries=1)
    same = describer("http://localhost:1/v1")
    assert maker.settings == same.settings
    assert maker.settings["server"] == "http://localhost:1/v1"
    assert describer("http://localhost:1/v1", server_name="lab").settings["server"] == "lab"
    assert {"model", "system", "temperature", "max_tokens", "max_side", "image_format", "extra_body"} <= set(
        same.settings
    )
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
    answers, stub = one(lambda call: server.answer("x"))
    assert answers[0].text == "x"
    assert KEY not in stub.calls[0].headers["authorization"]


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
