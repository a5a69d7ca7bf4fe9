"""Whether a server is of any use: when to stop a run rather than fail image after image."""

from __future__ import annotations

from gpt4image.describing.describers.openai.faults import Fault, Verdict

DOWN_S, DOWN_FAILURES = 60.0, 20
UNREACHABLE_S, UNREACHABLE_FAILURES = 4.0, 3
ALL_REJECTED = 10
# So many in a row where others were answered: among images of which half are bad, that does not happen by chance.
REJECTED_IN_ROW = 50


class Health:
    """Counts failures since the last answer. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.in_row = 0
        self._since = 0.0
        self._answered = False
        self._rejected_before = 0
        self._rejected_in_row = 0

    def answered(self) -> None:
        """Count an answer."""
        self._looked_at()
        self._answered = True

    def _looked_at(self) -> None:
        """Count an image that the server looked at: it works."""
        self.in_row = 0
        self._rejected_before += self._rejected_in_row
        self._rejected_in_row = 0

    def failed(self, fault: Fault, now: float) -> str | None:
        """Count a failed call; return why the run should stop, if it should."""
        if fault.verdict is Verdict.FILTERED:
            self._looked_at()
            return None
        if fault.verdict is Verdict.GIVE_UP:
            self.in_row = 0
            self._rejected_in_row += 1
            # Where many images are bad, many in a row may be.
            enough = max(REJECTED_IN_ROW, self._rejected_before) if self._answered else ALL_REJECTED
            if self._rejected_in_row < enough:
                return None
            every = f"the last {self._rejected_in_row} images" if self._answered else "every image"
            return f"the server rejects {every} ({fault.message})"
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
