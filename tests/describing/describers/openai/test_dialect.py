"""Names of parameters that models take."""

from __future__ import annotations

import pytest

import openai_stub as server
from gpt4image.base.errors import DescriberError
from openai_cases import ask, describer, request


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
