"""Calls in flight to a server: an event loop in a thread of its own sends requests and hands over answers.

One dispatcher sends everything: it knows which image is next, whether there is room for a call and when the pace allows
it. A call holds its place from sending until its answers are acknowledged, so that after a kill at most ``concurrency``
requests are paid for twice. A failed call gives its place back and waits its turn again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gpt4image.base.errors import DecodeError, DescriberError
from gpt4image.describing.describers.arrivals import Arrivals
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.images import data_url, why_unusable
from gpt4image.describing.describers.openai.chat import Choice, Dialect
from gpt4image.describing.describers.openai.client import Client
from gpt4image.describing.describers.openai.faults import Fault, Verdict
from gpt4image.describing.describers.openai.health import Health
from gpt4image.describing.describers.openai.jobs import Job, JobQueue
from gpt4image.describing.describers.openai.pace import Pace, Ticket
from gpt4image.describing.prices import Price

_LEAST_AHEAD = 8
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
# A call that is paid for and brings nothing is not tried for ever.
_MOST_WASTED = 3
_STOPPED = "the run was stopped before the answer was complete"


@dataclass
class Tally:
    """What was sent and what came of it."""

    calls: int = 0
    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to call.

    Attributes:
        concurrency: most calls in flight.
        retries: further tries of a call that failed, whatever the fault.
        max_side: longer side of images at most, in pixels.
        image_format: jpeg, png or webp.
        price: what tokens cost.
    """

    concurrency: int
    retries: int
    max_side: int
    image_format: str
    price: Price | None

    @property
    def ahead(self) -> int:
        """Number of requests that are made ready before there is room for them."""
        return min(self.concurrency, max(_LEAST_AHEAD, self.concurrency // 4))


@dataclass(eq=False)
class _Place:
    """A place among the calls in flight that so many answers keep until they are on disk."""

    answers: int


class Calls:
    """One run over some requests: ``start``, then ``acknowledge`` what arrived, ``close`` at the end."""

    def __init__(self, plan: Plan, client: Client, dialect: Dialect, pace: Pace, health: Health, tally: Tally) -> None:
        self._plan = plan
        self._client = client
        self._dialect = dialect
        self._pace = pace
        self._health = health
        self._tally = tally
        self._queue = JobQueue()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._unacknowledged: deque[_Place | None] = deque()  # one for each answer, in the order they were handed over
        self._preparing = 0
        self._exhausted = False
        self._error: BaseException | None = None

    def start(self, requests: Iterable[Request], arrivals: Arrivals) -> None:
        """Begin to send; answers go to ``arrivals``, and so does the end."""
        self._requests = iter(requests)
        self._arrivals = arrivals
        self._pace.room.clear()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._run())
        self._thread = threading.Thread(target=self._work, name="calls", daemon=True)
        self._thread.start()

    def acknowledge(self, answers: int) -> None:
        """Say that so many answers, the oldest, are on disk; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a place
            self._loop.call_soon_threadsafe(self._free_places, answers)

    def close(self) -> None:
        """Give up what is in flight and wait for the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _work(self) -> None:
        self._loop.run_until_complete(asyncio.wait({self._main}))
        failure = None if self._main.cancelled() else self._main.exception()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._arrivals.finish(self._error or failure)

    async def _run(self) -> None:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "images") as self._pool:
            async with self._client.opened():
                dispatching = self._loop.create_task(self._dispatch())
                try:
                    await asyncio.wait({dispatching})
                    if self._in_flight:
                        await asyncio.wait(self._in_flight)
                finally:
                    for task in (dispatching, *self._in_flight):
                        task.cancel()
                    await asyncio.gather(dispatching, *self._in_flight, return_exceptions=True)
                    for job in self._queue.left():
                        self._keep_cost(job, _STOPPED)
                dispatching.result()  # raises what the requests raised

    async def _dispatch(self) -> None:
        while self._error is None:
            self._pull()
            wait = self._send_next()
            if wait == 0:
                continue
            if self._exhausted and not (self._preparing or self._in_flight or self._queue.new or self._queue.tried):
                return
            timer = self._loop.call_later(wait, self._changed.set) if wait < math.inf else None
            await self._changed.wait()
            self._changed.clear()
            if timer is not None:
                timer.cancel()

    def _pull(self) -> None:
        """Take requests, a few more than can be sent now, and prepare their images in threads."""
        most = self._plan.concurrency + self._plan.ahead
        while (
            not self._exhausted
            and self._preparing + len(self._queue.new) < self._plan.ahead
            and self._queue.tried < most
            and len(self._unacknowledged) < 2 * most
        ):
            request = next(self._requests, None)
            if request is None:
                self._exhausted = True
                return
            self._preparing += 1
            preparing = self._loop.run_in_executor(self._pool, _prepare, request, self._plan)
            preparing.add_done_callback(lambda done, request=request: self._prepared(request, done))

    def _prepared(self, request: Request, done: asyncio.Future[tuple[bytes, str]]) -> None:
        self._preparing -= 1
        self._changed.set()
        if done.cancelled():
            return
        if (failure := done.exception()) is not None:
            self._error = self._error or failure
            return
        image_url, error = done.result()
        if error:
            self._deliver(Job(request=request, samples=request.samples), error=error)
        else:
            # The answers of a conversation differ from the first turn on: each is a conversation of its own.
            alone = len(request.turns) > 1
            groups = [(sample,) for sample in request.samples] if alone else [request.samples]
            self._queue.new.extend(Job(request=request, samples=group, image_url=image_url) for group in groups)

    def _send_next(self) -> float:
        """Send a call if one may be sent, and return 0; else return how long to wait, in seconds."""
        now = self._loop.time()
        room = self._pace.room.free
        wait = self._queue.wait(now, room=room)
        if wait == 0:
            wait = self._pace.delay(now)
        if wait > 0:
            return wait
        job = self._queue.pop(now, room=room)
        if not job.in_place:
            self._pace.room.take()
            job.in_place = True
        self._tally.calls += 1
        task = self._loop.create_task(self._call(job, self._pace.sent(now, len(job.samples))))
        self._in_flight.add(task)
        task.add_done_callback(self._called)
        return 0.0

    def _called(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._changed.set()
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._error = self._error or failure

    async def _call(self, job: Job, ticket: Ticket) -> None:
        try:
            reply = await self._client.ask(self._dialect.body(job))
        except asyncio.CancelledError:
            self._keep_cost(job, _STOPPED)
            raise
        now = self._loop.time()
        job.pay(reply.completion)
        if reply.fault is not None:
            if reply.fault.paid:
                job.wasted += 1
                job.unpriced += 0 if reply.completion.is_priced else 1
            self._fail(job, ticket, reply.fault, now)
            return
        self._pace.answered(ticket, now, reply.completion.tokens, reply.headers)
        self._health.answered()
        job.latency += now - ticket.sent_at
        self._hear(job, reply.completion.choices)

    def _hear(self, job: Job, choices: Sequence[Choice]) -> None:
        if len(job.request.turns) == 1:
            rest = job.rest(len(choices))
            self._deliver(job, choices)
            if rest is not None:
                self._queue.again(rest, self._loop.time())
        elif job.hear(choices[0]):
            self._queue.again(job, self._loop.time())
        else:
            self._deliver(job, [job.conversation()])

    def _fail(self, job: Job, ticket: Ticket, fault: Fault, now: float) -> None:
        self._tally.faults[fault.kind] += 1
        self._tell_pace(ticket, fault, now)
        if self._dialect.adapt(fault, job):
            self._try_again(job, now)
            return
        reason = self._dialect.explain(fault) if fault.verdict is Verdict.STOP else self._health.failed(fault, now)
        if reason is not None:
            self._error = self._error or DescriberError(reason)
        if fault.verdict is Verdict.STOP:
            self._keep_cost(job, fault.message)
        elif fault.verdict is Verdict.FILTERED:
            job.said.append(Choice("", "content_filter"))
            self._deliver(job, [job.conversation()] * len(job.samples))
        elif not self._is_worth_another(job, fault):
            tries = f" ({job.tries + 1} tries)" if job.tries else ""
            self._deliver(job, error=fault.message + tries)
        else:
            job.tries += 1
            self._try_again(job, now + self._backoff(job, fault))

    def _is_worth_another(self, job: Job, fault: Fault) -> bool:
        if fault.verdict is Verdict.GIVE_UP or job.tries >= self._plan.retries:
            return False
        return not fault.paid or (job.wasted < _MOST_WASTED and job.request.pay_again(job.samples))

    def _tell_pace(self, ticket: Ticket, fault: Fault, now: float) -> None:
        if fault.verdict is Verdict.LIMITED:
            self._pace.refused(ticket, now, fault.retry_after)
        elif fault.verdict in (Verdict.FILTERED, Verdict.GIVE_UP, Verdict.STOP):
            self._pace.answered(ticket, now, None, {})
        else:
            overloaded, lost = fault.verdict is Verdict.OVERLOADED, fault.verdict is Verdict.LOST
            self._pace.failed(ticket, now, overloaded=overloaded, lost=lost)

    def _backoff(self, job: Job, fault: Fault) -> float:
        """Return how long a job waits until it is tried again, in seconds.

        Exponential with full jitter; where others are answered meanwhile, the fault was chance and the wait is short.
        """
        steps = job.tries
        if fault.verdict in (Verdict.RETRY, Verdict.LOST):
            steps = min(steps, max(1, self._health.in_row))
        longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** (steps - 1))
        return max(fault.retry_after or 0.0, random.uniform(0, longest))

    def _try_again(self, job: Job, due: float) -> None:
        if not job.said:  # a conversation keeps its place: its first answers are paid for, and not on disk
            self._leave(job)
        self._queue.again(job, due)

    def _leave(self, job: Job) -> None:
        self._pace.room.leave()
        job.in_place = False

    def _keep_cost(self, job: Job, error: str) -> None:
        """Hand over what a job that goes no further has cost, so that the store's sum is what the server bills."""
        if job.is_paid:
            self._deliver(job, error=error)

    def _deliver(self, job: Job, choices: Sequence[Choice] = (), *, error: str = "") -> None:
        """Hand over answers; the call keeps its place until all of them are acknowledged."""
        price = self._plan.price
        answers: list[Answer] = list(job.failures(error, price) if error else job.answers(choices, price))
        self._tally.answers += 0 if error else len(answers)
        place = _Place(len(answers)) if job.in_place else None
        for answer in answers:
            self._unacknowledged.append(place)
            self._arrivals.put(answer)

    def _free_places(self, answers: int) -> None:
        for _ in range(answers):
            place = self._unacknowledged.popleft()
            if place is not None:
                place.answers -= 1
                if place.answers == 0:
                    self._pace.room.leave()
        self._changed.set()


def _prepare(request: Request, plan: Plan) -> tuple[bytes, str]:
    """Return the image as a data URL, or why there is none."""
    try:
        return data_url(request.read(), plan.max_side, plan.image_format), ""
    except (OSError, DecodeError) as error:
        return b"", why_unusable(error)
