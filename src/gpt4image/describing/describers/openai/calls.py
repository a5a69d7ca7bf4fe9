"""Calls in flight to a server: an event loop in a thread of its own sends requests and hands over answers.

One dispatcher sends everything: it knows which image is next, whether there is room for a call and when the rate
limiter allows it. A call holds its place from sending until its answers are on disk, so that after a kill at most
``concurrency`` requests are paid for twice. A failed call gives its place back and waits its turn again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from gpt4image.base.errors import DecodeError, DescriberError
from gpt4image.base.progress import say
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.arrivals import Arrivals
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai.circuit_breaker import CircuitBreaker
from gpt4image.describing.describers.openai.client import Client
from gpt4image.describing.describers.openai.completions import Choice
from gpt4image.describing.describers.openai.dialect import Dialect
from gpt4image.describing.describers.openai.faults import Fault, Verdict
from gpt4image.describing.describers.openai.jobs import Job, JobQueue
from gpt4image.describing.describers.openai.rate_limiter import RateLimiter, Ticket
from gpt4image.describing.prices import Price

_LEAST_AHEAD = 8
_LONGEST_SLEEP_S = 60.0
_UNTOLD_S = 5.0
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
# A call that is paid for and brings nothing is not tried for ever.
_MOST_WASTED = 3
_STOPPED = "the run was stopped before the answer was complete"


class Calls:
    """Asks a server; what was learned about it is kept from one run to the next, and calls, answers and faults counted.

    Answers that were not handed over yet are in ``arrivals``.
    """

    def __init__(self, options: DescriberOptions, price: Price | None, client: Client, dialect: Dialect) -> None:
        self._options = options
        self._price = price
        self._client = client
        self._dialect = dialect
        self._limiter = RateLimiter(
            options.concurrency,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
        )
        self._breaker = CircuitBreaker()
        # How many requests are made ready before there is room for them.
        self._ahead = min(options.concurrency, max(_LEAST_AHEAD, options.concurrency // 4))
        self.sent = self.answered = 0
        self.faults: Counter[str] = Counter()
        self._last_fault = ""
        self.arrivals = Arrivals()

    def answers(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield answers in groups; pulling the next group says that the one before is on disk."""
        self.arrivals = Arrivals()
        self._requests = iter(requests)
        self._queue = JobQueue()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._places = 0
        # For each answer that was handed over, in order: whether a place is free once it is on disk.
        self._unacknowledged: deque[bool] = deque()
        self._preparing = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._told_until = -math.inf
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        main = self._loop.create_task(self._run())
        thread = threading.Thread(target=self._work, args=(main,), name="calls", daemon=True)
        thread.start()
        try:
            while group := self.arrivals.wait():
                yield group
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a place
                    self._loop.call_soon_threadsafe(self._free_places, len(group))
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(main.cancel)
            thread.join()

    def _work(self, main: asyncio.Task[None]) -> None:
        self._loop.run_until_complete(asyncio.wait({main}))
        failure = None if main.cancelled() else main.exception()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.arrivals.finish(self._error or failure)

    async def _run(self) -> None:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "images") as self._pool:
            async with self._client.opened():
                try:
                    await self._dispatch()
                    if self._in_flight:
                        await asyncio.wait(self._in_flight)
                finally:
                    for task in self._in_flight:
                        task.cancel()
                    await asyncio.gather(*self._in_flight, return_exceptions=True)
                    for job in self._queue.retries:
                        self._keep_cost(job, _STOPPED)

    async def _dispatch(self) -> None:
        while self._error is None:
            self._pull()
            wait = self._send_next()
            if wait == 0:
                continue
            self._tell_of(wait)
            waiting = self._preparing or self._in_flight or self._queue.new or self._queue.retry_count
            if self._exhausted and not waiting:
                return
            timer = self._loop.call_later(min(wait, _LONGEST_SLEEP_S), self._changed.set)
            await self._changed.wait()
            self._changed.clear()
            timer.cancel()

    def _pull(self) -> None:
        """Take requests, a few more than can be sent now, and prepare their images in threads."""
        most = self._options.concurrency + self._ahead
        while (
            not self._exhausted
            and self._preparing + len(self._queue.new) < self._ahead
            and self._queue.retry_count < most
            and len(self._unacknowledged) < 2 * most
        ):
            try:
                request = next(self._requests, None)
            except BaseException as error:  # noqa: BLE001 - raised after the answers
                self._stop(error)
                return
            if request is None:
                self._exhausted = True
                return
            self._preparing += 1
            preparing = self._loop.run_in_executor(self._pool, _prepare, request, self._options)
            preparing.add_done_callback(lambda done, request=request: self._prepared(request, done))

    def _prepared(self, request: Request, done: asyncio.Future[tuple[tuple[bytes, ...], str | None]]) -> None:
        self._preparing -= 1
        self._changed.set()
        if done.cancelled():
            return
        if (failure := done.exception()) is not None:
            self._stop(failure)
            return
        pictures, error = done.result()
        # The answers of a conversation differ from the first turn on: each is a conversation of its own.
        alone = len(request.turns) > 1
        groups = [(sample,) for sample in request.samples] if alone else [request.samples]
        for samples in groups:
            job = Job(request=request, samples=samples, pictures=pictures)
            if error:
                self._deliver(job, error=error)
            else:
                self._queue.new.append(job)

    def _send_next(self) -> float:
        """Send a call if one may be sent, and return 0; else return how long to wait, in seconds."""
        now = self._loop.time()
        room = self._places < (1 if self._breaker.is_open else self._limiter.concurrency)
        wait = self._queue.wait(now, room=room)
        if wait == 0:
            wait = max(self._limiter.delay(now), self._breaker.paused_until - now, 0.0)
        if wait > 0:
            return wait
        job = self._queue.pop(now, room=room)
        if not job.in_place:
            self._places += 1
            job.in_place = True
        self.sent += 1
        task = self._loop.create_task(self._call(job, self._limiter.sent(now, len(job.samples))))
        self._in_flight.add(task)
        task.add_done_callback(self._called)
        return 0.0

    def _tell_of(self, wait: float) -> None:
        """Say how long no call is sent, and why, where that is more than a few seconds and not what the user asked."""
        now = self._loop.time()
        if not self._last_fault or not _UNTOLD_S < wait < math.inf or wait <= self._limiter.own_delay(now):
            return
        if now + wait > self._told_until + _UNTOLD_S:
            self._told_until = now + wait
            say(f"No call is sent for {wait:.0f} s, because of the last fault: {self._last_fault}")

    def _called(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._changed.set()
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._stop(failure)

    def _stop(self, error: BaseException) -> None:
        self._error = self._error or error

    async def _call(self, job: Job, ticket: Ticket) -> None:
        try:
            reply = await self._client.ask(self._dialect.body(job))
        except asyncio.CancelledError:
            self._keep_cost(job, _STOPPED)
            raise
        now = self._loop.time()
        job.pay(reply.completion, wasted=reply.fault is not None and reply.fault.paid)
        if reply.fault is not None:
            self._limiter.failed(ticket, now, reply.fault)
            self._fail(job, reply.fault, now)
            return
        self._limiter.answered(ticket, now, reply.completion.tokens)
        self._breaker.answered()
        job.latency += now - ticket.sent_at
        choices = reply.completion.choices
        if len(job.request.turns) == 1:
            rest = job.rest(len(choices))
            self._deliver(job, choices)
            if rest is not None:
                self._queue.again(rest, now)
        elif job.add_turn(choices[0]):
            self._queue.again(job, now)
        else:
            self._deliver(job, [job.conversation()])

    def _fail(self, job: Job, fault: Fault, now: float) -> None:
        self.faults[fault.kind] += 1
        asked = "" if fault.retry_after is None else f" (the server asks for {fault.retry_after:.0f} s)"
        self._last_fault = fault.message + asked
        if self._dialect.adapt(fault, job):
            self._try_again(job, now)
            return
        reason = self._dialect.explain(fault) if fault.verdict is Verdict.STOP else self._breaker.failed(fault, now)
        if reason is not None:
            self._stop(DescriberError(reason))
        if fault.verdict is Verdict.STOP:
            self._keep_cost(job, fault.message)
        elif fault.verdict is Verdict.FILTERED:
            job.turns.append(Choice("", "content_filter"))
            self._deliver(job, [job.conversation()] * len(job.samples))
        elif self._is_worth_another(job, fault):
            job.tries += 1
            self._try_again(job, now + self._backoff(job, fault))
        else:
            tries = f" ({job.tries + 1} tries)" if job.tries else ""
            self._deliver(job, error=fault.message + tries)

    def _is_worth_another(self, job: Job, fault: Fault) -> bool:
        if fault.verdict is Verdict.GIVE_UP or job.tries >= self._options.retries:
            return False
        return not fault.paid or (job.wasted < _MOST_WASTED and job.request.pay_again(job.samples))

    def _backoff(self, job: Job, fault: Fault) -> float:
        """Return how long a job waits until it is tried again, in seconds.

        Exponential with full jitter; where others are answered meanwhile, the fault was chance and the wait is short.
        """
        steps = job.tries
        if fault.verdict in (Verdict.RETRY, Verdict.LOST):
            steps = min(steps, max(1, self._breaker.in_row))
        longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** (steps - 1))
        return max(fault.retry_after or 0.0, random.uniform(0, longest))

    def _try_again(self, job: Job, due: float) -> None:
        if not job.turns:  # a conversation keeps its place: its first answers are paid for, and not on disk
            self._places -= 1
            job.in_place = False
        self._queue.again(job, due)

    def _keep_cost(self, job: Job, error: str) -> None:
        """Hand over what a job that goes no further has cost, so that the store's sum is what the server bills."""
        if job.is_paid:
            self._deliver(job, error=error)

    def _deliver(self, job: Job, choices: Sequence[Choice] = (), *, error: str | None = None) -> None:
        """Hand over answers; the call keeps its place until all of them are on disk."""
        answers = job.answers(choices, self._price, error)
        self.answered += 0 if error else len(answers)
        for answer in answers:
            self._unacknowledged.append(job.in_place and answer is answers[-1])
            self.arrivals.put(answer)

    def _free_places(self, answers: int) -> None:
        self._places -= sum(self._unacknowledged.popleft() for _ in range(answers))
        self._changed.set()


def _prepare(request: Request, options: DescriberOptions) -> tuple[tuple[bytes, ...], str | None]:
    """Return the image, or the frames of a clip, as data URLs, or why there are none."""
    try:
        return data_urls(request, options), None
    except (OSError, DecodeError) as error:
        return (), why_unusable(error)
