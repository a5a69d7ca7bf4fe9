"""How fast and how many calls at a time a server is sent, learned from its refusals; and when it is of no use.

Only bookkeeping: every method is given the time in seconds of a monotonic clock, and nothing here waits.

The rate of calls doubles until the first is refused with 429. Then it grows a little with each answer and falls a
little with each refusal, so that about one call in 25 is refused at a server with a limit. An overloaded server (503,
calls without an answer) gets fewer calls at a time: a quarter less after each trouble, a quarter of a call more after
each answer.
"""

from __future__ import annotations

import math
from collections import deque

from gpt4image.describing.describers.openai.chat import Fault, Verdict

_FIRST_RATE, _DOUBLING_S, _FASTEST, _SLOWEST = 32.0, 0.1, 1e5, 1 / 60
_PATIENCE_S, _PAUSE_S = (0.5, 60.0), (0.05, 30.0)
_EVIDENCE_S, _REMEMBERED_S = 4.0, 240.0
_FIRST_TOKENS = 1000.0
_LOST_IN_ROW = 3

DOWN_S, DOWN_FAILURES = 60.0, 20
UNREACHABLE_S, UNREACHABLE_FAILURES = 4.0, 3
ALL_REJECTED, REJECTED_IN_ROW = 10, 50
"""Images that are rejected in a row before the run ends: before the first answer, and after it."""


