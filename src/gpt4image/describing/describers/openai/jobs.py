"""What is still to be asked about an image, and in which order such jobs are sent."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.openai.completions import Choice, Completion
from gpt4image.describing.prices import FREE, Price


@dataclass(eq=False, kw_only=True)
class Job:
    """Answers that are wanted for one image, with what was answered and paid for so far.

    Attributes:
        pictures: data URLs of the image, or of the frames of a clip.
        turns: answers to the first turns of the conversation.
        latency: seconds that the successful calls took.
        wasted: failed calls (``tries``) that were paid for.
        unpriced: wasted calls whose price the server does not tell.
        sent: fields of the last call that not every model takes.
        in_place: holds a place among the calls in flight.
    """

    request: Request
    samples: tuple[int, ...]
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    turns: list[Choice] = field(default_factory=list[Choice])
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency: float = 0.0
    tries: int = 0
    wasted: int = 0
    unpriced: int = 0
    sent: frozenset[str] = frozenset()
    in_place: bool = False

    @property
    def is_paid(self) -> bool:
        """Whether any call is known to have been paid for."""
        return self.wasted > 0 or self.tokens_in is not None or self.tokens_out is not None

    def pay(self, completion: Completion, *, wasted: bool = False) -> None:
        """Add the tokens of a call."""
        self.tokens_in = _sum(self.tokens_in, completion.tokens_in)
        self.tokens_out = _sum(self.tokens_out, completion.tokens_out)
        self.wasted += wasted
        self.unpriced += wasted and not completion.is_priced

    def add_turn(self, choice: Choice) -> bool:
        """Add the answer to a turn; return whether the conversation goes on."""
        self.turns.append(choice)
        stopped = not choice.text or choice.finish_reason in ("refusal", "content_filter")
        return not stopped and len(self.turns) < len(self.request.turns)

    def conversation(self) -> Choice:
        """Return all turns as one answer, with the first finish reason that is out of the ordinary."""
        reasons = [choice.finish_reason for choice in self.turns]
        reason = next((reason for reason in reasons if reason not in (None, "stop")), reasons[-1])
        return Choice("\n\n".join(choice.text for choice in self.turns if choice.text), reason)

    def rest(self, answered: int) -> Job | None:
        """Return a job for the samples that a call left unanswered."""
        left = self.samples[answered:]
        if not left:
            return None
        return Job(request=self.request, samples=left, pictures=self.pictures, tries=self.tries, wasted=self.wasted)

    def answers(self, choices: Sequence[Choice], price: Price | None, error: str | None = None) -> list[Answer]:
        """Return one answer per choice, or per sample where there is an ``error``.

        What was paid is shared, so that the sums are right.
        """
        shares = len(self.samples) if error else min(len(choices), len(self.samples))
        return [self._answer(share, shares, None if error else choices[share], price, error) for share in range(shares)]

    def _answer(self, share: int, shares: int, choice: Choice | None, price: Price | None, error: str | None) -> Answer:
        def part(total: int) -> int:
            return total * (share + 1) // shares - total * share // shares

        tokens_in = None if self.tokens_in is None else part(self.tokens_in)
        tokens_out = None if self.tokens_out is None else part(self.tokens_out)
        known = price == FREE or None not in (tokens_in, tokens_out)
        return Answer(
            request=self.request,
            sample=self.samples[share],
            text=choice.text if choice else None,
            finish_reason=choice.finish_reason if choice else None,
            probability=choice.probability if choice else None,
            error=error,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost_usd=price.of(tokens_in or 0, tokens_out or 0) if price and known else None,
            latency_s=self.latency or None,
            wasted=self.wasted,
            unpriced=part(self.unpriced),
        )


class JobQueue:
    """Jobs that wait: first those that hold a place, then retries that are due, then new ones."""

    def __init__(self) -> None:
        self.new: deque[Job] = deque()
        self._retries: dict[bool, list[tuple[float, int, Job]]] = {True: [], False: []}
        self._count = itertools.count()

    @property
    def retries(self) -> list[Job]:
        """Jobs that wait for another call."""
        return [job for heap in self._retries.values() for _, _, job in heap]

    @property
    def retry_count(self) -> int:
        """Number of jobs that wait for another call."""
        return len(self._retries[True]) + len(self._retries[False])

    def again(self, job: Job, due: float) -> None:
        """Put a job in line for when it is due."""
        heapq.heappush(self._retries[job.in_place], (due, next(self._count), job))

    def wait(self, now: float, *, room: bool) -> float:
        """Return how long until a job may be sent, in seconds; infinite where that is up to others."""
        if room and self.new:
            return 0.0
        due = [heap[0][0] for in_place, heap in self._retries.items() if heap and (in_place or room)]
        return max(0.0, min(due, default=math.inf) - now)

    def pop(self, now: float, *, room: bool) -> Job:
        """Return the next job, where ``wait`` is 0."""
        for in_place, heap in self._retries.items():
            if heap and heap[0][0] <= now and (in_place or room):
                return heapq.heappop(heap)[2]
        return self.new.popleft()


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other
