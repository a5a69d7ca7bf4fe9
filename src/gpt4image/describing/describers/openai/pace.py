"""How fast a server may be asked: the rate it accepts, the calls it has room for, and the limits that the user set.

Pure bookkeeping: every method is told the time (seconds of a monotonic clock), nothing here waits. Whoever sends asks
``delay`` and ``room.free``, sends, and tells how it ended.

The rate starts low and doubles many times a second until the server refuses a call (429). From then on it is what the
server was seen to accept, raised by small steps ever more rarely. Concurrency is cut where the server has trouble.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

_FIRST_RATE = 32.0
_DOUBLING_S = 0.08
_FASTEST = 1e5
_SLOWEST = 1 / 60
# A call that is sent late may be followed by earlier ones, so that late timers do not lower the rate.
_CATCH_UP_S, _CATCH_UP_SHARE = 0.01, 0.25
# Calls that come back together would be sent together for ever, and wait for each other in the client each time: they
# are spread to at most this many times the calls that can be answered meanwhile.
_HASTE, _SMOOTHING = 3.0, 0.05
_EVIDENCE_S = 4.0
_FEW = 10
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 30.0
_LONGEST_REFUSAL_S = 1.0
_PATIENCE_S = (0.5, 60.0)
_STEP = (0.02, 0.5)
_BOLD_AFTER = 4
_MARK_S, _REMEMBERED_S = 0.25, 240.0
_TROUBLE_IN_ROW = 3
_DOWN_IN_ROW = 8
_DOWN_PAUSE_S = 3.0
_FIRST_TOKENS = 1000.0
_NEARLY_EMPTY = 0.1
_DURATION = re.compile(r"([\d.]+)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Ticket:
    """One call that was sent: its number from 0 on, when, and the tokens it was thought to take."""

    number: int
    sent_at: float
    tokens: float


class Pace:
    """When the next call may be sent."""

    def __init__(
        self, concurrency: int, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.room = Room(concurrency)
        self.rate = LearnedRate()
        self._requests = _Meter(requests_per_minute)
        self._tokens = _Meter(tokens_per_minute)
        self._token_sum, self._token_count = _FIRST_TOKENS, 0
        self._latency: float | None = None
        self._evenly_at = -math.inf
        self._number = 0

    def delay(self, now: float) -> float:
        """Return how long to wait before the next call, in seconds; 0: it may be sent."""
        free_at = max(self.rate.free_at(now), self._evenly_at, self._requests.free_at, self._tokens.free_at)
        return max(0.0, free_at - now)

    def sent(self, now: float, answers: int = 1) -> Ticket:
        """Count a call that asks for so many answers."""
        ticket = Ticket(self._number, now, self._mean_tokens * answers)
        self._number += 1
        self.rate.sent(now)
        if self._latency is not None:
            self._evenly_at = max(self._evenly_at, now - _CATCH_UP_S) + self._latency / (_HASTE * self.room.limit)
        self._requests.take(1, now)
        self._tokens.take(ticket.tokens, now)
        return ticket

    def answered(self, ticket: Ticket, now: float, tokens: int | None, headers: Mapping[str, str]) -> None:
        """Count an answer, the tokens it took, and what its headers say about limits."""
        self.room.answered()
        latency = now - ticket.sent_at
        self._latency = latency if self._latency is None else self._latency + _SMOOTHING * (latency - self._latency)
        if tokens is not None:
            self._token_sum = tokens + (self._token_sum if self._token_count else 0.0)
            self._token_count += 1
            self._tokens.take(tokens - ticket.tokens, now)
        for what, cost in (("requests", 1.0), ("tokens", self._mean_tokens)):
            refill = _refill(headers, what)
            if refill is not None:
                self.rate.limit_to(refill / cost, now)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None) -> None:
        """Count a call that the server refused because there were too many."""
        self._tokens.take(-ticket.tokens, now)
        self.rate.refused(ticket, now, retry_after, self._number)

    def failed(self, ticket: Ticket, now: float, *, overloaded: bool, lost: bool) -> None:
        """Count a call that failed.

        Args:
            ticket: the call.
            now: the time.
            overloaded: the server said that it has too much to do.
            lost: there was no response (time-out, broken connection); several in a row say the same.
        """
        self._tokens.take(-ticket.tokens, now)
        self.rate.pause(now, self.room.failed(ticket, now, self._number, overloaded=overloaded, lost=lost))

    @property
    def _mean_tokens(self) -> float:
        return self._token_sum / max(1, self._token_count)


class LearnedRate:
    """Calls per second that the server accepts, as ``value``.

    A refusal opens an episode: nothing is sent for a moment. Where the first call after that is refused too, the server
    is closed (its budget of this second or minute is used up), and it is tried again after longer pauses. Otherwise
    the rate was a little too high.
    """

    def __init__(self) -> None:
        self.value = _FIRST_RATE
        self._ramping = True
        self._began = 0.0
        self._settled_at = math.inf
        self._next = -math.inf
        self._paused_until = -math.inf
        self._first_after_pause = 0
        self._closed_since = 0.0
        self._history = _History()
        self._refused_at = math.inf
        self._step, self._raises = _STEP[0], 0
        self._patience = _PATIENCE_S[0]
        self._raise_at = 0.0
        self._probing = False
        self._refusal_s = 0.0

    def free_at(self, now: float) -> float:
        """Return when the next call may be sent."""
        self._grow(now)
        return max(self._next, self._paused_until)

    def sent(self, now: float) -> None:
        """Count a call."""
        if not self._history.accepted:
            self._began = now if self._ramping else self._began
        self._history.add(1, now)
        self._next = max(self._next, now - max(_CATCH_UP_S, _CATCH_UP_SHARE / self.value)) + 1 / self.value
        if self._probing:
            self._probing = False
            self.pause(now, self._refusal_s)

    def pause(self, now: float, seconds: float) -> None:
        """Send nothing for so long."""
        self._paused_until = max(self._paused_until, now + seconds)

    def limit_to(self, rate: float, now: float) -> None:
        """Go no faster than this for now."""
        if rate < self.value:
            self._lower(rate, now)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None, next_number: int) -> None:
        """Learn from the refusal of a call; those that were on their way when the episode began tell nothing new."""
        self._history.add(-1, now)
        self._refusal_s = min(_LONGEST_REFUSAL_S, max(0.9 * self._refusal_s, 1.2 * (now - ticket.sent_at)))
        if ticket.number < self._first_after_pause:
            return
        if self._first_after_pause == ticket.number > 0:
            pause = self._still_closed(now, retry_after or 0.0)
        else:
            pause = self._first_refusal(now, retry_after or 0.0)
        self.pause(now, pause)
        self._first_after_pause = next_number

    def _first_refusal(self, now: float, retry_after: float) -> float:
        self._closed_since = now
        rate = self.value
        if self._ramping:
            accepted = self._history.accepted
            pause = max(retry_after, 2 / rate)
            self._probing = True
            self._lower(max(accepted / max(1.0, now - self._began), min(rate / 2, 1 / pause)), now)
            self._settled_at = now + pause + _EVIDENCE_S
            self._step = _STEP[1] if accepted < _FEW else _STEP[0]
            return pause
        if now < self._settled_at:
            self._lower(0.85 * rate, now)
        else:
            self._lower(max(0.9 * rate, self._history.rate(now, _EVIDENCE_S)), now)
        return min(1.0, 2 / rate)  # the call that was refused waits as long as it was told; the others go on

    def _still_closed(self, now: float, retry_after: float) -> float:
        self._probing = True
        closed = now - self._closed_since
        pause = max(retry_after, _SHORTEST_PAUSE_S, min(_LONGEST_PAUSE_S, 0.4 * closed))
        if closed > 1:
            self.limit_to(self._history.rate(now, 4 * closed), now)
            self._patience = max(self._patience, min(_PATIENCE_S[1], closed))
        elif now < self._settled_at:
            self.limit_to(max(self._history.accepted / max(1.0, now - self._began), 1 / (closed + pause)), now)
        return pause

    def _lower(self, rate: float, now: float) -> None:
        """Take a lower rate; try a higher one later, and later still each time that much the same was refused."""
        again = not self._ramping and 0.93 < self.value / self._refused_at < 1.1
        self._patience = min(_PATIENCE_S[1], 2 * self._patience) if again else _PATIENCE_S[0]
        self._refused_at = self.value
        self.value = max(_SLOWEST, min(rate, self.value))
        self._ramping = False
        self._step, self._raises = _STEP[0], 0
        self._raise_at = now + self._patience

    def _grow(self, now: float) -> None:
        if self._ramping and self._history.accepted:
            self.value = min(_FASTEST, _FIRST_RATE * 2 ** min(64.0, (now - self._began) / _DOUBLING_S))
        elif not self._ramping and now >= max(self._raise_at, self._paused_until):
            self.value = min(_FASTEST, self.value * (1 + self._step))
            self._raises += 1
            if self._raises >= _BOLD_AFTER:
                self._step = min(_STEP[1], 2 * self._step)
                self._patience = max(_PATIENCE_S[0], self._patience / 2)
            self._raise_at = now + self._patience


class _History:
    """How many calls were accepted, as far as is known, over the last minutes."""

    def __init__(self) -> None:
        self.accepted = 0
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, calls: int, now: float) -> None:
        if not self._marks or now >= self._marks[-1][0] + _MARK_S:
            self._marks.append((now, self.accepted))
        while self._marks[0][0] < now - _REMEMBERED_S:
            self._marks.popleft()
        self.accepted += calls

    def rate(self, now: float, seconds: float) -> float:
        """Return the accepted calls per second since about so long ago."""
        time, accepted = next((mark for mark in self._marks if mark[0] >= now - seconds), self._marks[-1])
        return max(1, self.accepted - accepted) / max(now - time, _MARK_S)


class Room:
    """Calls that may be in flight at once. ``taken`` and ``leave`` are called by who holds the places."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._taken = 0
        self._first_after_cut = 0
        self._lost_in_row = 0
        self.failed_in_row = 0
        self.failing_since = 0.0

    @property
    def free(self) -> bool:
        """Whether there is room for one more call. A server that is down gets one at a time."""
        return self._taken < self.limit

    @property
    def limit(self) -> int:
        """Most calls in flight for now."""
        return 1 if self.failed_in_row >= _DOWN_IN_ROW else max(1, int(self._limit))

    def take(self) -> None:
        """Take a place."""
        self._taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self._taken -= 1

    def clear(self) -> None:
        """Give all places back."""
        self._taken = 0

    def answered(self) -> None:
        """Count a response; a quarter of a place is won back."""
        self._limit = min(self._most, self._limit + 0.25)
        self._lost_in_row = self.failed_in_row = 0

    def failed(self, ticket: Ticket, now: float, next_number: int, *, overloaded: bool, lost: bool) -> float:
        """Count a failure and return how long to send nothing, in seconds.

        Overload cuts the places by a quarter, once for all calls that were in flight together.
        """
        if self.failed_in_row == 0:
            self.failing_since = now
        self.failed_in_row += 1
        self._lost_in_row = self._lost_in_row + 1 if lost else 0
        trouble = overloaded or self._lost_in_row >= _TROUBLE_IN_ROW
        if trouble and ticket.number >= self._first_after_cut and self.failed_in_row < _DOWN_IN_ROW:
            self._limit = max(1.0, 0.75 * min(self._limit, self._most))
            self._first_after_cut = next_number
        if self.failed_in_row < _DOWN_IN_ROW:
            return 0.0
        return min(_DOWN_PAUSE_S, 0.4 * (now - self.failing_since))


class _Meter:
    """A hard limit per minute, spent evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self.free_at = -math.inf

    def take(self, amount: float, now: float) -> None:
        """Spend an amount, or give some back."""
        if self._interval:
            self.free_at = max(self.free_at, now if amount > 0 else -math.inf) + amount * self._interval


def _refill(headers: Mapping[str, str], what: str) -> float | None:
    """Return how much of a nearly used budget comes back each second, from headers as OpenAI sends them.

    ``reset`` is the time until the budget is whole again, so what is missing comes back in that time.
    """
    if f"x-ratelimit-remaining-{what}" not in headers:
        return None
    try:
        limit = float(headers[f"x-ratelimit-limit-{what}"])
        left = float(headers[f"x-ratelimit-remaining-{what}"])
        reset = duration(headers[f"x-ratelimit-reset-{what}"])
    except (KeyError, ValueError):
        return None
    if not 0 <= left <= _NEARLY_EMPTY * limit or not 0 < reset < math.inf:
        return None
    return (limit - left) / reset


def duration(text: str) -> float:
    """Return a duration such as ``6m0s``, ``20ms`` or ``1.5`` in seconds. Raises ValueError for anything else."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    return float(text)
