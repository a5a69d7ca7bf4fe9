"""What an error of a server means."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.describing.describers.openai.chat import Verdict, fault_of_response, retry_after
from gpt4image.describing.describers.openai.server import find_server
from openai_cases import body

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


@pytest.mark.parametrize(
    ("error", "parameter"),
    [
        ({"message": "Unsupported parameter.", "param": "max_tokens"}, "max_tokens"),
        ({"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}, "max_tokens"),
        ({"message": "extra fields not permitted: max_completion_tokens"}, "max_completion_tokens"),
        ({"message": "Unsupported value: 'temperature' does not support 0.2"}, "temperature"),
        ({"message": "The image is too large"}, None),
    ],
)
def test_the_parameter_that_a_model_does_not_take_is_named(error: dict[str, str], parameter: str | None) -> None:
    assert fault_of_response(400, {}, json.dumps({"error": error}).encode()).parameter == parameter


SERVER = find_server("http://localhost:1/v1")


@given(st.binary(max_size=300), st.integers(300, 599))
def test_any_response_is_a_fault(content: bytes, status: int) -> None:
    assert "\n" not in fault_of_response(status, {}, content, SERVER).message
