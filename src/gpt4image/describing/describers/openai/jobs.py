"""What is still to be asked about an image, and in which order such jobs are sent."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.openai.chat import Choice, Completion
from gpt4image.describing.prices import FREE, Price

_CUT_SHORT = ("refusal", "content_filter")


@dataclass(eq=False, kw_only=True)
class Job:
    """Answers that are wanted for one image, with what was said and paid for them so far.

    Attributes:
        request: what is asked.
        samples: numbers of the answers that are wanted.
        image_url: the image as a data URL.
        said: answers to the first turns of the conversation.
        tokens_in: tokens of all calls that were paid for.
        tokens_out: the same of the answers.
        latency: seconds that the calls took that brought something.
        tries: failed calls.
        wasted: those of them that were paid for.
        unpriced: those of the wasted whose price the server does not tell.
        limit_name: name under which the last call sent ``max_tokens``.
        in_place: holds a place among the calls in flight.
    """

    request: Request
    samples: tuple[int, ...]
    image_url: bytes = field(default=b"", repr=False)
    said: list[Choice] = field(default_factory=list)
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency: float = 0.0
    tries: int = 0
    wasted: int = 0
    unpriced: int = 0
    limit_name: str = ""
    in_place: bool = False

    @property
    def is_paid(self) -> bool:
        """Whether any call is known to have been paid for."""
        return self.wasted > 0 or self.tokens_in is not None or self.tokens_out is not None

    def pay(self, completion: Completion) -> None:
        """Add the tokens of a call."""
        self.tokens_in = _sum(self.tokens_in, completion.tokens_in)
        self.tokens_out = _sum(self.tokens_out, completion.tokens_out)

    def hear(self, choice: Choice) -> bool:
        """Take note of the answer to a turn; return whether the conversation goes on."""
        self.said.append(choice)
        stopped = not choice.text or choice.finish_reason in _CUT_SHORT
        return not stopped and len(self.said) < len(self.request.turns)

    def conversation(self) -> Choice:
        """Return all that was said as one answer, with the first finish reason that is out of the ordinary."""
        reasons = [choice.finish_reason for choice in self.said]
        reason = next((reason for reason in reasons if reason not in (None, "stop")), reasons[-1])
        return Choice("\n\n".join(choice.text for choice in self.said if choice.text), reason)

    def rest(self, answered: int) -> Job | None:
        """Return a job for the samples that a call left unanswered."""
        left = self.samples[answered:]
        if not left:
            return None
        return Job(request=self.request, samples=left, image_url=self.image_url, tries=self.tries, wasted=self.wasted)

    def answers(self, choices: Sequence[Choice], price: Price | None) -> Iterator[Answer]:
        """Yield one answer per choice; what was paid is shared, so that the sums are right."""
        for share, (sample, choice) in enumerate(zip(self.samples, choices, strict=False)):
            yield self._answer(sample, share, min(len(choices), len(self.samples)), price, choice=choice)

    def failures(self, error: str, price: Price | None) -> Iterator[Answer]:
        """Yield an answer with an error for every sample."""
        for share, sample in enumerate(self.samples):
            yield self._answer(sample, share, len(self.samples), price, error=error)

    def _answer(
        self,
        sample: int,
        share: int,
        shares: int,
        price: Price | None,
        *,
        choice: Choice | None = None,
        error: str | None = None,
    ) -> Answer:
        tokens_in, tokens_out = _share(self.tokens_in, share, shares), _share(self.tokens_out, share, shares)
        known = price == FREE or None not in (self.tokens_in, self.tokens_out)
        return Answer(
            request=self.request,
            sample=sample,
            text=choice.text if choice else None,
            finish_reason=choice.finish_reason if choice else None,
            error=error,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost_usd=price.of(tokens_in or 0, tokens_out or 0) if price and known else None,
            latency_s=self.latency or None,
            wasted=self.wasted,
            unpriced=_share(self.unpriced, share, shares) or 0,
        )


class JobQueue:
    """Jobs that wait: first those that hold a place, then tries that are due again, then new ones."""

    def __init__(self) -> None:
        self.new: deque[Job] = deque()
        self._later: dict[bool, list[tuple[float, int, Job]]] = {True: [], False: []}
        self._count = itertools.count()

    @property
    def tried(self) -> int:
        """Number of jobs that wait to be tried again."""
        return len(self._later[True]) + len(self._later[False])

    def left(self) -> Iterator[Job]:
        """Yield the jobs that wait to be tried again."""
        return (job for heap in self._later.values() for _, _, job in heap)

    def again(self, job: Job, due: float) -> None:
        """Put a job in line for when it is due."""
        heapq.heappush(self._later[job.in_place], (due, next(self._count), job))

    def wait(self, now: float, *, room: bool) -> float:
        """Return how long until a job may be sent, in seconds; infinite where that is up to others."""
        if room and self.new:
            return 0.0
        heaps = [heap for in_place, heap in self._later.items() if heap and (in_place or room)]
        return max(0.0, min((heap[0][0] - now for heap in heaps), default=math.inf))

    def pop(self, now: float, *, room: bool) -> Job:
        """Return the next job, where ``wait`` is 0."""
        for in_place, heap in self._later.items():
            if heap and heap[0][0] <= now and (in_place or room):
                return heapq.heappop(heap)[2]
        return self.new.popleft()


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other


def _share(total: int | None, share: int, shares: int) -> int | None:
    return None if total is None else total * (share + 1) // shares - total * share // shares
