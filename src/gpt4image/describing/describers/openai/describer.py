"""The describer ``openai:MODEL``: calls in flight to a server, from an event loop in a thread of its own.

A call holds its place from sending until its answer is on disk, so that after a kill at most ``concurrency`` requests
are paid for twice. A failed call gives its place back and waits its turn again. The retries of the official client are
off, as they count no refusals, bound no body and know no money; its connections and headers are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import queue
import random
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from gpt4image.artifacts.answers import canonical_json
from gpt4image.base.errors import ConfigError, DecodeError, DescriberError, MissingExtraError
from gpt4image.base.progress import say
from gpt4image.config import DescriberOptions
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Example, Report, Request
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai.chat import (
    LONGEST_WAIT_S,
    Completion,
    Dialect,
    Fault,
    Job,
    Verdict,
    completion_of,
    fault_of_response,
    filtered,
    to_answer,
)
from gpt4image.describing.describers.openai.server import (
    OPENAI_URL,
    PROVIDERS,
    NotJsonError,
    RedirectedError,
    TooLargeError,
    find_server,
    parse_json,
    read_async,
)
from gpt4image.describing.prices import FREE, Price, find_price

_RESERVED = ("messages", "model", "n", "stream")
_LIMITS = ("max_tokens", "max_completion_tokens")
_CHANGE_THE_TEXT = ("system", "temperature", "max_tokens", "max_side", "image_format", "detail", "extra_body")
_CONNECT_S, _UNTOLD_S = 10.0, 5.0
_LEAST_AHEAD = 8
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
_REDIRECT = "redirect"

_FIRST_RATE, _DOUBLING_S, _FASTEST, _SLOWEST = 32.0, 0.1, 1e5, 1 / 60
_PATIENCE_S, _PAUSE_S = (0.5, 60.0), (0.05, 30.0)
_EVIDENCE_S, _REMEMBERED_S = 4.0, 240.0
_LOST_IN_ROW = 3

DOWN_S, DOWN_FAILURES = 60.0, 20
UNREACHABLE_S, UNREACHABLE_FAILURES = 4.0, 3
ALL_REJECTED, REJECTED_IN_ROW = 10, 50
"""Images that are rejected in a row before the run ends: before the first answer, and after it."""


class OpenAIDescriber:
    """Asks a model behind an OpenAI-compatible server, as many calls at a time as it takes."""

    repeatable = False  # also at temperature 0

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find server and price of the model ``name``; nothing is sent. Raises ConfigError, MissingExtraError."""
        kind = options.describer.partition(":")[0]
        if not all(map(find_spec, ("openai", "genai_prices"))):
            raise MissingExtraError(f"{kind}:", "api")
        if not name:
            example = f"{kind}:{PROVIDERS[kind].model}"
            raise ConfigError(f"{kind}:MODEL needs the name of a model, as the server knows it, e.g. {example}.")
        for field in options.extra_body:
            if field in _RESERVED:
                raise ConfigError(f"--extra-body: {field!r} is set by gpt4image itself; leave it out.")
            if field in _LIMITS:
                raise ConfigError("--extra-body: give --max-tokens, which --max-cost reckons with.")
        self._options, self._model = options, name
        self._server = server = find_server(options.base_url, kind)
        self.price: Price | None = Price(*options.price) if options.price else find_price(name, server.url)
        if self.price is None and server.is_private:
            # At a private address models are free, unless OpenAI sells them: then it is a gateway to OpenAI.
            self.price = find_price(name, OPENAI_URL) or FREE
        self._dialect = Dialect(name, options, server)
        self.settings: Mapping[str, Any] = {
            "kind": "openai",
            "model": name,
            "server": options.server_name or server.url,
            **{option: getattr(options, option) for option in _CHANGE_THE_TEXT},
            **options.clip_settings,
        }
        self._limiter = Limiter(options.concurrency, options.requests_per_minute)
        self._calls = self._answers = 0
        self._faults: Counter[str] = Counter()
        self._last_fault = ""
        self._told_until = -math.inf
        self._arrivals: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()

    def show(self, examples: Sequence[Example]) -> None:
        """Begin every question with examples, which are a part of the settings from now on."""
        self._dialect.examples = examples
        shown = canonical_json({example.digest: example.class_name for example in examples}).encode()
        digest = hashlib.sha256(shown).hexdigest()
        self.settings = {**self.settings, "examples": len(examples), "examples_sha256": digest}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        self._arrivals = queue.SimpleQueue()
        self._requests = iter(requests)
        self._unacknowledged: deque[asyncio.Future[None]] = deque()  # of answers that are not known to be on disk
        self._busy = 0
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        main = self._loop.create_task(self._run())
        thread = threading.Thread(target=self._work, args=(main,), name="calls", daemon=True)
        thread.start()
        try:
            while (first := self._arrivals.get()) is not None:
                group = [first, *self.arrived()]
                yield group
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._acknowledge, len(group))
            if self._error is not None:
                raise self._error
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(main.cancel)
            thread.join()

    def arrived(self) -> Sequence[Answer]:
        answers: list[Answer] = []
        while not self._arrivals.empty():
            answer = self._arrivals.get()
            if answer is None:
                self._arrivals.put(None)
                break
            answers.append(answer)
        return answers

    def report(self, images: Dataset) -> Report:
        """Return how many calls were sent, how many for each answer, and how many failed with which fault."""
        facts: dict[str, Any] = {"calls": self._calls}
        if self._answers:
            facts["calls_per_answer"] = round(self._calls / self._answers, 3)
        if self._faults:
            facts["faults"] = dict(self._faults.most_common())
        return Report(facts=facts)

    # In the thread of the event loop

    def _work(self, main: asyncio.Task[None]) -> None:
        self._loop.run_until_complete(asyncio.wait({main}))
        failure = None if main.cancelled() else main.exception()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._error = self._error or failure
        self._arrivals.put(None)

    async def _run(self) -> None:
        self._stopped, self._changed, self._turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        most = self._options.concurrency
        ahead = min(most, max(_LEAST_AHEAD, most // 4))  # requests that are made ready before there is room for them
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "images") as self._pool:
            async with self._connected():
                workers = [self._loop.create_task(self._ask_in_turn()) for _ in range(most + ahead)]
                try:
                    await asyncio.wait(workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)

    async def _ask_in_turn(self) -> None:
        try:
            while not self._stopped.is_set() and (request := next(self._requests, None)) is not None:
                job = Job(request)
                if (answer := await self._answer(job)) is not None:
                    self._answers += answer.error is None
                    on_disk: asyncio.Future[None] = self._loop.create_future()
                    self._unacknowledged.append(on_disk)
                    self._arrivals.put(answer)
                    await on_disk
                self._leave(job)
        except Exception as error:  # noqa: BLE001 - raised after the answers
            self._stop(error)

    def _acknowledge(self, answers: int) -> None:
        for _ in range(answers):
            if self._unacknowledged and not (on_disk := self._unacknowledged.popleft()).done():
                on_disk.set_result(None)

    def _stop(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stopped.set()
        self._changed.set()

    async def _answer(self, job: Job) -> Answer | None:
        """Return the answer to a request; None where the run stops before."""
        request = job.request
        try:
            job.pictures = await self._loop.run_in_executor(self._pool, data_urls, request, self._options)
        except (OSError, DecodeError) as error:
            return Answer(request=request, error=why_unusable(error))
        while True:
            await self._take_place(job)
            if self._stopped.is_set():
                return None
            found = await self._call(job)
            if isinstance(found, Answer):
                return found
            if found.verdict is Verdict.FILTERED:
                return filtered(request, self.price)
            if found.doubtful and not request.lost():
                error = f"{found.message}; it may be billed, so it is tried again only where --max-cost has room"
                return Answer(request=request, error=error, retry=True)
            if found.verdict is Verdict.STOP:
                return None
            if found.verdict is not Verdict.ADAPT:
                if found.verdict is Verdict.GIVE_UP or job.tries >= self._options.retries:
                    tries = f" ({job.tries + 1} tries)" if job.tries else ""
                    return Answer(request=request, error=found.message + tries)
                job.tries += 1
            self._leave(job)
            if found.verdict is not Verdict.ADAPT:  # exponential with full jitter
                longest = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** (job.tries - 1))
                await self._sleep(max(found.retry_after or 0.0, random.uniform(0, longest)))

    async def _take_place(self, job: Job) -> None:
        """Wait for a place among the calls in flight, and until the limiter lets the next call go."""
        async with self._turn:
            while self._busy >= self._limiter.concurrency and not self._stopped.is_set():
                self._changed.clear()
                await self._changed.wait()
            self._busy, job.in_place = self._busy + 1, True
            while not self._stopped.is_set() and (wait := self._limiter.delay(now := self._loop.time())) > 0:
                is_long = self._last_fault and wait > max(_UNTOLD_S, self._limiter.own_delay(now))
                if is_long and now + wait > self._told_until + _UNTOLD_S:
                    self._told_until = now + wait
                    say(f"No call is sent for {wait:.0f} s, because of the last fault: {self._last_fault}")
                await self._sleep(wait)

    def _leave(self, job: Job) -> None:
        self._busy, job.in_place = self._busy - job.in_place, False
        self._changed.set()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _call(self, job: Job) -> Answer | Fault:
        sent_at = self._loop.time()
        self._limiter.sent(sent_at)
        self._calls += 1
        completion, fault = await self._exchange(self._dialect.body(job))
        now = self._loop.time()
        if fault is None:
            self._limiter.answered(sent_at)
            return to_answer(job.request, completion, self.price, latency_s=now - sent_at)
        self._faults[fault.kind] += 1
        asked = "" if fault.retry_after is None else f" (the server asks for {fault.retry_after:.0f} s)"
        self._last_fault = fault.message + asked
        if self._dialect.adapt(fault, job):
            fault = replace(fault, verdict=Verdict.ADAPT)
        reason = self._limiter.failed(now, sent_at, fault)
        if fault.verdict is Verdict.STOP:
            reason = self._explain(fault)
        if reason is not None:
            self._stop(DescriberError(reason))
        return to_answer(job.request, completion, self.price, error=fault.message) if fault.paid else fault

    def _explain(self, fault: Fault) -> str:
        url, reason, wait = self._server.url, f"({fault.message})", fault.retry_after or 0.0
        hint = "" if url.endswith("/v1") else "; most addresses end in /v1: is --base-url complete?"
        if wait > LONGEST_WAIT_S and fault.kind not in ("401", "403", "404"):
            return f"{url} takes no calls for {timedelta(seconds=round(wait))} {reason}; run the same command then."
        return {
            "401": f"{url} does not accept the key in {self._server.key_name} {reason}.",
            "403": f"{url} does not let this key use {self._model} {reason}.",
            "404": f"{url} does not know the model {self._model} {reason}{hint}",
            _REDIRECT: f"{url} sends the request elsewhere {reason}. If that is right, name it by --base-url.",
        }.get(fault.kind, f"{url} wants to be paid before it answers: there is no quota left {reason}.")

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None, None]:
        import httpx2
        from openai import AsyncOpenAI, DefaultAioHttpClient

        # Over aiohttp, which the client offers as a transport, a call takes half the CPU time.
        self._http = DefaultAioHttpClient(limits=httpx2.Limits(max_connections=self._options.concurrency))
        async with AsyncOpenAI(**self._server.credentials(), http_client=self._http) as client:
            headers = {**client.auth_headers, **client.default_headers}
            timeout = httpx2.Timeout(self._options.timeout, connect=min(_CONNECT_S, self._options.timeout))
            self._http_call: dict[str, Any] = {
                "method": "POST",
                "url": httpx2.URL(f"{self._server.url}/chat/completions", params=self._server.query or None),
                "headers": httpx2.Headers({name: text for name, text in headers.items() if isinstance(text, str)}),
                "extensions": {"timeout": timeout.as_dict()},
            }
            yield

    async def _exchange(self, body: bytes) -> tuple[Completion, Fault | None]:
        """Send a request and wait for the whole answer until the timeout, however slowly it arrives.

        Return the completion, and the fault where it is of no use; both where it is malformed but paid for.
        """
        import aiohttp
        import httpx2

        response, server = None, self._server
        try:
            async with asyncio.timeout(self._options.timeout):
                request = httpx2.Request(**self._http_call, content=body)
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    content = await read_async(response)
                except TooLargeError as error:
                    content = str(error).encode()
            if not response.is_success:
                return Completion(), fault_of_response(response.status_code, response.headers, content, server)
        except RedirectedError as error:
            return Completion(), Fault(_REDIRECT, Verdict.STOP, server.one_line(error))
        except (OSError, httpx2.RequestError, httpx2.InvalidURL, aiohttp.ClientError, ValueError, EOFError) as error:
            # Also where the answer is no HTTP, or a body that cannot be decompressed.
            fault = no_response(error, self._options.timeout)
            paid = response is not None and response.is_success
            return Completion(), replace(fault, message=server.one_line(fault.message), paid=paid)
        completion = Completion()
        with contextlib.suppress(NotJsonError):
            completion = completion_of(parse_json(content), server.keys)
        if completion.text is not None:
            return completion, None
        text = content.decode("utf-8", errors="replace") or "nothing"
        what = f"status {response.status_code} without an answer: {text}"
        return completion, Fault("malformed", Verdict.RETRY, server.one_line(what), paid=True)


