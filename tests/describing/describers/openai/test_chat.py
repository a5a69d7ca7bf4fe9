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


@pytest.mark.parametrize(
    ("status", "content", "verdict"),
    [
        (429, body("slow down", code="rate_limit_exceeded"), Verdict.LIMITED),
        (429, body("pay", code="insufficient_quota"), Verdict.STOP),
        (400, body("pay", code="billing_hard_limit_reached"), Verdict.STOP),
        (402, b"", Verdict.STOP),
        (400, body("Your credit balance is too low to access the API."), Verdict.STOP),
        (400, body("Insufficient funds", type="invalid_request_error"), Verdict.STOP),
        (400, body("Access denied", code="Arrearage"), Verdict.STOP),
        (429, body("You exceeded your current quota, retry in 34 s", code="RESOURCE_EXHAUSTED"), Verdict.LIMITED),
        (400, body("the image shows a credit card"), Verdict.GIVE_UP),
        (401, body(), Verdict.STOP),
        (403, body(), Verdict.STOP),
        (403, body("Your input was flagged", code=403), Verdict.FILTERED),
        (404, b"<html>", Verdict.STOP),
        (400, body("bad image"), Verdict.GIVE_UP),
        (413, b"", Verdict.GIVE_UP),
        (422, b'{"detail": [{"loc": ["body"]}]}', Verdict.GIVE_UP),
        (400, body(code="content_policy_violation"), Verdict.FILTERED),
        (400, body(code="x", innererror={"code": "ResponsibleAIPolicyViolation"}), Verdict.FILTERED),
        (408, b"", Verdict.RETRY),
        (409, b"", Verdict.RETRY),
        (500, b"<html>oops</html>", Verdict.RETRY),
        (502, b"\xff\xfe", Verdict.RETRY),
        (503, b"", Verdict.OVERLOADED),
        (529, b"[]", Verdict.OVERLOADED),
    ],
)
def test_a_status_has_a_meaning(status: int, content: bytes, verdict: Verdict) -> None:
    fault = fault_of_response(status, {}, content)
    assert fault.verdict is verdict
    assert fault.kind == str(status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": formatdate(1_700_000_010, usegmt=True)}, 10.0),
        ({"retry-after": formatdate(1_600_000_000, usegmt=True)}, 0.0),
        # The server's clock is a day ahead.
        ({"retry-after": formatdate(1_700_086_410), "date": formatdate(1_700_086_400)}, 10.0),
        ({"retry-after": formatdate(1_700_000_010), "date": "today"}, 10.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=1_700_000_000) == seconds


@pytest.mark.parametrize(
    ("wait", "stops"),
    [
        ("600", False),
        ("601", True),
        ("86400", True),
        ("604801", False),
        (formatdate(4_102_444_800), False),
        ("-1", False),
    ],
)
def test_a_server_that_is_closed_for_long_stops_the_run(wait: str, stops: bool) -> None:
    fault = fault_of_response(429, {"retry-after": wait}, b"")
    assert (fault.verdict is Verdict.STOP) == stops


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
    fault = fault_of_response(status, {}, content, SERVER)
    assert "\n" not in fault.message
