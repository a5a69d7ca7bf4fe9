"""One run over the Batch API: submits what is new, waits, and collects what was asked for, in this run or before it."""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from gpt4image.base.errors import DecodeError, DescriberError
from gpt4image.base.progress import console
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.batch.api import (
    ENDED,
    BatchApi,
    BatchState,
    BusyError,
    GoneError,
    NoRoomError,
    RefusedError,
    is_no_room,
)
from gpt4image.describing.describers.batch.ledger import BatchLedger, Submission
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai.client import Server
from gpt4image.describing.describers.openai.completions import Choice, completion_of
from gpt4image.describing.describers.openai.dialect import Dialect
from gpt4image.describing.describers.openai.faults import Verdict, fault_of_response
from gpt4image.describing.describers.openai.jobs import Job
from gpt4image.describing.describers.openai.untrusted import NotJsonError, lines_of, mapping, one_line, parse_json
from gpt4image.describing.prices import Price

# The server takes 50,000 lines and 200 MB.
MAX_LINES = 50_000
MAX_BYTES = 190_000_000
MAX_OPEN = 100
# How long a call may take effect after its sender was killed, in seconds.
SETTLING_S = 60.0
# How long a server may be away, or owe the file of answers of a batch that has ended, in seconds.
PATIENCE_S = 6 * 3600.0
# How long a server keeps answers, in days.
KEPT_DAYS = 30
_ANSWERS_PER_GROUP = 256
_TICK_S = 1.0
_MOST_DIGITS = 10
_NO_ANSWER = "the response holds no answer"


@dataclass(frozen=True)
class Chat:
    """Chat completions as lines of a batch, read as the answers to single calls are."""

    dialect: Dialect
    options: DescriberOptions
    price: Price | None
    server: Server

    def body(self, request: Request) -> bytes:
        """Return the JSON body of a request; raises OSError or DecodeError where its image cannot be sent."""
        pictures = data_urls(request, self.options)
        return self.dialect.body(Job(request=request, samples=request.samples, pictures=pictures))

    def answers(self, request: Request, count: int, status: int, body: Any) -> list[Answer]:
        """Return up to ``count`` answers that a response with an HTTP status and a body brings, in its order."""
        job = Job(request=request, samples=tuple(range(count)))
        if status == 200:
            completion = completion_of(body, self.server.keys)
            job.pay(completion, wasted=not completion.choices)
            return job.answers(completion.choices, self.price, None if completion.choices else _NO_ANSWER)
        fault = fault_of_response(status, {}, json.dumps(body).encode())
        if fault.verdict is Verdict.FILTERED:
            return job.answers([Choice("", "content_filter")] * count, self.price)
        message = self.one_line(fault.message)
        if fault.parameter == "response_format":
            message += """; give --extra-body '{"response_format": null}' to ask without a schema"""
        return job.answers((), self.price, message)

    def one_line(self, text: object) -> str:
        """Return an error text, short and free of secrets."""
        return one_line(text, self.server.secrets)


@dataclass(frozen=True)
class _Wanted:
    """An answer that somebody waits for: this choice of the response is this sample of the request."""

    request: Request
    sample: int
    choice: int


@dataclass
class _Open:
    """A batch at the server.

    Attributes:
        wanted: answers that this run waits for, by line.
        done: requests that the server is done with.
        ended: when it was first seen to have ended, in seconds of the monotonic clock.
        end: how it ended, once the file of its answers is there.
    """

    submission: Submission
    server_id: str
    wanted: dict[int, list[_Wanted]] = field(default_factory=dict[int, list[_Wanted]])
    done: int = 0
    ended: float | None = None
    end: BatchState | None = None


