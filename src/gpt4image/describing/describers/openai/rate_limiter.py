"""A rate limiter that learns the rate a server accepts from its refusals, as servers rarely state their limits.

Only bookkeeping: every method is given the time in seconds of a monotonic clock, and nothing here waits. The rate
doubles many times a second until a call is refused with 429. From then on it is what the server was seen to accept. It
grows slowly at first, then ever faster, in the manner of CUBIC (RFC 9438), and more slowly each time that much the same
rate is refused. Few calls are wasted so: 1.02 to 1.04 calls per answer at a server that takes 20 a second.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from gpt4image.describing.describers.openai.faults import Fault, Verdict

_FIRST_RATE, _DOUBLING_S = 32.0, 0.095
_SLOWEST, _FASTEST = 1 / 60, 1e5
_LINEAR, _CUBIC = 0.02, 0.0005  # growth per unit of patience
_PATIENCE_S = (0.5, 60.0)
_FEW, _FEW_PATIENCE_S = 12, 0.09
_EVIDENCE_S, _REMEMBERED_S, _MARK_S = 4.0, 240.0, 0.25
_PAUSE_S = (0.05, 30.0)
# A call that is sent late may be followed by earlier ones, so that late timers do not lower the rate.
_CATCH_UP_S, _CATCH_UP_SHARE = 0.01, 0.25
# Calls that come back together would be sent together again and queue in the client: they are spread to at most this
# many times the calls that can be answered meanwhile.
_HASTE, _SMOOTHING = 3.0, 0.05
_LOST_IN_ROW = 3
_FIRST_TOKENS = 1000.0
# Some servers refuse calls by chance, whatever the rate. Refusals at a rate below _EASY of what the server was seen to
# accept are of this kind; after _ODD of them, as large a share is expected.
_EASY, _ODD, _MOST_CHANCE, _SIGMAS = 0.75, 3, 0.5, 3.0
_RECENT, _LEAST_CALLS = 256, 64


@dataclass(frozen=True)
class Ticket:
    """A call that was sent: its number from 0 on, when, and the tokens it was expected to take."""

    number: int
    sent_at: float
    tokens: float


class RateLimiter:
    """When the next call may be sent, and how many may be in flight: ``concurrency``."""

    def __init__(
        self, concurrency: int, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.rate = LearnedRate()
        self._requests = _Budget(requests_per_minute)
        self._tokens = _Budget(tokens_per_minute)
        self._mean_tokens, self._token_counts = _FIRST_TOKENS, 0
        self._latency: float | None = None
        self._evenly_at = -math.inf
        self._number = 0
        self._most = self._concurrency = float(concurrency)
        self._first_after_cut = self._lost_in_row = 0

    @property
    def concurrency(self) -> int:
        """Maximum calls in flight for now."""
        return max(1, int(self._concurrency))

    def delay(self, now: float) -> float:
        """Return how long to wait before the next call, in seconds."""
        return max(0.0, max(self.rate.free_at, self._evenly_at) - now, self.own_delay(now))

    def own_delay(self, now: float) -> float:
        """Return how long the limits that the user gave hold the next call, in seconds."""
        return max(0.0, max(self._requests.free_at, self._tokens.free_at) - now)

    def sent(self, now: float, answers: int = 1) -> Ticket:
        """Count a call that asks for so many answers."""
        ticket = Ticket(self._number, now, self._mean_tokens * answers)
        self._number += 1
        self.rate.sent(now)
        if self._latency is not None:
            self._evenly_at = max(self._evenly_at, now - _CATCH_UP_S) + self._latency / (_HASTE * self.concurrency)
        self._requests.take(1, now)
        self._tokens.take(ticket.tokens, now)
        return ticket

    def answered(self, ticket: Ticket, now: float, tokens: int | None) -> None:
        """Count a response and the tokens it took; win back a quarter of a cut."""
        self._concurrency = min(self._most, self._concurrency + 0.25)
        self._lost_in_row = 0
        self.rate.chance.count(refused=False)
        latency = now - ticket.sent_at
        self._latency = latency if self._latency is None else self._latency + _SMOOTHING * (latency - self._latency)
        if tokens is not None:
            self._token_counts += 1
            self._mean_tokens += (tokens - self._mean_tokens) / self._token_counts
            self._tokens.take(tokens - ticket.tokens, now)

    def failed(self, ticket: Ticket, now: float, fault: Fault) -> None:
        """Count a call that failed; overload, or several lost calls in a row, cut the concurrency by a quarter."""
        if fault.verdict in (Verdict.FILTERED, Verdict.GIVE_UP, Verdict.STOP):
            self.answered(ticket, now, None)
            return
        self._tokens.take(-ticket.tokens, now)
        if fault.verdict is Verdict.LIMITED:
            self.rate.refused(ticket, now, fault.retry_after or 0.0, self._number)
            return
        self._lost_in_row = self._lost_in_row + 1 if fault.verdict is Verdict.LOST else 0
        trouble = fault.verdict is Verdict.OVERLOADED or self._lost_in_row >= _LOST_IN_ROW
        if trouble and ticket.number >= self._first_after_cut:  # once for all calls that were in flight together
            self._concurrency = max(1.0, 0.75 * self._concurrency)
            self._first_after_cut = self._number


class LearnedRate:
    """Calls per second that the server accepts.

    A refusal begins an episode: nothing is sent for a moment. Where the next call is refused too, the budget of this
    second or minute is used up, and single calls are tried after longer and longer pauses. Else the rate was a little
    too high.
    """

    def __init__(self) -> None:
        self._base, self._since = _FIRST_RATE, 0.0
        self._refused_rate = math.inf  # rate at the last refusal
        self._patience = _PATIENCE_S[0]
        self._ramping = True
        self._settled_at = math.inf
        self._next = self._paused_until = -math.inf
        self._first_after_pause = 0
        self._closed_since = 0.0
        self._probe_s: float | None = None  # how long the answer to the next call is waited for
        self._accepted = 0
        self._history: deque[tuple[float, int]] = deque()
        self.chance = Chance()

    @property
    def free_at(self) -> float:
        """When the next call may be sent."""
        return max(self._next, self._paused_until)

    def value(self, now: float) -> float:
        """Return the rate in calls per second."""
        seconds = max(0.0, now - max(self._since, self._paused_until)) if self._history else 0.0
        periods = seconds / self._patience
        growth = seconds * math.log(2) / _DOUBLING_S if self._ramping else _LINEAR * periods + _CUBIC * periods**3
        return min(_FASTEST, self._base * math.exp(min(growth, 20.0)))

    def sent(self, now: float) -> None:
        """Count a call."""
        if not self._history:
            self._since = now
        if not self._history or now >= self._history[-1][0] + _MARK_S:
            self._history.append((now, self._accepted))
        while self._history[0][0] < now - _REMEMBERED_S:
            self._history.popleft()
        self._accepted += 1
        rate = self.value(now)
        if rate > 1.15 * self._refused_rate:  # the limit was raised
            self._base, self._since, self._patience, self._refused_rate = rate, now, _PATIENCE_S[0], math.inf
        self._next = max(self._next, now - max(_CATCH_UP_S, _CATCH_UP_SHARE / rate)) + 1 / rate
        if self._probe_s is not None:
            self._paused_until, self._probe_s = now + self._probe_s, None

    def limit_to(self, rate: float, now: float) -> None:
        """Go no faster than this for now."""
        current = self.value(now)
        if rate >= current:
            return
        again = current > 0.93 * self._refused_rate
        self._patience = min(_PATIENCE_S[1], 2 * self._patience) if again else _PATIENCE_S[0]
        self._refused_rate = math.inf if self._ramping else current
        self._base, self._since, self._ramping = max(_SLOWEST, rate), now, False

    def refused(self, ticket: Ticket, now: float, retry_after: float, next_number: int) -> None:
        """Learn from a refusal; calls that were on their way when the episode began say nothing new."""
        self._accepted -= 1
        if ticket.number < self._first_after_pause:
            return
        rate, ramping = self.value(now), self._ramping
        if self.chance.explains(ticket.number, ramping=ramping):
            return
        settled = now > self._settled_at  # else what was seen may be a burst
        if settled and not ramping and self.chance.found(ticket.number, rate, self._seen(now, _EVIDENCE_S)):
            self._base, self._since, self._ramping, self._refused_rate = rate, now, True, math.inf
            return
        if still_closed := ticket.number == self._first_after_pause > 0:
            closed = now - self._closed_since
            pause = max(retry_after, _PAUSE_S[0], min(_PAUSE_S[1], 0.4 * closed))
            if closed > 1 or now < self._settled_at:
                self.limit_to(self._seen(now, max(_EVIDENCE_S, 4 * closed)), now)
            self._patience = max(self._patience, min(_PATIENCE_S[1], closed))
        elif ramping:
            self._closed_since = now
            pause = max(retry_after, 2 / rate)
            self._settled_at = now + pause + _EVIDENCE_S
            self.limit_to(min(rate / 2, max(self._seen(now, _EVIDENCE_S), 1 / pause)), now)
            if self._accepted < _FEW:  # little is known about the rate
                self._patience = _FEW_PATIENCE_S
        else:
            # The call that was refused waits as long as the server asks; the others go on.
            self._closed_since, pause = now, min(1.0, 2 / rate)
            seen = self._seen(now, _EVIDENCE_S)
            self.limit_to(min(0.98 * rate, max(0.9 * rate, seen)) if now > self._settled_at else 0.85 * rate, now)
        if still_closed or ramping:
            self._probe_s = min(1.0, 1.2 * (now - ticket.sent_at))
        self._paused_until = max(self._paused_until, now + pause)
        self._first_after_pause = next_number

    def _seen(self, now: float, seconds: float) -> float:
        """Return the calls per second that were accepted, as far as is known, over about the last seconds."""
        time, accepted = next((mark for mark in self._history if mark[0] >= now - seconds), self._history[-1])
        return max(1, self._accepted - accepted) / max(1.0, now - time)


class Chance:
    """The share of calls that a server refuses by chance, whatever their rate.

    Attributes:
        share: of all calls; 0 as long as nothing speaks for it.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._proven = 0.0  # calls per second that were accepted
        self._odd: list[int] = []  # numbers of calls that were refused at an easy rate
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._last, self._in_row = -2, 0

    def count(self, *, refused: bool) -> None:
        """Count a call that was answered or refused."""
        self._recent.append(refused)
        if self.share and len(self._recent) == _RECENT:
            seen = self._recent.count(True) / _RECENT
            self.share = min(self.share, seen + self._spread(_RECENT)) if seen else 0.0

    def _spread(self, calls: int) -> float:
        """Return how much the share of some calls differs from that of all at most, but for one time in a thousand."""
        return _SIGMAS * math.sqrt(self.share * (1 - self.share) / calls)

    def explains(self, number: int, *, ramping: bool) -> bool:
        """Count a refusal; return whether it comes by chance: not too many do, and not one after the other."""
        self.count(refused=True)
        self._in_row = self._in_row + 1 if number == self._last + 1 else 1
        self._last = number
        if not self.share:
            return ramping and self._in_row < 2  # a ramp that goes too far is refused again at once
        in_row = 1 + math.ceil(math.log(0.001) / math.log(self.share))
        calls = max(_LEAST_CALLS, len(self._recent))
        return self._in_row < in_row and self._recent.count(True) <= calls * (self.share + self._spread(calls))

    def found(self, number: int, rate: float, seen: float) -> bool:
        """Return whether refusals at an easy rate show that some come by chance."""
        self._proven = max(self._proven, seen)
        if rate >= _EASY * self._proven:
            self._odd.clear()
            return False
        self._odd.append(number)
        if len(self._odd) < 1 + _ODD:
            return False
        share = max(_ODD / (number - self._odd[0]), self._recent.count(True) / len(self._recent))
        self._odd.clear()
        if share > _MOST_CHANCE:  # the server takes less than before
            self._proven = seen
            return False
        self.share = share
        self._recent.clear()
        return True


class _Budget:
    """A hard limit per minute, spent evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self.free_at = -math.inf

    def take(self, amount: float, now: float) -> None:
        """Spend an amount, or give some back."""
        if self._interval:
            self.free_at = max(self.free_at, now if amount > 0 else -math.inf) + amount * self._interval