def no_response(error: BaseException, seconds: float) -> Fault:
    """Return the fault of a connection that could not be made, broke, or was silent for so many seconds."""
    from aiohttp import ClientConnectorError, ClientResponseError, ConnectionTimeoutError, SocketTimeoutError
    from aiohttp.http_exceptions import HttpProcessingError

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    unreachable = any(isinstance(cause, ClientConnectorError | ConnectionTimeoutError) for cause in causes)
    silent = any(isinstance(cause, SocketTimeoutError) for cause in causes)
    if type(error) is TimeoutError or (silent and not unreachable):
        return Fault("timeout", Verdict.LOST, f"no answer within {seconds:g} s", doubtful=True)
    kind = "unreachable" if unreachable else "connection"
    # Their texts hold the address, with any secret of its query, or what the server sent, already cut.
    if isinstance(last := causes[-1], ClientResponseError | HttpProcessingError | ValueError):
        return Fault(kind, Verdict.LOST, f"the answer is not valid HTTP ({type(last).__name__})", doubtful=True)
    return Fault(kind, Verdict.LOST, str(last) or type(last).__name__, doubtful=not unreachable)


# How fast and how many calls at a time a server is sent, learned from its refusals; and when it is of no use. Only
# bookkeeping: every method is given the time in seconds of a monotonic clock, and nothing here waits.