class Limiter:
    """When the next call may be sent, and how many may be in flight: ``concurrency``."""

    def __init__(
        self, concurrency: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self._rate = _Rate()
        self._requests, self._tokens = _PerMinute(requests_per_minute), _PerMinute(tokens_per_minute)
        self._mean_tokens, self._token_counts = _FIRST_TOKENS, 0
        self._most = self._at_once = float(concurrency)
        self._cut_at = -math.inf
        self._lost_in_row = self._failed_in_row = self._rejected_in_row = 0
        self._failing_since = 0.0
        self._answered = False

    @property
    def concurrency(self) -> int:
        """Maximum calls in flight for now."""
        return max(1, int(self._at_once))

    def delay(self, now: float) -> float:
        """Return how long to wait before the next call, in seconds."""
        return max(0.0, self._rate.free_at - now, self.own_delay(now))

    def own_delay(self, now: float) -> float:
        """Return how long the limits that the user gave hold the next call, in seconds."""
        return max(0.0, max(self._requests.free_at, self._tokens.free_at) - now)

    def sent(self, now: float) -> float:
        """Count a call; return the tokens that it is expected to take."""
        self._rate.sent(now)
        self._requests.take(1, now)
        self._tokens.take(self._mean_tokens, now)
        return self._mean_tokens

    def answered(self, now: float, sent_at: float, expected: float, tokens: int | None) -> None:
        """Count a response and the tokens it took, of which so many were ``expected``."""
        self._at_once = min(self._most, self._at_once + 0.25)
        self._rate.accepted(sent_at)
        self._lost_in_row = self._failed_in_row = self._rejected_in_row = 0
        self._answered = True
        if tokens is not None:
            self._token_counts += 1
            self._mean_tokens += (tokens - self._mean_tokens) / self._token_counts
            self._tokens.take(tokens - expected, now)

    def failed(self, now: float, sent_at: float, expected: float, fault: Fault) -> str | None:
        """Count a call that failed; return why the run should stop, if it should."""
        if fault.verdict in (Verdict.FILTERED, Verdict.ADAPT, Verdict.STOP):
            self.answered(now, sent_at, expected, None)
            return None
        if fault.verdict is Verdict.GIVE_UP:
            self._rejected_in_row += 1
            if self._rejected_in_row < (REJECTED_IN_ROW if self._answered else ALL_REJECTED):
                return None
            images = f"the last {self._rejected_in_row} images" if self._answered else "every image"
            return f"the server rejects {images} ({fault.message})"
        self._tokens.take(-expected, now)
        if fault.verdict is Verdict.LIMITED:
            self._rate.refused(now, sent_at, fault.retry_after or 0.0)
        else:
            self._lost_in_row += fault.verdict is Verdict.LOST
            trouble = fault.verdict is Verdict.OVERLOADED or self._lost_in_row >= _LOST_IN_ROW
            if trouble and sent_at > self._cut_at:  # once for all calls that were in flight together
                self._at_once, self._cut_at = max(1.0, 0.75 * self._at_once), now
        if not self._failed_in_row:
            self._failing_since = now
        self._failed_in_row += 1
        lasted = now - self._failing_since
        if fault.kind == "unreachable" and not self._answered:
            if self._failed_in_row >= UNREACHABLE_FAILURES and lasted > UNREACHABLE_S:
                return f"there is no server to be reached ({fault.message}); is it running, and is --base-url right?"
        elif self._failed_in_row >= DOWN_FAILURES and lasted > DOWN_S:
            return f"the server has not answered for {lasted:.0f} s; the last fault: {fault.message}"
        return None


class _Rate:
    """Calls per second that the server accepts; it grows in the manner of CUBIC (RFC 9438) between two refusals."""

    def __init__(self) -> None:
        self._base, self._since, self._patience = _FIRST_RATE, 0.0, _PATIENCE_S[0]
        self._ramping = True
        self._refused_rate = math.inf
        self._next = self._paused_until = self._refused_at = -math.inf
        self._closed_since: float | None = None  # as long as no call that was sent after a refusal is accepted
        self._probe_s: float | None = None
        self._sent: deque[float] = deque()

    @property
    def free_at(self) -> float:
        """When the next call may be sent."""
        return max(self._next, self._paused_until)

    def _value(self, now: float) -> float:
        seconds = max(0.0, now - max(self._since, self._paused_until)) if self._sent else 0.0
        x = seconds / self._patience
        growth = seconds / _DOUBLING_S * math.log(2) if self._ramping else 0.02 * x + 0.0005 * x**3
        return min(_FASTEST, self._base * math.exp(min(growth, 20.0)))

    def sent(self, now: float) -> None:
        """Count a call."""
        if not self._sent:
            self._since = now
        self._sent.append(now)
        while self._sent[0] < now - _REMEMBERED_S:
            self._sent.popleft()
        rate = self._value(now)
        self._next = max(self._next, now - max(0.01, 0.25 / rate)) + 1 / rate  # late timers do not lower the rate
        if self._probe_s is not None:  # after a pause, one call alone shows whether the server is open again
            self._paused_until, self._probe_s = now + self._probe_s, None

    def accepted(self, sent_at: float) -> None:
        """Count an answer."""
        if sent_at > self._refused_at:
            self._closed_since = None

    def refused(self, now: float, sent_at: float, wait: float) -> None:
        """Slow down; calls that were on their way when the first was refused say nothing new."""
        if self._sent:
            self._sent.pop()
        if sent_at <= self._refused_at:
            return
        rate, ramping, was_closed = self._value(now), self._ramping, self._closed_since is not None
        closed = now - (self._closed_since or now)
        if was_closed:
            pause = max(wait, _PAUSE_S[0], min(_PAUSE_S[1], 0.4 * closed))
            target = self._seen(now, max(_EVIDENCE_S, 4 * closed)) if closed > 1 else rate
        elif ramping:
            pause = max(wait, 2 / rate)
            target = min(rate / 2, max(self._seen(now, _EVIDENCE_S), 1 / pause))
        else:  # the call that was refused waits as long as the server asks; the others go on
            pause = min(1.0, 2 / rate)
            target = min(0.98 * rate, max(0.9 * rate, self._seen(now, _EVIDENCE_S)))
        if target < rate:
            again = rate > 0.93 * self._refused_rate
            self._patience = min(_PATIENCE_S[1], 2 * self._patience) if again else _PATIENCE_S[0]
            self._refused_rate = math.inf if ramping else rate
            self._base, self._since, self._ramping = max(_SLOWEST, target), now, False
        self._patience = max(self._patience, min(_PATIENCE_S[1], closed))
        self._probe_s = min(1.0, 1.2 * (now - sent_at)) if was_closed or ramping else None
        self._closed_since = now if self._closed_since is None else self._closed_since
        self._refused_at, self._paused_until = now, max(self._paused_until, now + pause)

    def _seen(self, now: float, seconds: float) -> float:
        """Return the calls per second that were accepted over the last seconds, as far as is known."""
        recent = sum(1 for time in self._sent if time >= now - seconds)
        return max(1, recent) / min(seconds, max(1.0, now - self._sent[0] if self._sent else 1.0))


class _PerMinute:
    """A limit per minute of the user, spent evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self.free_at = -math.inf

    def take(self, amount: float, now: float) -> None:
        """Spend an amount, or give some back."""
        if self._interval:
            self.free_at = max(self.free_at, now if amount > 0 else -math.inf) + amount * self._interval
