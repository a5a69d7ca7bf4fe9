"""The describer ``openai:MODEL``: many calls in flight to a server, from an event loop that runs while it is read.

A call holds its place from sending until its answer is on disk, so that after a kill at most ``concurrency`` requests
are paid for twice. A failed call gives its place back and waits its turn again. The retries of the official client are
off: they would send again what may be billed already, without asking whether there is money for it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import math
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    Fault,
    Verdict,
    call_body,
    fault_of,
    filtered,
    read_json,
    to_answer,
)
from gpt4image.describing.describers.openai.limiter import Limiter
from gpt4image.describing.describers.openai.server import OPENAI_URL, PROVIDERS, BorderError, find_server, http_options
from gpt4image.describing.prices import FREE, Price, find_price

_LIMITS = ("max_tokens", "max_completion_tokens")
_RESERVED = ("messages", "model", "n", "stream", *_LIMITS)
_CHANGE_THE_TEXT = ("system", "temperature", "max_tokens", "max_side", "image_format", "detail", "extra_body")
_CONNECT_S, _UNTOLD_S, _LEAST_AHEAD, _LOST_IN_ROW = 10.0, 5.0, 8, 3
BACKOFF_S = (0.5, 30.0)
DOWN_S, DOWN_FAILURES = 60.0, 10
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
        if own := options.extra_body.keys() & set(_RESERVED):
            raise ConfigError(f"--extra-body: {own.pop()!r} is set by gpt4image (see --max-tokens); leave it out.")
        self._options, self._model = options, name
        self._server = server = find_server(options.base_url, kind)
        self.price: Price | None = Price(*options.price) if options.price else find_price(name, server.url)
        if self.price is None and server.is_private:
            # At a private address models are free, unless OpenAI sells them: then it is a gateway to OpenAI.
            self.price = find_price(name, OPENAI_URL) or FREE
        self.settings: Mapping[str, Any] = {
            "kind": "openai",
            "model": name,
            "server": options.server_name or server.url,
            **{option: getattr(options, option) for option in _CHANGE_THE_TEXT},
            **options.clip_settings,
        }
        self._examples: Sequence[Example] = ()
        # Fields that not every model takes: names to try, one after the other, and the place of the present one.
        limits = ("max_completion_tokens", "max_tokens") if server.is_openai else _LIMITS
        self._names = {"max_tokens": limits, "response_format": ("response_format", "")}
        self._spelt = dict.fromkeys(self._names, 0)
        self._limiter = Limiter(options.concurrency, options.requests_per_minute)
        self._arrived: list[tuple[Answer, asyncio.Future[None]]] = []
        self._faults, self._calls, self._answers = Counter[str](), 0, 0
        self._failed_in_row = self._rejected_in_row = 0
        self._failing_since, self._told_until, self._last_fault = 0.0, -math.inf, ""

    def show(self, examples: Sequence[Example]) -> None:
        """Begin every question with examples, which are a part of the settings from now on."""
        self._examples = examples
        shown = canonical_json({example.digest: example.class_name for example in examples}).encode()
        digest = hashlib.sha256(shown).hexdigest()
        self.settings = {**self.settings, "examples": len(examples), "examples_sha256": digest}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        self._requests, self._arrived, self._error = iter(requests), [], None
        self._loop = loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(min(4, os.cpu_count() or 1), "images"))
        self._stopped, self._came, self._changed, self._turn = (*(asyncio.Event() for _ in range(3)), asyncio.Lock())
        main = loop.create_task(self._ask_all())
        try:
            while group := loop.run_until_complete(self._next_group(main)):
                yield [answer for answer, _ in group]
                for _, on_disk in group:
                    on_disk.set_result(None)
            main.result()
        finally:
            if tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        if self._error is not None:
            raise self._error

    def arrived(self) -> Sequence[Answer]:
        return [answer for answer, _ in self._arrived]

    def report(self, images: Dataset) -> Report:
        """Return how many calls were sent, how many for each answer, and how many failed with which fault."""
        facts: dict[str, Any] = {"calls": self._calls}
        if self._answers:
            facts["calls_per_answer"] = round(self._calls / self._answers, 3)
        if self._faults:
            facts["faults"] = dict(self._faults.most_common())
        return Report(facts=facts)

    async def _next_group(self, main: asyncio.Task[None]) -> list[tuple[Answer, asyncio.Future[None]]]:
        coming = asyncio.create_task(self._came.wait())
        await asyncio.wait({main, coming}, return_when=asyncio.FIRST_COMPLETED)
        coming.cancel()
        self._came.clear()
        group, self._arrived = self._arrived, []
        return group

    async def _ask_all(self) -> None:
        import httpx2
        from openai import AsyncOpenAI, DefaultAioHttpClient

        # Over aiohttp, which the client offers as a transport, a call takes half the CPU time.
        most, limits = self._options.concurrency, httpx2.Limits(max_connections=self._options.concurrency)
        timeout = httpx2.Timeout(None, connect=min(_CONNECT_S, self._options.timeout))
        http = DefaultAioHttpClient(limits=limits, timeout=timeout, **http_options(is_async=True))
        async with AsyncOpenAI(**self._server.client_options, http_client=http) as self._client:
            ahead = min(most, max(_LEAST_AHEAD, most // 4))  # requests that are made ready before there is room
            workers = [asyncio.create_task(self._ask_in_turn()) for _ in range(most + ahead)]
            try:
                await asyncio.wait(workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _ask_in_turn(self) -> None:
        try:
            while not self._stopped.is_set() and (request := next(self._requests, None)) is not None:
                await self._ask(request)
        except Exception as error:  # noqa: BLE001 - raised after the answers
            self._stop(error)

    async def _ask(self, request: Request) -> None:
        try:
            pictures = await asyncio.to_thread(data_urls, request, self._options)
        except (OSError, DecodeError) as error:
            return await self._give(Answer(request=request, error=why_unusable(error)))
        for tries in itertools.count(1):
            async with self._place():
                if self._stopped.is_set():
                    return None
                body, sent_at = self._body(request, pictures), self._loop.time()
                found = await self._call(request, body, sent_at)
                found = found if isinstance(found, Answer) else self._failed(request, found, body, sent_at, tries)
                if isinstance(found, Answer):
                    return await self._give(found)
            await self._sleep(found)
        return None

    def _body(self, request: Request, pictures: Sequence[str]) -> dict[str, Any]:
        """Return the body of a call, in the words that the model takes as far as is known."""
        body = call_body(self._model, self._options, request, pictures, self._examples)
        names = {field: known[self._spelt[field]] for field, known in self._names.items()}
        return {name: value for field, value in body.items() if (name := names.get(field, field))}

    async def _give(self, answer: Answer) -> None:
        """Hand an answer over, and wait until it is on disk."""
        self._answers += answer.error is None
        on_disk: asyncio.Future[None] = self._loop.create_future()
        self._arrived.append((answer, on_disk))
        self._came.set()
        await on_disk

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        """Wait for a place among the calls in flight, and until the limiter lets the next call go; hold it."""
        async with self._turn:
            while not self._limiter.has_room and not self._stopped.is_set():
                self._changed.clear()
                await self._changed.wait()
            self._limiter.in_flight += 1
            while not self._stopped.is_set() and (wait := self._limiter.delay(now := self._loop.time())) > 0:
                if self._last_fault and wait > _UNTOLD_S and now + wait > self._told_until + _UNTOLD_S:
                    self._told_until = now + wait
                    say(f"No call is sent for {wait:.0f} s, because of the last fault: {self._last_fault}")
                await self._sleep(wait)
        try:
            yield
        finally:
            self._limiter.in_flight -= 1
            self._changed.set()

    def _stop(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stopped.set()
        self._changed.set()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _call(self, request: Request, body: Mapping[str, Any], sent_at: float) -> Answer | Fault:
        """Send a call and wait for the whole answer until the timeout, however slowly it arrives."""
        import aiohttp
        import httpx2
        import openai

        server = self._server
        self._limiter.sent(sent_at)
        self._calls += 1
        try:
            async with asyncio.timeout(self._options.timeout):
                response = await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            return fault_of(error.status_code, error.response.headers, error.response.content, server)
        except BorderError as error:
            if not error.paid:
                return Fault("refused", Verdict.STOP, str(error))
            return self._useless(Answer(request=request, error=str(error), retry=True, unpriced=self.price != FREE))
        except TimeoutError:
            return Fault("timeout", Verdict.LOST, f"no answer within {self._options.timeout:g} s", doubtful=True)
        except (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
            causes = [error, *_causes(error)]
            unreachable = any(isinstance(one, aiohttp.ClientConnectorError | httpx2.ConnectError) for one in causes)
            # Others may quote what the server sent, or the address with its secrets.
            reasons = (one.strerror for one in causes if isinstance(one, OSError) and one.strerror)
            reason = next(reasons, f"the answer is not valid HTTP ({type(causes[-1]).__name__})")
            kind = "unreachable" if unreachable else "connection"
            return Fault(kind, Verdict.LOST, server.one_line(reason), doubtful=not unreachable)
        self._limiter.answered(sent_at)
        latency, content = self._loop.time() - sent_at, response.content
        answer = to_answer(request, read_json(content), content, server, self.price, latency_s=latency)
        if answer.text is None:
            return self._useless(answer)
        self._failed_in_row = self._rejected_in_row = 0
        return answer

    def _useless(self, answer: Answer) -> Answer:
        """Count an answer that was paid for and cannot be read."""
        self._faults["malformed"] += 1
        self._require_alive("malformed", answer.error or "")
        return answer

    def _passed(self, sent_at: float) -> None:
        self._limiter.answered(sent_at)
        self._failed_in_row = self._rejected_in_row = 0

    def _failed(
        self, request: Request, fault: Fault, body: Mapping[str, Any], sent_at: float, tries: int
    ) -> Answer | float:
        """Count a failed call; return the answer where that is the end of it, or how long to wait for the next try."""
        now, verdict = self._loop.time(), fault.verdict
        self._faults[fault.kind] += 1
        self._last_fault = fault.message + (f" (the server asks for {fault.wait:.0f} s)" if fault.wait else "")
        for field, names in self._names.items():
            for place, name in enumerate(names[:-1], 1):
                if name in body and name in fault.unsupported:
                    self._spelt[field] = max(self._spelt[field], place)
                    self._passed(sent_at)
                    return 0.0
        if verdict is Verdict.STOP:
            self._stop(DescriberError(self._explained(fault)))
            return 0.0
        if verdict is Verdict.FILTERED:
            self._passed(sent_at)
            return filtered(request, self.price)
        if verdict is Verdict.REJECTED:
            self._rejected_in_row += 1
            if self._rejected_in_row >= (REJECTED_IN_ROW if self._answers else ALL_REJECTED):
                images = f"the last {self._rejected_in_row} images" if self._answers else "every image"
                self._stop(DescriberError(f"the server rejects {images} ({fault.message})"))
            return Answer(request=request, error=fault.message)
        self._require_alive(fault.kind, fault.message)
        if verdict is Verdict.LIMITED:
            self._limiter.refused(now, sent_at, fault.wait)
        elif verdict is Verdict.OVERLOADED or (verdict is Verdict.LOST and self._failed_in_row >= _LOST_IN_ROW):
            self._limiter.overloaded(now, sent_at)
        if fault.doubtful and not request.lost():
            error = f"{fault.message}; it may be billed, so it is tried again only where --max-cost has room"
            return Answer(request=request, error=error, retry=True)
        if tries > self._options.retries:
            return Answer(request=request, error=fault.message + (f" ({tries} tries)" if tries > 1 else ""))
        return max(fault.wait, random.uniform(0, min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** (tries - 1))))

    def _require_alive(self, kind: str, message: str) -> None:
        """Count a failure, and stop where nothing has got through for a while."""
        now = self._loop.time()
        self._failing_since = self._failing_since if self._failed_in_row else now
        self._failed_in_row += 1
        is_absent, seconds = kind == "unreachable" and not self._answers, now - self._failing_since
        failures, longest = (UNREACHABLE_FAILURES, UNREACHABLE_S) if is_absent else (DOWN_FAILURES, DOWN_S)
        if self._failed_in_row >= failures and seconds > longest:
            why = f"there is no server to be reached ({message}); is it running, and is --base-url right?"
            why = why if is_absent else f"the server has not answered for {seconds:.0f} s; the last fault: {message}"
            self._stop(DescriberError(why))

    def _explained(self, fault: Fault) -> str:
        url, reason = self._server.url, f"({fault.message})"
        hint = "" if url.endswith("/v1") else "; most addresses end in /v1: is --base-url complete?"
        words = {
            "401": f"does not accept the key in {self._server.key_name} {reason}.",
            "403": f"does not let this key use {self._model} {reason}.",
            "404": f"does not know the model {self._model} {reason}{hint}",
            "refused": f"gives no answer that can be taken {reason}; is --base-url right?",
        }
        if fault.wait > LONGEST_WAIT_S:
            words = {fault.kind: f"takes no calls for {timedelta(seconds=round(fault.wait))} {reason}; try again then."}
        return f"{url} {words.get(fault.kind, f'wants to be paid before it answers: there is no quota left {reason}.')}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from _causes(cause)
