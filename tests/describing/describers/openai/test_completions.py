"""Answers of a server, read."""

from __future__ import annotations

from typing import Any

import pytest

import openai_stub as server
from openai_cases import ask_one


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
    (answer,), _ = ask_one(lambda call: reply)
    assert (answer.text, answer.finish_reason, answer.error) == (text, reason, None)
    assert answer.tokens_in is None
