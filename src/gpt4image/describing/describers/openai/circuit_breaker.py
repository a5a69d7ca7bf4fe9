"""A circuit breaker: a server in trouble gets one call at a time, and one of no use ends the run.

Otherwise image after image would fail. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math

from gpt4image.describing.describers.openai.faults import Fault, Verdict

DOWN_S, DOWN_FAILURES = 60.0, 20
UNREACHABLE_S, UNREACHABLE_FAILURES = 4.0, 3
ALL_REJECTED = 10
# So many in a row after answers: with half of the images bad, that does not happen by chance.
REJECTED_IN_ROW = 50
_OPEN_FAILURES, _LONGEST_PAUSE_S = 8, 3.0


class CircuitBreaker:
    """Counts failures since the last answer, as ``in_row``."""

    def __init__(self) -> None:
        self.in_row = 0
        self.paused_until = -math.inf
        self._errors_in_row = 0  # those of them that are no refusals for too many calls
        self._since = 0.0
        self._answered = False
        self._rejected_before = 0
        self._rejected_in_row = 0

    @property
    def is_open(self) -> bool:
        """Whether only one call at a time is worth sending."""
        return self._errors_in_row >= _OPEN_FAILURES

    def answered(self) -> None:
        """Count an answer."""
        self.in_row = self._errors_in_row = 0
        self._answered = True
        self._rejected_before += self._rejected_in_row
        self._rejected_in_row = 0

    def failed(self, fault: Fault, now: float) -> str | None:
        """Count a failed call; return why the run should stop, if it should."""
        if fault.verdict is Verdict.FILTERED:
            self.answered()
            return None
        if fault.verdict is Verdict.GIVE_UP:
            return self._rejected(fault)
        if self.in_row == 0:
            self._since = now
        self.in_row += 1
        self._errors_in_row += fault.verdict is not Verdict.LIMITED
        lasted = now - self._since
        if self.is_open:
            self.paused_until = now + min(_LONGEST_PAUSE_S, 0.4 * lasted)
        if fault.kind == "unreachable" and not self._answered:
            if self.in_row >= UNREACHABLE_FAILURES and lasted > UNREACHABLE_S:
                return f"there is no server to be reached ({fault.message}); is it running, and is --base-url right?"
        elif self.in_row >= DOWN_FAILURES and lasted > DOWN_S:
            return f"the server has not answered for {lasted:.0f} s; the last fault: {fault.message}"
        return None

    def _rejected(self, fault: Fault) -> str | None:
        self.in_row = self._errors_in_row = 0
        self._rejected_in_row += 1
        # Where many images are bad, many in a row may be.
        limit = max(REJECTED_IN_ROW, self._rejected_before) if self._answered else ALL_REJECTED
        if self._rejected_in_row < limit:
            return None
        images = f"the last {self._rejected_in_row} images" if self._answered else "every image"
        return f"the server rejects {images} ({fault.message})"
