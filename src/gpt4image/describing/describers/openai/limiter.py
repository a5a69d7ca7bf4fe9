"""How fast and how many calls at a time a server is sent, learned from its refusals: additive increase, multiplicative
decrease (AIMD), of calls per second and of calls in flight. Only bookkeeping: nothing here waits or knows the time.
"""

import math
from collections import deque

_FIRST_RATE, _DOUBLING_S, _SLOWEST = 32.0, 0.1, 1 / 60
PAUSE_S = (0.05, 30.0)
_EVIDENCE_S = 4.0


class Limiter:
    """When the next call may be sent, and how many may be ``in_flight``; times are seconds of a monotonic clock."""

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        self._most = self._at_once = float(concurrency)
        self._least_gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self._rate, self._since, self._ramping = _FIRST_RATE, 0.0, True
        self._next = self._refused_at = self._cut_at = -math.inf
        self._pause = PAUSE_S[0]  # doubled as long as no call gets through
        self._sent: deque[float] = deque()  # and not refused
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        """Whether one more call may be in flight."""
        return self.in_flight < max(1, int(self._at_once))

    def delay(self, now: float) -> float:
        """Return how long to wait before the next call, in seconds."""
        return max(0.0, self._next - now)

    def sent(self, now: float) -> None:
        self._since = self._since if self._sent else now
        self._sent.append(now)
        while self._sent[0] < now - 60 * _EVIDENCE_S:
            self._sent.popleft()
        gap = max(self._least_gap, 1 / self._rate_at(now))
        self._next = max(self._next, now - max(0.01, gap / 4)) + gap  # late timers do not lower the rate

    def answered(self, sent_at: float) -> None:
        self._at_once = min(self._most, self._at_once + 0.25)
        if sent_at > self._refused_at:
            self._pause = PAUSE_S[0]

    def overloaded(self, now: float, sent_at: float) -> None:
        """Send fewer at a time; calls that were in flight together count once."""
        if sent_at > self._cut_at:
            self._at_once, self._cut_at = max(1.0, 0.75 * self._at_once), now

    def refused(self, now: float, sent_at: float, wait: float) -> None:
        """Slow down to what the server took of late, and pause; calls in flight together count once."""
        if self._sent:
            self._sent.pop()
        if sent_at <= self._refused_at:
            return
        rate, is_closed = self._rate_at(now), self._ramping or self._pause > PAUSE_S[0]
        span = min(_EVIDENCE_S, max(1.0, now - self._sent[0] if self._sent else 1.0))
        taken = max(1, sum(time >= now - span for time in self._sent)) / span
        self._rate = max(_SLOWEST, min(0.98 * rate, max(taken, 0.0 if is_closed else 0.9 * rate)))
        pause = max(wait, self._pause) if is_closed else self._pause
        self._since, self._ramping, self._refused_at = now + pause, False, now
        self._next = max(self._next, now + pause)
        self._pause = min(PAUSE_S[1], 2 * self._pause)

    def _rate_at(self, now: float) -> float:
        """Calls per second: doubled ten times a second until the first refusal, then growing as slowly as CUBIC."""
        seconds = max(0.0, now - self._since)
        growth = math.log(2) * seconds / _DOUBLING_S if self._ramping else 0.008 * seconds + 0.0004 * seconds**3
        return self._rate * math.exp(min(growth, 12.0))
