"""The limiter against servers that exist as a few lines and virtual time only."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from gpt4image.describing.describers.openai.chat import Fault, Verdict
from gpt4image.describing.describers.openai.limiter import Limiter

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


def run(
    limiter: Limiter,
    accepts: Accepts,
    answers: int,
    *,
    latency: float = 0.05,
    told: str = "",
    tokens: int | None = None,
) -> Result:
    """Send until so many calls were answered; timers are up to 3 ms late, refusals come after 5 ms."""
    rng, order = random.Random(0), itertools.count()
    now, calls, done, in_flight, wanted = 0.0, list[float](), 0, 0, answers
    arriving: list[tuple[float, int, float, float, float | None]] = []
    again: list[float] = []
    while done < answers:
        while (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency and limiter.delay(now) <= 0:
            if again and again[0] <= now:
                heapq.heappop(again)
            else:
                wanted -= 1
            in_flight += 1
            expected, closed = limiter.sent(now), accepts(now + 0.001)
            calls.append(now)
            back = now + (latency if closed is None else 0.005) + rng.uniform(0, 0.003)
            heapq.heappush(arriving, (back, next(order), now, expected, closed))
        times = [arriving[0][0]] if arriving else []
        times += [again[0]] if again and again[0] > now else []
        if (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency:
            times.append(now + limiter.delay(now) + rng.uniform(1e-6, 0.003))
        now = min(times)
        while arriving and arriving[0][0] <= now:
            _, _, sent_at, expected, closed = heapq.heappop(arriving)
            in_flight -= 1
            if closed is None:
                limiter.answered(now, sent_at, expected, tokens)
                done += 1
            else:
                wait = {"": None, "ms": closed, "s": max(1.0, round(closed))}[told]
                assert limiter.failed(now, sent_at, expected, Fault("429", Verdict.LIMITED, "", wait)) is None
                heapq.heappush(again, now + (wait or 0.0) + rng.uniform(0, 0.5))
    return Result(now, calls, done / now, len(calls) / done)


SERVERS = {
    **{f"windows, phase {phase}": lambda phase=phase: windows(20, phase=phase) for phase in (0.0, 0.3, 0.7, 0.95)},
    **{f"bucket of {burst}": lambda burst=burst: bucket(20, burst) for burst in (5, 20, 40)},
}


@pytest.mark.parametrize("told", ["", "ms", "s"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cap_is_reached_and_hardly_ever_crossed(server: str, told: str) -> None:
    result = run(Limiter(64), SERVERS[server](), 2000, told=told)
    assert result.rate >= 0.95 * 20 and result.calls_per_answer <= 1.1


def test_a_cap_that_is_lifted_is_noticed() -> None:
    capped = windows(20)
    assert run(Limiter(256), lambda now: capped(now) if now < 20 else None, 20_000).seconds < 100


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
    by_tokens = run(Limiter(64, tokens_per_minute=60_000), lambda _: None, 600, tokens=250)
    assert by_tokens.rate == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(("verdict", "times"), [(Verdict.OVERLOADED, 1), (Verdict.LOST, 3)])
def test_an_overloaded_server_gets_fewer_calls_at_a_time_and_all_again_once_it_answers(
    verdict: Verdict, times: int
) -> None:
    limiter = Limiter(32)
    for number in range(times):
        assert limiter.concurrency == 32
        limiter.failed(number, number - 0.5, 0.0, Fault("503", verdict, ""))
    assert limiter.concurrency == 24
    limiter.failed(times - 0.5, times - 2.0, 0.0, Fault("503", verdict, ""))
    assert limiter.concurrency == 24, "calls that were in flight together count once"
    for number in range(40):
        limiter.answered(number, number - 0.5, 0.0, None)
    assert limiter.concurrency == 32


def test_a_server_that_does_not_answer_for_a_minute_ends_the_run() -> None:
    limiter, fault = Limiter(4), Fault("500", Verdict.RETRY, "HTTP 500: oops")
    limiter.answered(0.0, -1.0, 0.0, None)
    told = [limiter.failed(float(second), second - 0.5, 0.0, fault) for second in range(1, 70)]
    assert told[:60] == [None] * 60 and "has not answered for 61 s" in (told[61] or "")
