"""What a server sends is bounded, read without surprises and free of the key; what its errors mean; the limiter."""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import random
import socketserver
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import openai_stub as server
from gpt4image.base.errors import DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.describers.openai import server as untrusted
from gpt4image.describing.describers.openai.chat import Fault, Verdict, fault_of_response, retry_after
from gpt4image.describing.describers.openai.describer import Limiter
from gpt4image.describing.describers.openai.server import NotJsonError, parse_json, redacted
from gpt4image.describing.prices import Price
from openai_cases import KEY, ask, ask_one, body, describer, picture, request

MB = 2**20
DEEP = b"[" * 50_000 + b"]" * 50_000


def error_of(reply: server.Reply, retries: int = 0) -> str:
    (answer,), _ = ask_one(lambda call: reply, retries=retries)
    assert answer.text is None
    return answer.error or ""


# Sizes and forms


def test_what_is_too_large_or_packed_twice_is_a_failure_and_what_is_kept_is_bounded() -> None:
    large, small = (json.dumps(server.completion("fine") | {"padding": "x" * n * MB}).encode() for n in (17, 1))
    assert "longer than 16 MB" in error_of(server.Reply(200, large))
    assert "longer than 16 MB" in error_of(server.Reply(200, gzip.compress(large), {"content-encoding": "gzip"}))
    assert error_of(server.failure(400, "x" * 2 * MB)) == "HTTP 400: the answer is longer than 1 MB"
    twice = gzip.compress(gzip.compress(small))
    assert "compressed more than once" in error_of(server.Reply(200, twice, {"content-encoding": "gzip, gzip"}))
    (answer,), _ = ask_one(lambda call: server.answer("a" * 300_000, finish="f" * 5000))
    assert answer.text is not None and len(answer.text) == untrusted.MAX_TEXT
    assert answer.finish_reason == "length", "as an answer that was cut off by the model's own limit"
    (answer,), _ = ask_one(lambda call: server.answer("a cat", finish="f" * 5000))
    assert len(answer.finish_reason or "") == untrusted.MAX_NAME


@pytest.mark.parametrize("status", [200, 400])
def test_an_endless_answer_ends_soon_and_its_connection_is_closed(status: int) -> None:
    sent, closed = [0], threading.Event()

    class Endless(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10_000)
            self.request.sendall(b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n" % status)
            chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
            try:
                while sent[0] < 200 * MB:
                    self.request.sendall(chunk)
                    sent[0] += len(chunk)
            except OSError:
                closed.set()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless) as endless:
        threading.Thread(target=endless.serve_forever, daemon=True).start()
        (answer,) = ask(describer(f"http://127.0.0.1:{endless.server_address[1]}/v1", retries=0), request())
        assert closed.wait(10)
        endless.shutdown()
    assert "longer than" in (answer.error or "") and sent[0] < 40 * MB


@pytest.mark.parametrize("content", [DEEP, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 200 + b"]" * 200])
def test_json_that_is_nested_deeply_is_none(content: bytes) -> None:
    with pytest.raises(NotJsonError):
        parse_json(content)
    assert "without an answer" in error_of(server.Reply(200, content))
    assert error_of(server.Reply(400, b'{"error": {"message": %b}}' % content)).startswith("HTTP 400: ")


# Secrets and redirects


def test_the_key_is_not_kept_wherever_it_comes_back_or_a_text_is_cut() -> None:
    for headers in (*({"x-note": "a" * n + KEY + "b" * 10_000} for n in (0, 95, 8180)), {f"bad name {KEY}": "x"}):
        error = error_of(server.Reply(200, b"{}", headers))
        assert "not valid HTTP" in error and KEY[:6] not in error
    (answer,), _ = ask_one(lambda call: server.answer(f"A cat, says {KEY}.", finish=KEY))
    assert (answer.text, answer.finish_reason) == ("A cat, says ***.", "***")
    (answer,), _ = ask_one(lambda call: server.answer("a" * (untrusted.MAX_TEXT - 10) + KEY))
    assert answer.text is not None and KEY[:6] not in answer.text
    for place, limit in itertools.product(range(0, 60, 7), range(1, 80, 3)):
        shown = redacted("e" * place + KEY + "y" * (60 - place), [KEY], limit)
        assert len(shown) <= limit and KEY[:6] not in shown


