"""Whether a server is of any use: when to stop a run rather than fail image after image."""

from __future__ import annotations

from gpt4image.describers.openai_server.faults import Fault, Verdict

DOWN_S, DOWN_FAILURES = 60.0, 20
UNREACHABLE_S, UNREACHABLE_FAILURES = 4.0, 3
ALL_REJECTED = 10


class Health:
    """Counts failures since the last answer. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.in_row = 0
        self._since = 0.0
        self._answered = False
        self._rejected = 0

    def answered(self) -> None:
        """Count an answer."""
        self.in_row = 0
        self._answered = True

    def failed(self, fault: Fault, now: float) -> str | None:
        """Count a failed call; return why the run should stop, if it should."""
        if fault.verdict is Verdict.FILTERED:
            self.in_row = 0
            return None
        if fault.verdict is Verdict.GIVE_UP:
            self.in_row = 0
            self._rejected += 1
            if self._rejected >= ALL_REJECTED and not self._answered:
                return f"the server rejects every image ({fault.message})"
            return None
        if self.in_row == 0:
            self._since = now
        self.in_row += 1
        lasted = now - self._since
        if fault.kind == "unreachable" and not self._answered and self.in_row >= UNREACHABLE_FAILURES:
            if lasted > UNREACHABLE_S:
                return f"there is no server to be reached ({fault.message}); is it running, and is --base-url right?"
        elif self.in_row >= DOWN_FAILURES and lasted > DOWN_S:
            return f"the server has not answered for {lasted:.0f} s; the last fault: {fault.message}"
        return None
