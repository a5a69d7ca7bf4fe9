"""Whatever a server sends is bounded, free of the key and ends in a clear line; what its errors mean, and may cost."""

import gzip
import json
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

import openai_stub as server
from gpt4image.base.errors import DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.describers.openai import limiter
from gpt4image.describing.describers.openai import server as border
from gpt4image.describing.describers.openai.chat import Verdict, fault_of, retry_after
from gpt4image.describing.describers.openai.server import MAX_NAME, MAX_TEXT, find_server
from gpt4image.describing.prices import Price
from openai_cases import KEY, ask, ask_one, body, describer, picture, request

GOOD = server.answer("A cat.")
DEEP = b"[" * 50_000 + b"]" * 50_000
GZIP = {"content-encoding": "gzip"}
HUGE = b'{"choices": [], "usage": {"prompt_tokens": %b, "completion_tokens": 1}}' % (b"9" * 5000)
UNREADABLE = {
    "half of the JSON": server.Reply(200, GOOD.content[:40]),
    "nested": server.Reply(200, DEEP),
    "too large": server.Reply(200, b" " * 2**20),
    "huge counts": server.Reply(200, HUGE),
    "compressed": server.Reply(200, gzip.compress(GOOD.content), GZIP),
}


@pytest.mark.parametrize("status", [302, 308])
def test_no_image_and_no_key_follows_a_redirect(status: int) -> None:
    with server.serve(lambda call: server.answer("x")) as other:
        to = {"location": f"{other.url}/chat/completions?key={KEY}"}
        with pytest.raises(DescriberError, match=r"it redirects.*--base-url") as caught:
            ask_one(lambda call: server.Reply(status, b"", to))
    assert other.count == 0 and KEY not in str(caught.value)


def test_the_key_is_not_kept_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,), _ = ask_one(lambda call: server.answer(f"A cat, says {KEY}.", finish=KEY))
    assert (answer.text, answer.finish_reason) == ("A cat, says ***.", "***")
    (answer,), _ = ask_one(lambda call: server.answer("a" * (MAX_TEXT - 10) + KEY + "b" * 9, finish="f" * 5000))
    assert answer.text is not None and KEY[:6] not in answer.text
    (answer,), _ = ask_one(lambda call: server.answer("a" * 300_000, finish="f" * 5000))
    assert len(answer.text or "") == MAX_TEXT and answer.finish_reason == "length"
    (answer,), _ = ask_one(lambda call: server.answer("a", finish="f" * 5000))
    assert len(answer.finish_reason or "") == MAX_NAME
    for key, shown in (("EMPTY", "EMPTY"), ("person", "person"), ("token-1", "***")):  # a word is no secret
        monkeypatch.setenv("OPENAI_API_KEY", key)
        (answer,), _ = ask_one(lambda call, key=key: server.answer(f"A sign that says {key}."))
        assert answer.text == f"A sign that says {shown}."


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
    ],
    Verdict.REJECTED: [
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
        fault = fault_of(status, {}, content, find_server("http://localhost:1/v1"))
        assert (fault.verdict, fault.kind) == (verdict, str(status)), content


def test_when_to_come_again() -> None:
    for headers, seconds in (
        *(({"retry-after": "3"}, 3.0), ({"retry-after": "0.25"}, 0.25), ({"retry-after": "soon"}, 0.0), ({}, 0.0)),
        *(({"retry-after-ms": "250", "retry-after": "1"}, 0.25), ({"retry-after": "nan"}, 0.0)),
        *(({"retry-after": "-1"}, 0.0), ({"retry-after": formatdate(time() + 10, usegmt=True)}, 10.0)),
    ):
        assert retry_after(headers) == pytest.approx(seconds, abs=1.5 * (seconds == 10)), headers


def test_a_server_that_only_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_describer, "DOWN_S", 0.2)
    monkeypatch.setattr(limiter, "PAUSE_S", (0.01, 0.05))
    for bad in (server.failure(500, "oops"), server.failure(429, "later", retry_after_ms="10")):
        with (
            server.serve(lambda call, bad=bad: GOOD if call.number < 3 else bad) as stub,
            pytest.raises(
                DescriberError, match=r"has not answered for .* s; the last fault: HTTP (500: oops|429: later)"
            ),
        ):
            ask(describer(stub.url, concurrency=4, retries=99), *map(request, range(30)))


# Money: a call costs 100 x 10 + 10 x 100 millionths of a dollar, at most 100 x 10 x 1.25 + 20 x 100.

CALL, DEAREST = 0.002, 0.00325


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(border, "MAX_BODY", 2**19)
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
        outcome = describe(config(stub.url, max_cost=0.04))
    assert outcome.stopped_by == "max_cost"
    if good:
        assert CALL + (stub.count - 1) * DEAREST == pytest.approx(outcome.cost_usd, abs=1e-5)
        assert outcome.cost_usd <= 0.04 and stub.count > 5, "the budget is used, and not passed"
    else:
        assert stub.count == 1, "where no price is known yet, one such call uses up the budget"


def test_an_image_whose_answer_cannot_be_read_is_paid_for_twice_at_most(config: Any) -> None:
    broken = UNREADABLE["half of the JSON"]
    with server.serve(lambda call: broken) as stub:
        outcome = describe(config(stub.url, limit=2))
    assert stub.count == 4 and outcome.failed == 2
    with server.serve(lambda call: server.answer("") if call.number % 2 else broken) as stub:
        outcome = describe(config(stub.url, limit=1, max_tokens=21))
    assert stub.count == 2 and outcome.rejected == 1


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
    assert outcome.described == 3 and stub.count == 5
    assert outcome.cost_usd >= 4 * CALL + DEAREST, "one tells its tokens, one counts at its dearest"
