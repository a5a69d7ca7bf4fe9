"""The rate limiter against servers that exist as a few lines and virtual time only."""

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

from gpt4image.describing.describers.openai.faults import Fault, Verdict
from gpt4image.describing.describers.openai.rate_limiter import RateLimiter

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


def fault(verdict: Verdict, wait: float | None = None) -> Fault:
    return Fault("", verdict, "", wait)


def run(
    limiter: RateLimiter,
    accepts: Accepts,
    answers: int,
    *,
    latency: float = 0.05,
    retry_after: str = "",
    tokens: int | None = None,
) -> Result:
    """Send until so many calls were answered; timers are up to 3 ms late, refusals come after 5 ms."""
    rng = random.Random(0)
    now, calls, done, in_flight, wanted = 0.0, [], 0, 0, answers
    arriving: list = []
    again: list[float] = []
    order = itertools.count()
    while done < answers:
        while (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency and limiter.delay(now) <= 0:
            if again and again[0] <= now:
                heapq.heappop(again)
            else:
                wanted -= 1
            in_flight += 1
            ticket, closed = limiter.sent(now), accepts(now + 0.001)
            calls.append(now)
            back = now + (latency if closed is None else 0.005) + rng.uniform(0, 0.003)
            heapq.heappush(arriving, (back, next(order), ticket, closed))
        times = [arriving[0][0]] if arriving else []
        times += [again[0]] if again and again[0] > now else []
        if (wanted or (again and again[0] <= now)) and in_flight < limiter.concurrency:
            times.append(now + limiter.delay(now) + rng.uniform(1e-6, 0.003))
        now = min(times)
        while arriving and arriving[0][0] <= now:
            _, _, ticket, closed = heapq.heappop(arriving)
            in_flight -= 1
            if closed is None:
                limiter.answered(ticket, now, tokens)
                done += 1
            else:
                wait = {"": None, "ms": closed, "s": max(1.0, round(closed))}[retry_after]
                limiter.failed(ticket, now, fault(Verdict.LIMITED, wait))
                heapq.heappush(again, now + (wait or 0.0) + rng.uniform(0, 0.5))
    return Result(now, calls, done)


SERVERS = {
    **{f"windows, phase {phase}": lambda phase=phase: windows(20, phase=phase) for phase in (0.0, 0.3, 0.7, 0.95)},
    **{f"bucket of {burst}": lambda burst=burst: bucket(20, burst) for burst in (5, 20, 40)},
}


@pytest.mark.parametrize("retry_after", ["", "ms", "s"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cap_is_reached_and_hardly_ever_crossed(server: str, retry_after: str) -> None:
    result = run(RateLimiter(64), SERVERS[server](), 2000, retry_after=retry_after)
    assert result.rate >= 0.97 * 20
    assert result.calls_per_answer <= 1.05


def by_chance(share: float, accepts: Accepts) -> Accepts:
    """A server that also refuses a share of all calls, whatever their rate."""
    rng = random.Random(1)
    return lambda now: 0.0 if rng.random() < share else accepts(now)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_refusals_by_chance_do_not_hold_the_rate_down(share: float) -> None:
    """256 calls of a second in flight; the rate fell to 2 to 11 % of what is possible."""
    result = run(RateLimiter(256), by_chance(share, unlimited), 40_000, latency=1.0)
    assert result.rate >= 0.75 * 256 and result.calls_per_answer <= 1.02 / (1 - share)


def test_a_cap_holds_where_calls_are_refused_by_chance_too() -> None:
    result = run(RateLimiter(64), by_chance(0.1, bucket(20, 20)), 2000)
    assert result.rate >= 0.75 * 20 and result.calls_per_answer <= 1.4


@pytest.mark.parametrize("server", SERVERS)
def test_a_short_run_costs_few_refusals_too(server: str) -> None:
    result = run(RateLimiter(64), SERVERS[server](), 300, retry_after="s")
    assert result.rate >= 0.9 * 20
    assert result.calls_per_answer <= 1.05


def test_a_strict_server_without_any_burst_is_served_without_many_refusals() -> None:
    result = run(RateLimiter(64), bucket(20, 1), 2000)
    assert result.rate >= 0.7 * 20
    assert result.calls_per_answer <= 1.08


@pytest.mark.parametrize(("cap", "share"), [(5, 0.93), (200, 0.9)])
def test_other_caps(cap: int, share: float) -> None:
    assert run(RateLimiter(128), windows(cap), 20 * cap).rate >= share * cap


def test_a_budget_per_minute_is_learned() -> None:
    result = run(RateLimiter(32), windows(60, 60.0, phase=20.0), 600, retry_after="s")
    assert result.rate >= 0.9
    assert result.calls_per_answer <= 1.06


def test_a_cap_that_is_lifted_is_noticed() -> None:
    capped = windows(20)
    result = run(RateLimiter(256), lambda now: capped(now) if now < 20 else None, 20_000)
    assert result.seconds < 100


@pytest.mark.parametrize("latency", [0.05, 1.0])
def test_a_server_without_a_cap_is_kept_busy(latency: float) -> None:
    answers = int(60 * 256 / latency)
    result = run(RateLimiter(256), unlimited, answers, latency=latency)
    ideal = 256 / (latency + 0.0015)
    assert result.rate >= 0.97 * ideal
    assert result.calls[5] > 0.1, "the first calls are not sent all at once"


def test_the_users_limits_hold_in_every_minute() -> None:
    result = run(RateLimiter(64, requests_per_minute=120), unlimited, 600)
    for start in range(0, len(result.calls), 7):
        inside = sum(result.calls[start] <= time < result.calls[start] + 60 for time in result.calls)
        assert inside <= 121
    assert result.rate >= 0.97 * 2


def test_the_users_token_limit_holds_once_the_tokens_of_a_call_are_known() -> None:
    result = run(RateLimiter(64, tokens_per_minute=60_000), unlimited, 600, tokens=250)
    assert result.rate == pytest.approx(4.0, rel=0.1)


def test_a_retry_after_is_a_minimum_for_everybody() -> None:
    limiter = RateLimiter(64)
    for ticket in [limiter.sent(0.0), limiter.sent(0.05)]:
        limiter.failed(ticket, 0.1, fault(Verdict.LIMITED, 7.0))
    assert limiter.delay(0.1) == pytest.approx(7.0)


def test_overload_cuts_concurrency_once_for_calls_in_flight_together_and_answers_restore_it() -> None:
    limiter = RateLimiter(100)
    tickets = [limiter.sent(0.0) for _ in range(40)]
    for ticket in tickets[:5]:
        limiter.failed(ticket, 1.0, fault(Verdict.OVERLOADED))
    assert limiter.concurrency == 75
    for ticket in tickets[5:]:
        limiter.answered(ticket, 1.0, None)
    assert limiter.concurrency == 83
    for _ in range(100):
        limiter.answered(limiter.sent(2.0), 2.0, None)
    assert limiter.concurrency == 100


def test_chance_failures_do_not_cut_concurrency_and_lost_calls_in_a_row_do() -> None:
    limiter = RateLimiter(100)
    for _ in range(50):
        limiter.failed(limiter.sent(0.0), 0.0, fault(Verdict.RETRY))
        limiter.answered(limiter.sent(0.0), 0.0, None)
    assert limiter.concurrency == 100
    for _ in range(3):
        limiter.failed(limiter.sent(1.0), 1.5, fault(Verdict.LOST))
    assert limiter.concurrency == 75


EVENTS = st.lists(
    st.tuples(st.none() | st.sampled_from(Verdict), st.floats(0, 100), st.none() | st.floats(0, 1e4)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(1, 300), st.none() | st.floats(0.01, 1e6))
def test_whatever_happens_calls_go_on(
    events: list[tuple[Verdict | None, float, float | None]], concurrency: int, per_minute: float | None
) -> None:
    limiter = RateLimiter(concurrency, requests_per_minute=per_minute, tokens_per_minute=per_minute)
    now = 0.0
    for verdict, seconds, retry_after in events:
        now += limiter.delay(now)
        assert limiter.delay(now) <= 1e-6 * max(1.0, now)
        ticket = limiter.sent(now)
        now += seconds
        if verdict is None:
            limiter.answered(ticket, now, int(seconds))
        else:
            limiter.failed(ticket, now, fault(verdict, retry_after))
        assert 1 <= limiter.concurrency <= concurrency
        assert 0 < limiter.rate.value(now) < math.inf
        assert limiter.delay(now) < math.inf
