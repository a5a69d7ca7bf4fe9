"""The describer against a server in this process: answers, and places in flight."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import openai_stub as server
from openai_cases import KEY, PROMPT, ask_one, openai_settings, picture, request

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

    question = request(turns=("One?", "Two?", "Three?"), samples=(0, 1))
    answers, stub = ask_one(reply, question, concurrency=1)
    assert sorted(answer.sample for answer in answers) == [0, 1]
    assert {answer.text for answer in answers} == {"part 1\n\npart 2\n\npart 3"}
    assert {answer.finish_reason for answer in answers} == {"length"}
    assert {(answer.tokens_in, answer.tokens_out) for answer in answers} == {(303, 30)}
    last = stub.calls[-1].body["messages"]
    assert [m["content"] for m in last[2:]] == ["part 1", "Two?", "part 2", "Three?"]


def test_several_samples_of_one_call_share_its_cost(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"tiny": {"input": 1.0, "output": 10.0}}))
    answers, stub = ask_one(
        lambda call: server.answer("a", "b", "c", tokens=(100, 31)), request(samples=(2, 5, 7)), prices=prices
    )
    assert stub.calls[0].body["n"] == 3
    assert {answer.sample: answer.text for answer in answers} == {2: "a", 5: "b", 7: "c"}
    assert sum(answer.tokens_in or 0 for answer in answers) == 100
    assert sum(answer.tokens_out or 0 for answer in answers) == 31
    assert sum(answer.cost_usd or 0 for answer in answers) == pytest.approx((100 + 310) / 1e6)


def test_a_server_that_ignores_n_is_asked_again() -> None:
    answers, stub = ask_one(lambda call: server.answer(f"answer {call.number}"), request(samples=(0, 1, 2)))
    assert [call.body.get("n") for call in stub.calls] == [3, 2, None]
    assert {answer.text for answer in answers} == {"answer 0", "answer 1", "answer 2"}


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