class BatchRun:
    """One call of ``describe``: submits what is new, waits, and collects what was asked for."""

    def __init__(self, ledger: BatchLedger, api: BatchApi, chat: Chat, poll_seconds: float) -> None:
        self._ledger = ledger
        self._api = api
        self._chat = chat
        self._poll_seconds = poll_seconds
        self._open: dict[int, _Open] = {}
        self._backlog: deque[Request] = deque()
        self._exhausted = False
        self._room = True
        self._max_lines = MAX_LINES
        self._heard = time.monotonic()

    def answers(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers of requests, and empty groups while waiting; see ``Describer.describe``."""
        yield from self._resume()
        source = iter(requests)
        with console.status("Batches") as status:
            while True:
                if self._may_submit():
                    yield from self._submit(source)
                for batch in list(self._open.values()):
                    if batch.end is None:
                        self._look(batch)
                    if batch.end is not None and batch.wanted:
                        yield from self._collect(batch, batch.end)
                waiting = [batch for batch in self._open.values() if batch.wanted]
                if not waiting and not self._backlog and self._exhausted:
                    return
                done = sum(batch.done for batch in waiting)
                status.update(f"batches at the server: {len(waiting)}, requests they have done: {done:,}")
                if not self._may_submit():
                    yield from _rest(self._poll_seconds)

    def _may_submit(self) -> bool:
        more = bool(self._backlog) or not self._exhausted
        return more and self._room and self._running() < MAX_OPEN

    def _running(self) -> int:
        return sum(batch.end is None for batch in self._open.values())

    def _resume(self) -> Iterator[Sequence[Answer]]:
        """Find the batches that earlier runs left at the server."""
        for submission in self._ledger.open_batches():
            server_id = submission.server_id
            if server_id is None and submission.input_file is not None:
                server_id = yield from self._find(submission)
            if server_id is None:
                self._close(submission)
            elif not self._ledger.items_left(submission.row):
                self._api.cancel(server_id)  # all answers came otherwise, and what still runs would be paid for
                self._close(submission)
            else:
                self._open[submission.row] = _Open(submission, server_id)

    def _find(self, submission: Submission) -> Generator[Sequence[Answer], None, str | None]:
        """Return the id of a batch whose creation was cut short; None where there is none."""
        for seconds in (0.0, SETTLING_S):  # a call whose sender was killed just now may still take effect
            yield from _rest(seconds)
            if found := self._api.find(submission.token, submission.created):
                self._ledger.note_batch(submission.row, found.id)
                return found.id
        return None

    def _close(self, submission: Submission) -> None:
        self._delete_input(submission)
        self._ledger.close_batch(submission.row)
        self._open.pop(submission.row, None)

    def _delete_input(self, submission: Submission) -> None:
        if submission.input_file is None:
            self._api.delete_upload(submission.token, submission.created)
        else:
            self._api.delete(submission.input_file)

    def _submit(self, source: Iterator[Request]) -> Iterator[Sequence[Answer]]:
        with tempfile.TemporaryFile() as spool:
            lines, refused = self._write(source, spool)
            if refused:
                yield refused
            yield []
            if lines:
                self._send(lines, spool)

    def _write(self, source: Iterator[Request], spool: BinaryIO) -> tuple[list[Request], list[Answer]]:
        """Write requests to the file until it is full; images that cannot be sent are answers with an error."""
        lines: list[Request] = []
        refused: list[Answer] = []
        for request in self._new(source):
            try:
                body = self._chat.body(request)
            except (OSError, DecodeError) as error:
                reason = why_unusable(error)
                refused += [Answer(request=request, sample=sample, error=reason) for sample in request.samples]
                continue
            head = f'{{"custom_id": "{len(lines)}", "method": "POST", "url": "/v1/chat/completions", "body": '
            line = head.encode() + body + b"}\n"
            if lines and spool.tell() + len(line) > MAX_BYTES:
                self._backlog.appendleft(request)
                break
            spool.write(line)
            lines.append(request)
            if len(lines) == self._max_lines:
                break
        return lines, refused

    def _new(self, source: Iterator[Request]) -> Iterator[Request]:
        """Yield what is not on its way; for what is, the answer is waited for."""
        while self._backlog:
            yield self._backlog.popleft()
        for request in source:
            places = self._ledger.places(request)
            for sample, place in places.items():
                wanted = self._open[place.batch].wanted.setdefault(place.line, [])
                wanted.append(_Wanted(request, sample, place.choice))
            rest = tuple(sample for sample in request.samples if sample not in places)
            if rest:
                yield replace(request, samples=rest)
        self._exhausted = True

    def _send(self, lines: Sequence[Request], spool: BinaryIO) -> None:
        submission = self._ledger.add(secrets.token_hex(16), lines)
        try:
            input_file = self._api.upload(spool, submission.token)
            submission = self._ledger.note_file(submission, input_file)
            server_id = self._api.create(input_file, submission.token, submission.created)
        except DescriberError as error:
            if submission.input_file is None or isinstance(error, RefusedError):
                self._close(submission)
            if not isinstance(error, NoRoomError):
                raise
            self._wait_for_room(lines, len(lines), str(error))
            return
        self._ledger.note_batch(submission.row, server_id)
        wanted = {
            line: [_Wanted(request, sample, choice) for choice, sample in enumerate(request.samples)]
            for line, request in enumerate(lines)
        }
        self._open[submission.row] = _Open(submission, server_id, wanted)

    def _wait_for_room(self, requests: Sequence[Request], size: int, reason: str) -> None:
        """Put requests back: until another batch has ended, or, where none runs, to be sent in smaller parts."""
        self._backlog.extendleft(reversed(requests))
        if self._running():
            self._room = False
        elif size > 1:
            self._max_lines = size // 2
        else:
            raise DescriberError(f"Batch API: the queue has no room for a single request now: {reason}")

    def _look(self, batch: _Open) -> None:
        try:
            found = self._api.look(batch.server_id)
        except BusyError:
            if time.monotonic() - self._heard > PATIENCE_S:
                raise
            return
        except GoneError as error:
            days = (time.time() - batch.submission.created) / 86_400
            if days < KEPT_DAYS:
                raise DescriberError(
                    f"{error} The batch {batch.server_id} was submitted {days:.1f} days ago with "
                    f"{self._ledger.items_left(batch.submission.row):,} requests; use the key of the project that "
                    f"submitted it. Without that key the answers are lost: they are asked anew after {KEPT_DAYS} days, "
                    f"or in another --store, to which `descriptions export` and `import` take what is described."
                ) from None
            batch.end = BatchState("expired")
            return
        self._heard = time.monotonic()
        batch.done = found.completed
        if found.status not in ENDED:
            return
        batch.ended = batch.ended or time.monotonic()
        if batch.done and not found.output_file and time.monotonic() - batch.ended <= PATIENCE_S:
            return  # the answers are paid for, and some servers name their file a while after the end
        self._room = True
        batch.end = found

    def _collect(self, batch: _Open, end: BatchState) -> Iterator[Sequence[Answer]]:
        if end.status == "failed" and not (end.output_file or end.error_file):
            self._failed(batch, end)
            return
        answers = self._results(batch, end)
        while group := list(itertools.islice(answers, _ANSWERS_PER_GROUP)):
            yield group
            self._ledger.forget(group)
        if self._ledger.items_left(batch.submission.row):
            self._delete_input(batch.submission)  # what is left, nobody asked for in this run
        else:
            self._close(batch.submission)

    def _failed(self, batch: _Open, end: BatchState) -> None:
        """Nothing of the batch was worked on: it may be sent again, or nothing can be."""
        count = self._ledger.items_left(batch.submission.row)
        self._close(batch.submission)
        if not is_no_room(end.codes):
            raise DescriberError(f"Batch API: the server refuses the requests: {end.reason}")
        requests = [
            replace(wanted[0].request, samples=tuple(one.sample for one in wanted)) for wanted in batch.wanted.values()
        ]
        self._wait_for_room(requests, count, end.reason)

    def _results(self, batch: _Open, end: BatchState) -> Iterator[Answer]:
        reason = f"the batch {end.status} without an answer to this request"
        lost = False  # whether an answer that was paid for may be among what cannot be read
        with tempfile.TemporaryFile() as spool:
            for file in filter(None, (end.output_file, end.error_file)):
                try:
                    whole = self._api.download(file, spool)
                except GoneError:
                    reason, lost = "the server no longer has the answer", True
                    continue
                readable, unreadable = 0, 0
                for line in lines_of(spool):
                    try:
                        row = parse_json(line)
                        number = _line_number(row)
                    except NotJsonError:
                        unreadable += line.endswith(b"\n")  # else the transfer was cut within it
                        continue
                    readable += 1
                    if wanted := batch.wanted.pop(number, None):  # else it was read before
                        yield from self._answers_of(row, wanted)
                lost = lost or unreadable > 0 or not whole
                expected = end.completed if file == end.output_file and whole else 0
                if readable + unreadable < expected or (expected and not readable):
                    raise BusyError(
                        f"Batch API: the file of answers is not whole: {readable:,} of {expected:,} can be read. All "
                        "of them are still at the server; give the same command again.",
                        unsure=False,
                    )
        while batch.wanted:
            _, wanted = batch.wanted.popitem()
            yield from _failures(wanted, reason, unpriced=lost)

    def _answers_of(self, row: Any, wanted: Sequence[_Wanted]) -> Iterator[Answer]:
        """Yield the answers to whoever waits for a line of the file."""
        match row:
            case {"response": {"status_code": int(status), "body": body}}:
                count = 1 + max(one.choice for one in wanted)
                found = self._chat.answers(wanted[0].request, count, status, body)
                answered = [one for one in wanted if one.choice < len(found)]
                yield from (replace(found[one.choice], request=one.request, sample=one.sample) for one in answered)
                yield from _failures([one for one in wanted if one not in answered], _NO_ANSWER, unpriced=False)
            case {"error": {"message": str(message)}}:
                yield from _failures(wanted, self._chat.one_line(message), unpriced=False)
            case _:
                yield from _failures(wanted, _NO_ANSWER, unpriced=True)


def _line_number(row: Any) -> int:
    """Return the number of the line that a row answers; raises NotJsonError where it names none."""
    name = mapping(row).get("custom_id")
    if isinstance(name, str) and name.isdecimal() and len(name) < _MOST_DIGITS:
        return int(name)
    raise NotJsonError("the row answers no line")


def _failures(wanted: Sequence[_Wanted], reason: str, *, unpriced: bool) -> Iterator[Answer]:
    """Yield failures; ``unpriced`` where their call may be paid for, which counts once."""
    for one in wanted:
        calls = int(unpriced and one is wanted[0])
        yield Answer(request=one.request, sample=one.sample, error=reason, wasted=calls, unpriced=calls)


def _rest(seconds: float) -> Iterator[Sequence[Answer]]:
    """Wait, with an empty group about once a second: the caller may break off there."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _TICK_S))
        yield []
