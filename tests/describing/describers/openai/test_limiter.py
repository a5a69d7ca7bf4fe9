"""The limiter against servers that are a few lines, in virtual time: their limits are reached and hardly crossed."""

import heapq
import itertools
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from gpt4image.describing.describers.openai.limiter import Limiter

Accepts = Callable[[float], float | None]
"""Time of a call -> None where it is accepted, else the seconds until the server is open again."""


def windows(cap: int, phase: float = 0.0) -> Accepts:
    """At most ``cap`` calls in each second of the server's clock."""
    taken: dict[int, int] = {}

    def accepts(now: float) -> float | None:
        window = int(now + phase)
        taken[window] = taken.get(window, 0) + 1
        return None if taken[window] <= cap else window + 1 - phase - now

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
    calls: list[float]
    rate: float
    calls_per_answer: float


def run(limiter: Limiter, accepts: Accepts, answers: int, *, latency: float = 0.05, told: str = "") -> Result:
    """Send until so many calls were answered; timers are up to 3 ms late, refusals come after 5 ms."""
    rng, order, now, calls, done, wanted = random.Random(0), itertools.count(), 0.0, list[float](), 0, answers
    arriving: list[tuple[float, int, float, float | None]] = []
    again: list[float] = []
    while done < answers:
        while (wanted or (again and again[0] <= now)) and limiter.has_room and limiter.delay(now) <= 0:
            if again and again[0] <= now:
                heapq.heappop(again)
            else:
                wanted -= 1
            limiter.in_flight += 1
            closed = accepts(now + 0.001)
            limiter.sent(now)
            calls.append(now)
            back = now + (latency if closed is None else 0.005) + rng.uniform(0, 0.003)
            heapq.heappush(arriving, (back, next(order), now, closed))
        times = [arriving[0][0]] if arriving else []
        times += [again[0]] if again and again[0] > now else []
        if (wanted or (again and again[0] <= now)) and limiter.has_room:
            times.append(now + limiter.delay(now) + rng.uniform(1e-6, 0.003))
        now = min(times)
        while arriving and arriving[0][0] <= now:
            _, _, sent_at, closed = heapq.heappop(arriving)
            limiter.in_flight -= 1
            if closed is None:
                limiter.answered(sent_at)
                done += 1
            else:
                wait = {"": 0.0, "ms": closed, "s": max(1.0, round(closed))}[told]
                limiter.refused(now, sent_at, wait)
                heapq.heappush(again, now + wait + rng.uniform(0, 0.5))
    return Result(calls, done / now, len(calls) / done)


SERVERS = {
    **{f"windows, phase {phase}": lambda phase=phase: windows(20, phase) for phase in (0.0, 0.7)},
    **{f"bucket of {burst}": lambda burst=burst: bucket(20, burst) for burst in (5, 40)},
}


@pytest.mark.parametrize(("told", "latency"), [("", 0.05), ("", 0.5), ("", 2.0), ("ms", 0.05), ("s", 0.5)])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cap_is_reached_and_hardly_ever_crossed(server: str, told: str, latency: float) -> None:
    result = run(Limiter(64), SERVERS[server](), 2000, latency=latency, told=told)
    assert result.rate >= 0.9 * 20 and result.calls_per_answer <= 1.05


@pytest.mark.parametrize(("latency", "seconds"), [(0.05, 30), (1.0, 60)])
def test_a_server_without_a_cap_is_kept_busy(latency: float, seconds: float) -> None:
    result = run(Limiter(256), lambda _: None, int(seconds * 256 / latency), latency=latency)
    assert result.rate >= 0.97 * 256 / (latency + 0.0015)
    assert result.calls[5] > 0.1, "the first calls are not sent all at once"


def test_the_users_limit_holds_in_every_minute() -> None:
    result = run(Limiter(64, requests_per_minute=120), lambda _: None, 600)
    for start in range(0, len(result.calls), 7):
        assert sum(result.calls[start] <= time < result.calls[start] + 60 for time in result.calls) <= 121
    assert result.rate >= 0.97 * 2


def test_an_overloaded_server_gets_fewer_calls_at_a_time_and_all_again_once_it_answers() -> None:
    def room(limiter: Limiter) -> int:
        return next(n for n in itertools.count(1) if not (setattr(limiter, "in_flight", n) or limiter.has_room))

    limiter = Limiter(32)
    for now, sent_at, expected in ((1.0, 0.5, 24), (1.1, 0.5, 24), (2.0, 1.5, 18)):  # those in flight together once
        limiter.overloaded(now, sent_at)
        assert room(limiter) == expected
    for _ in range(60):
        limiter.answered(3.0)
    assert room(limiter) == 32
