"""The pace against servers that exist as a few lines and virtual time only."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.describing.describers.openai.pace import Pace, duration

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


def unlimited(_now: float) -> None:
    return None


@dataclass
class Result:
    seconds: float
    calls: list[float]
    answers: int

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def calls_per_answer(self) -> float:
        return len(self.calls) / self.answers


def run(
    pace: Pace,
    accepts: Accepts,
    answers: int,
    *,
    latency: float = 0.05,
    retry_after: str = "",
    tokens: int | None = None,
) -> Result:
    """Send until so many calls were answered; timers are up to 3 ms late, refusals come after 5 ms."""
    chance = random.Random(0)
    now, calls, done = 0.0, [], 0
    wanted = answers
    arriving: list = []
    again: list[float] = []
    order = itertools.count()
    while done < answers:
        while (wanted or (again and again[0] <= now)) and pace.room.free and pace.delay(now) <= 0:
            if again and again[0] <= now:
                heapq.heappop(again)
            else:
                wanted -= 1
            pace.room.take()
            ticket, closed = pace.sent(now), accepts(now + 0.001)
            calls.append(now)
            back = now + (latency if closed is None else 0.005) + chance.uniform(0, 0.003)
            heapq.heappush(arriving, (back, next(order), ticket, closed))
        times = [arriving[0][0]] if arriving else []
        times += [again[0]] if again and again[0] > now else []
        if (wanted or (again and again[0] <= now)) and pace.room.free:
            times.append(now + pace.delay(now) + chance.uniform(1e-6, 0.003))
        now = min(times)
        while arriving and arriving[0][0] <= now:
            _, _, ticket, closed = heapq.heappop(arriving)
            pace.room.leave()
            if closed is None:
                pace.answered(ticket, now, tokens, {})
                done += 1
            else:
                wait = {"": None, "ms": closed, "s": max(1.0, round(closed))}[retry_after]
                pace.refused(ticket, now, wait)
                heapq.heappush(again, now + (wait or 0.0) + chance.uniform(0, 0.5))
    return Result(now, calls, done)


SERVERS = {
    **{f"windows, phase {phase}": lambda phase=phase: windows(20, phase=phase) for phase in (0.0, 0.3, 0.7, 0.95)},
    **{f"bucket of {burst}": lambda burst=burst: bucket(20, burst) for burst in (5, 20, 40)},
}


@pytest.mark.parametrize("retry_after", ["", "ms", "s"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cap_is_reached_and_hardly_ever_crossed(server: str, retry_after: str) -> None:
    result = run(Pace(64), SERVERS[server](), 2000, retry_after=retry_after)
    assert result.rate >= 0.97 * 20
    assert result.calls_per_answer <= 1.05


@pytest.mark.parametrize("server", SERVERS)
def test_a_short_run_costs_few_refusals_too(server: str) -> None:
    result = run(Pace(64), SERVERS[server](), 300, retry_after="s")
    assert result.rate >= 0.9 * 20
    assert result.calls_per_answer <= 1.05


def test_a_strict_server_without_any_burst_is_served_without_many_refusals() -> None:
    result = run(Pace(64), bucket(20, 1), 2000)
    assert result.rate >= 0.7 * 20
    assert result.calls_per_answer <= 1.08


@pytest.mark.parametrize(("cap", "share"), [(5, 0.93), (200, 0.9)])
def test_other_caps(cap: int, share: float) -> None:
    assert run(Pace(128), windows(cap), 20 * cap).rate >= share * cap


def test_a_budget_per_minute_is_learned() -> None:
    result = run(Pace(32), windows(60, 60.0, phase=20.0), 600, retry_after="s")
    assert result.rate >= 0.9
    assert result.calls_per_answer <= 1.06


def test_a_cap_that_is_lifted_is_noticed() -> None:
    capped = windows(20)
    result = run(Pace(256), lambda now: capped(now) if now < 20 else None, 20_000)
    assert result.seconds < 100


@pytest.mark.parametrize("latency", [0.05, 1.0])
def test_a_server_without_a_cap_is_kept_busy(latency: float) -> None:
    answers = int(60 * 256 / latency)
    result = run(Pace(256), unlimited, answers, latency=latency)
    ideal = 256 / (latency + 0.0015)
    assert result.rate >= 0.97 * ideal
    assert result.calls[5] > 0.1, "the first calls are not sent all at once"


def test_the_users_limits_hold_in_every_minute() -> None:
    result = run(Pace(64, requests_per_minute=120), unlimited, 600)
    for start in range(0, len(result.calls), 7):
        inside = sum(result.calls[start] <= time < result.calls[start] + 60 for time in result.calls)
        assert inside <= 121
    assert result.rate >= 0.97 * 2


def test_the_users_token_limit_holds_once_the_tokens_of_a_call_are_known() -> None:
    result = run(Pace(64, tokens_per_minute=60_000), unlimited, 600, tokens=250)
    assert result.rate == pytest.approx(4.0, rel=0.1)


def test_headers_slow_down_before_a_refusal_comes() -> None:
    pace = Pace(64)
    ticket = pace.sent(0.0)
    headers = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "48s",
    }
    pace.answered(ticket, 0.1, None, headers)
    assert pace.rate.value == pytest.approx(2.0)


@pytest.mark.parametrize(("text", "seconds"), [("6m0s", 360.0), ("20ms", 0.02), ("1.5", 1.5), ("1h2m3.5s", 3723.5)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "3 weeks", "5s!"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        duration(text)


def test_a_retry_after_is_a_minimum_for_everybody() -> None:
    pace = Pace(64)
    tickets = [pace.sent(0.0), pace.sent(0.05)]
    pace.refused(tickets[0], 0.1, 7.0)
    pace.refused(tickets[1], 0.1, 7.0)
    assert pace.delay(0.1) == pytest.approx(7.0)


def test_overload_cuts_concurrency_once_for_calls_in_flight_together_and_answers_restore_it() -> None:
    pace = Pace(100)
    tickets = [pace.sent(0.0) for _ in range(40)]
    for ticket in tickets[:5]:
        pace.failed(ticket, 1.0, overloaded=True, lost=False)
    assert pace.room.limit == 75
    for ticket in tickets[5:]:
        pace.answered(ticket, 1.0, None, {})
    assert pace.room.limit == 83
    for _ in range(100):
        pace.answered(pace.sent(2.0), 2.0, None, {})
    assert pace.room.limit == 100


def test_chance_failures_cut_nothing_and_a_server_that_is_down_gets_one_call_at_a_time() -> None:
    pace = Pace(100)
    for _ in range(50):
        pace.failed(pace.sent(0.0), 0.0, overloaded=False, lost=False)
        pace.answered(pace.sent(0.0), 0.0, None, {})
    assert pace.room.limit == 100
    for second in range(20):
        pace.failed(pace.sent(second), second + 0.5, overloaded=False, lost=True)
    assert pace.room.limit == 1
    assert 0 < pace.delay(20.0) <= 3.0
    pace.answered(pace.sent(30.0), 30.0, None, {})
    assert pace.room.limit > 1


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["answered", "refused", "lost", "overloaded", "chance"]),
        st.floats(0, 100),
        st.none() | st.floats(0, 1e4),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(1, 300), st.none() | st.floats(0.01, 1e6))
def test_whatever_happens_the_pace_goes_on(
    events: list[tuple[str, float, float | None]], concurrency: int, per_minute: float | None
) -> None:
    pace = Pace(concurrency, requests_per_minute=per_minute, tokens_per_minute=per_minute)
    now = 0.0
    for kind, seconds, retry_after in events:
        now += max(pace.delay(now), 0.0)
        assert pace.delay(now) <= 1e-6 * max(1.0, now)
        ticket = pace.sent(now)
        now += seconds
        if kind == "answered":
            pace.answered(ticket, now, int(seconds), {})
        elif kind == "refused":
            pace.refused(ticket, now, retry_after)
        else:
            pace.failed(ticket, now, overloaded=kind == "overloaded", lost=kind == "lost")
        assert 1 <= pace.room.limit <= concurrency
        assert 0 < pace.rate.value < math.inf
        assert pace.delay(now) < math.inf
