"""When a run stops asking a server."""

from __future__ import annotations

import random

import pytest

from gpt4image.describing.describers.openai.circuit_breaker import CircuitBreaker
from gpt4image.describing.describers.openai.faults import fault_of_response
from openai_cases import body


def test_the_run_stops_where_the_server_is_down_for_long_but_not_for_chance() -> None:
    fault = fault_of_response(500, {}, b"")
    breaker = CircuitBreaker()
    assert all(breaker.failed(fault, now=0.1 * i) is None for i in range(500))
    assert breaker.failed(fault, now=61.0) is not None
    breaker.answered()
    assert breaker.failed(fault, now=62.0) is None


def test_a_server_that_is_down_gets_one_call_at_a_time_until_it_answers() -> None:
    breaker = CircuitBreaker()
    for second in range(8):
        assert not breaker.is_open
        breaker.failed(fault_of_response(429, {}, b""), now=second)
        breaker.failed(fault_of_response(500, {}, b""), now=second + 0.5)
    assert breaker.is_open and 0 < breaker.paused_until - 7.5 <= 3.0
    breaker.answered()
    assert not breaker.is_open


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_bad_images_among_good_ones_do_not_stop_the_run(share: float) -> None:
    rng, rejected, breaker = random.Random(0), fault_of_response(400, {}, body("bad image")), CircuitBreaker()
    breaker.answered()
    for _ in range(20_000):
        if rng.random() < share:
            assert breaker.failed(rejected, now=0.0) is None
        else:
            breaker.answered()