@pytest.mark.parametrize("key", ["EMPTY", "none", "person", "token-1"])
def test_a_key_that_may_be_a_word_does_not_blot_it_out_of_descriptions(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    (answer,), _ = ask_one(lambda call: server.answer(f"A person beside none other than EMPTY {key}."))
    assert answer.text == f"A person beside none other than EMPTY {'***' if key == 'token-1' else key}."


@pytest.mark.parametrize("status", [302, 308])
def test_a_redirect_is_refused_and_its_host_named(status: int) -> None:
    with server.serve(lambda call: server.answer("x")) as other:
        location = f"{other.url}/chat/completions?key={KEY}"
        with server.serve(lambda call: server.Reply(status, b"", {"location": location})) as stub:
            with pytest.raises(DescriberError, match=rf"redirected to 127.0.0.1:{other.port};") as caught:
                ask(describer(stub.url), request())
            assert "--base-url" in str(caught.value) and KEY not in str(caught.value)
        assert (stub.count, other.count) == (1, 0)
    for location in ("http://[", "/other", f"//{KEY}/", "\x7f", "http://" + "h" * 3000):
        with pytest.raises(DescriberError, match="redirected to") as caught:
            ask_one(lambda call, to=location: server.Reply(status, b"", {"location": to}))
        assert KEY not in str(caught.value) and len(str(caught.value)) < 500


# Money: a call costs 100 x 10 + 10 x 100 millionths of a dollar, at most 100 x 10 x 1.25 + 20 x 100.

CALL, DEAREST = 0.002, 0.00325
GOOD = server.answer("A cat.")
UNREADABLE = {
    "half of the JSON": server.Reply(200, GOOD.content[:40]),
    "nested": server.Reply(200, DEEP),
    "too large": server.Reply(200, b" " * MB),
    "cut transfer": server.Reply(200, GOOD.content, cut=120),
    "huge counts": server.Reply(
        200, b'{"choices": [], "usage": {"prompt_tokens": %b, "completion_tokens": 1}}' % (b"9" * 5000)
    ),
    "broken gzip": server.Reply(200, GOOD.content, {"content-encoding": "gzip"}),
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(untrusted, "MAX_BODY", MB // 2)
    (tmp_path / "images" / "unlabelled").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "images" / "unlabelled" / f"{number}.png").write_bytes(picture(number))
    monkeypatch.setattr(openai_describer, "find_price", lambda *_: Price(10, 100))

    def with_options(url: str, **options: Any) -> DescribeConfig:
        values = {"data": f"folder:{tmp_path / 'images'}", "store": tmp_path / "s.db", "describer": "openai:tiny"}
        return DescribeConfig(**{**values, "base_url": url, "max_tokens": 20, **options})

    return with_options


@pytest.mark.parametrize("good", [1, 0])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_calls_that_were_paid_for_and_cannot_be_read_count_at_their_dearest(kind: str, good: int, config: Any) -> None:
    with server.serve(lambda call: GOOD if call.number < good else UNREADABLE[kind]) as stub:
        summary = describe(config(stub.url, max_cost=0.04)).summary
    assert summary["stopped_by"] == "max_cost"
    if good:
        assert CALL + (stub.count - 1) * DEAREST == pytest.approx(summary["cost_usd"], abs=1e-5)
        assert summary["cost_usd"] <= 0.04 and stub.count > 5, "the budget is used, and not passed"
    else:
        assert stub.count == 1, "where no price is known yet, one such call uses up the budget"


def test_an_image_is_paid_for_twice_at_most(config: Any) -> None:
    broken = UNREADABLE["cut transfer"]
    with server.serve(lambda call: broken) as stub:
        outcome = describe(config(stub.url, limit=2))
    assert stub.count == 4 and outcome.summary["failed"] == 2
    with server.serve(lambda call: server.answer("") if call.number % 2 else broken) as stub:
        outcome = describe(config(stub.url, limit=1, max_tokens=21))
    assert stub.count == 2 and outcome.summary["rejected"] == 1


@pytest.mark.parametrize("more", [{}, {"choices": [{"message": {"role": "assistant", "content": "A cat."}}]}])
def test_an_error_in_a_200_is_a_failed_call_that_counts(config: Any, more: dict[str, Any]) -> None:
    error = {**json.loads(body("upstream", code=502)), **more}
    told = server.json_reply({**error, "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
    faults: dict[bytes, list[server.Reply]] = {}  # by image: none, one without tokens, one that tells them

    def reply(call: server.Call) -> server.Reply:
        left = faults.setdefault(call.image, [[], [server.json_reply(error)], [told]][len(faults) % 3])
        return left.pop() if left else GOOD

    with server.serve(reply) as stub:
        outcome = describe(config(stub.url, limit=3, max_cost=1.0, concurrency=1))
    assert outcome.summary["described"] == 3 and stub.count == 5
    assert outcome.summary["cost_usd"] >= 4 * CALL + DEAREST, "one tells its tokens, one counts at its dearest"


# What an error means


MEANINGS = {
    Verdict.LIMITED: [
        (429, body("slow down", code="rate_limit_exceeded")),
        (429, body("You exceeded your current quota, retry in 34 s", code="RESOURCE_EXHAUSTED")),
    ],
    Verdict.STOP: [
        *((401, body()), (402, b""), (403, body()), (404, b"<html>")),
        (429, body("pay", code="insufficient_quota")),
        (400, body("pay", code="billing_hard_limit_reached")),
        (400, body("Your credit balance is too low to access the API.")),
        (400, body("Insufficient funds", type="invalid_request_error")),
        (400, body("Access denied", code="Arrearage")),
    ],
    Verdict.GIVE_UP: [
        *((400, body("bad image")), (400, body("the image shows a credit card")), (413, b"")),
        (422, b'{"detail": [{"loc": ["body"]}]}'),
    ],
    Verdict.FILTERED: [
        (403, body("Your input was flagged", code=403)),
        (400, body(code="content_policy_violation")),
        (400, body(code="x", innererror={"code": "ResponsibleAIPolicyViolation"})),
    ],
    Verdict.RETRY: [(408, b""), (409, b""), (500, b"<html>oops</html>"), (502, b"\xff\xfe")],
    Verdict.OVERLOADED: [(503, b""), (529, b"[]")],
}


@pytest.mark.parametrize("verdict", MEANINGS)
def test_a_status_has_a_meaning(verdict: Verdict) -> None:
    for status, content in MEANINGS[verdict]:
        fault = fault_of_response(status, {}, content)
        assert (fault.verdict, fault.kind) == (verdict, str(status)), content


NOW = 1_700_000_000


def test_when_to_come_again() -> None:
    waits = [
        *(({"retry-after": "3"}, 3.0), ({"retry-after": "0.25"}, 0.25), ({"retry-after": "soon"}, None), ({}, None)),
        *(({"retry-after-ms": "250", "retry-after": "1"}, 0.25), ({"retry-after": "nan"}, None)),
        ({"retry-after": formatdate(NOW + 10, usegmt=True)}, 10.0),
        ({"retry-after": formatdate(1_600_000_000, usegmt=True)}, 0.0),
        # The server's clock is a day ahead.
        ({"retry-after": formatdate(NOW + 86_410), "date": formatdate(NOW + 86_400)}, 10.0),
        ({"retry-after": formatdate(NOW + 10), "date": "today"}, 10.0),
    ]
    assert [retry_after(headers, now=NOW) for headers, _ in waits] == [seconds for _, seconds in waits]
    stops = {"600": False, "601": True, "86400": True, "604801": False, formatdate(4_102_444_800): False, "-1": False}
    for wait, expected in stops.items():
        assert (fault_of_response(429, {"retry-after": wait}, b"").verdict is Verdict.STOP) == expected, wait


# The limiter, against servers that are a few lines, in virtual time


Accepts = Callable[[float], float | None]
"""Time of a call -> None where it is accepted, else the seconds until the server is open again."""


def windows(cap: int, seconds: float = 1.0, phase: float = 0.0) -> Accepts:
    """At most ``cap`` calls in each window of the server's clock."""
    taken: dict[int, int] = {}

    def accepts(now: float) -> float | None:
        window = int((now + phase) // seconds)
        taken[window] = taken.get(window, 0) + 1
        return None if taken[window] <= cap else (window + 1) * seconds - phase - now

    return accepts


def bucket(rate: float, burst: float) -> Accepts:
    tokens, filled = burst, 0.0

    def accepts(now: float) -> float | None:
        nonlocal tokens, filled
        tokens, filled = min(burst, tokens + (now - filled) * rate), now
        if tokens < 1:
            return (1 - tokens) / rate
        tokens -= 1
        return None

    return accepts


class Result(NamedTuple):
    seconds: float
    calls: list[float]
    rate: float
    calls_per_answer: float


def run(limiter: Limiter, accepts: Accepts, answers: int, *, latency: float = 0.05, told: str = "") -> Result:
    """Send until so many calls were answered; timers are up to 3 ms late, refusals come after 5 ms."""
    rng, order = random.Random(0), itertools.count()
    now, calls, done, in_flight, wanted = 0.0, list[float](), 0, 0, answers
    arriving: list[tuple[float, int, float, float | None]] = []
    again: list[float] = []
    while done < answers:
        while (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency and limiter.delay(now) <= 0:
            if again and again[0] <= now:
                heapq.heappop(again)
            else:
                wanted -= 1
            in_flight += 1
            closed = accepts(now + 0.001)
            limiter.sent(now)
            calls.append(now)
            back = now + (latency if closed is None else 0.005) + rng.uniform(0, 0.003)
            heapq.heappush(arriving, (back, next(order), now, closed))
        times = [arriving[0][0]] if arriving else []
        times += [again[0]] if again and again[0] > now else []
        if (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency:
            times.append(now + limiter.delay(now) + rng.uniform(1e-6, 0.003))
        now = min(times)
        while arriving and arriving[0][0] <= now:
            _, _, sent_at, closed = heapq.heappop(arriving)
            in_flight -= 1
            if closed is None:
                limiter.answered(sent_at)
                done += 1
            else:
                wait = {"": None, "ms": closed, "s": max(1.0, round(closed))}[told]
                assert limiter.failed(now, sent_at, Fault("429", Verdict.LIMITED, "", wait)) is None
                heapq.heappush(again, now + (wait or 0.0) + rng.uniform(0, 0.5))
    return Result(now, calls, done / now, len(calls) / done)


SERVERS = {
    **{f"windows, phase {phase}": lambda phase=phase: windows(20, phase=phase) for phase in (0.0, 0.7)},
    **{f"bucket of {burst}": lambda burst=burst: bucket(20, burst) for burst in (5, 40)},
}


@pytest.mark.parametrize(("told", "latency"), [("", 0.05), ("", 0.5), ("", 2.0), ("ms", 0.05), ("s", 0.5)])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cap_is_reached_and_hardly_ever_crossed(server: str, told: str, latency: float) -> None:
    result = run(Limiter(64), SERVERS[server](), 2000, latency=latency, told=told)
    assert result.rate >= (0.95 if latency < 0.1 else 0.9) * 20 and result.calls_per_answer <= 1.1


@pytest.mark.parametrize(("latency", "seconds"), [(0.05, 30), (1.0, 60)])
def test_a_server_without_a_cap_is_kept_busy(latency: float, seconds: float) -> None:
    result = run(Limiter(256), lambda _: None, int(seconds * 256 / latency), latency=latency)
    assert result.rate >= 0.97 * 256 / (latency + 0.0015)
    assert result.calls[5] > 0.1, "the first calls are not sent all at once"


def test_the_users_limits_hold_in_every_minute() -> None:
    result = run(Limiter(64, requests_per_minute=120), lambda _: None, 600)
    for start in range(0, len(result.calls), 7):
        assert sum(result.calls[start] <= time < result.calls[start] + 60 for time in result.calls) <= 121
    assert result.rate >= 0.97 * 2


@pytest.mark.parametrize(("verdict", "times"), [(Verdict.OVERLOADED, 1), (Verdict.LOST, 3)])
def test_an_overloaded_server_gets_fewer_calls_at_a_time_and_all_again_once_it_answers(
    verdict: Verdict, times: int
) -> None:
    limiter = Limiter(32)
    for number in range(times):
        assert limiter.concurrency == 32
        limiter.failed(number, number - 0.5, Fault("503", verdict, ""))
    assert limiter.concurrency == 24
    limiter.failed(times - 0.5, times - 2.0, Fault("503", verdict, ""))
    assert limiter.concurrency == 24, "calls that were in flight together count once"
    for number in range(40):
        limiter.answered(number - 0.5)
    assert limiter.concurrency == 32


def test_a_server_that_does_not_answer_for_a_minute_ends_the_run() -> None:
    limiter, fault = Limiter(4), Fault("500", Verdict.RETRY, "HTTP 500: oops")
    limiter.answered(-1.0)
    told = [limiter.failed(float(second), second - 0.5, fault) for second in range(1, 70)]
    assert told[:60] == [None] * 60 and "has not answered for 61 s" in (told[61] or "")