class Limiter:
    """When the next call may be sent, and how many may be in flight: ``concurrency``."""

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        self._rate = _Rate()
        self._interval, self._free_at = 60 / requests_per_minute if requests_per_minute else 0.0, -math.inf
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
        """Return how long the limit that the user gave holds the next call, in seconds."""
        return max(0.0, self._free_at - now)

    def sent(self, now: float) -> None:
        self._rate.sent(now)
        self._free_at = max(self._free_at, now) + self._interval

    def answered(self, sent_at: float) -> None:
        self._at_once = min(self._most, self._at_once + 0.25)
        self._rate.accepted(sent_at)
        self._lost_in_row = self._failed_in_row = self._rejected_in_row = 0
        self._answered = True

    def failed(self, now: float, sent_at: float, fault: Fault) -> str | None:
        """Count a call that failed; return why the run should stop, if it should."""
        if fault.verdict in (Verdict.FILTERED, Verdict.ADAPT, Verdict.STOP):
            self.answered(sent_at)
            return None
        if fault.verdict is Verdict.GIVE_UP:
            self._rejected_in_row += 1
            if self._rejected_in_row < (REJECTED_IN_ROW if self._answered else ALL_REJECTED):
                return None
            images = f"the last {self._rejected_in_row} images" if self._answered else "every image"
            return f"the server rejects {images} ({fault.message})"
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
