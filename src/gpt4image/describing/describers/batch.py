"""Requests through OpenAI's Batch API: half the price, answers within a day; nothing is paid twice or lost.

What was handed over and has not come back is noted in the description store before it is sent: the ledger. An item is
identified as results are, is in at most one batch, and is forgotten once its answer is in the store. What is pending is
waited for instead of being sent again. So the process may be killed at any moment, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from gpt4image.artifacts.answers import Prompt
from gpt4image.artifacts.store_file import References, connect_writer, explained
from gpt4image.base.errors import ConfigError, DecodeError, DescriberError
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai.chat import (
    Completion,
    Job,
    Verdict,
    completion_of,
    fault_of_response,
    to_answer,
)
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import (
    MAX_BODY,
    NotJsonError,
    RedirectedError,
    blocking_client,
    mapping,
    parse_json,
)
from gpt4image.describing.prices import HALF_PRICE

T = TypeVar("T")
MAX_LINES, MAX_BYTES, MAX_OPEN = 50_000, 190_000_000, 100  # the server takes 50,000 lines and 200 MB
MAX_FILE = 4 * 2**30
"""Maximum bytes of a file of answers, decompressed; what comes after them is not read."""
SETTLING_S = 60.0  # how long a call may take effect after its sender was killed
PATIENCE_S = 6 * 3600.0  # how long a server may be away
KEPT_DAYS = 30  # how long a server keeps answers
_TIMEOUT_S = 600.0  # an answer about 190 MB that were uploaded takes its time
_TRIES, _FIRST_WAIT_S, _CLOCK_SKEW_S = 7, 1.0, 86_400.0
_MAX_ID, _MOST_LISTED, _MOST_DIGITS = 500, 100_000, 10
_ENDED = frozenset(("completed", "expired", "cancelled", "failed"))
_NO_ROOM = frozenset(("token_limit_exceeded", "request_limit_exceeded"))
_NO_MONEY = frozenset(("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"))
_ANSWERS_PER_GROUP, _TICK_S = 256, 1.0
_NAME, _NO_ANSWER = "gpt4image", "the response holds no answer"

# An answer that was committed after its batch was made is this batch's, or took its place: a kill came between the
# store's commit and the ledger's.
_FORGET_STORED = """
DELETE FROM batch_items WHERE describer = ? AND EXISTS (
    SELECT 1 FROM results AS r JOIN batches AS b ON b.id = batch_items.batch
    WHERE (r.digest, r.prompt, r.describer, r.sample) =
          (batch_items.digest, batch_items.prompt, batch_items.describer, batch_items.sample)
    AND r.text IS NOT NULL AND r.created >= b.created)
"""
_THIS = "WHERE (digest, prompt, describer, sample) = (?, ?, ?, ?)"


@dataclass
class Batch:
    """A batch that is not closed, by its row in the ledger."""

    row: int
    token: str  # unique name, sent with the batch: finds it again where the id was not noted
    created: float  # when the ledger noted it, in seconds since 1970-01-01 UTC
    input_file: str | None = None  # the server's id of the uploaded file; only with it a batch can exist
    server_id: str | None = None  # the server's id of the batch; None where the creation was not heard of
    wanted: dict[int, Request] = field(default_factory=dict[int, Request])  # what this run waits for, by line
    done: int = 0  # requests that the server is done with
    status: str = ""  # how it ended, once the files of its answers are there
    files: tuple[str | None, str | None] = (None, None)  # of answers and of errors
    codes: tuple[str | None, ...] = ()  # of errors of the batch as a whole
    reason: str = ""


class Ledger(contextlib.AbstractContextManager["Ledger", None]):
    """Open batches of the describer with these settings, in the store at ``path``.

    Use as a context manager, in one thread, while nobody else writes the store. All methods may raise StoreError, and
    then nothing is noted.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open it; items whose answer is in the store already are forgotten."""
        self._path = path
        with explained(path):
            self._connection = connect_writer(path)
            self._references = References(self._connection)
            with self._connection:
                self._describer = self._references.describer(settings)
                self._connection.execute(_FORGET_STORED, (self._describer,))

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not closed, oldest first."""
        columns = "id, token, created, input_file, server_id"
        sql = f"SELECT {columns} FROM batches WHERE describer = ? AND closed IS NULL ORDER BY id"
        return [Batch(*row) for row in self._run(sql, self._describer)]

    def place(self, request: Request) -> tuple[int, int] | None:
        """Return row and line of a request that is in a batch."""
        return next(iter(self._run(f"SELECT batch, line FROM batch_items {_THIS}", *self._key(request))), None)

    def digests(self, prompt: Prompt) -> set[str]:
        """Return the digests of what is in a batch for a prompt."""
        sql = "SELECT lower(hex(digest)) FROM batch_items WHERE prompt = ? AND describer = ?"
        return {digest for (digest,) in self._run(sql, self._prompt(prompt), self._describer)}

    def add(self, requests: Sequence[Request]) -> Batch:
        """Note a batch that is about to be sent, with a request per line."""
        keys, token, created = [*map(self._key, requests)], secrets.token_hex(16), time.time()
        with explained(self._path), self._connection:
            sql = "INSERT INTO batches (describer, token, created) VALUES (?, ?, ?) RETURNING id"
            row = self._connection.execute(sql, (self._describer, token, created)).fetchone()[0]
            items = ((*key, row, line, 0) for line, key in enumerate(keys))
            self._connection.executemany("INSERT INTO batch_items VALUES (?, ?, ?, ?, ?, ?, ?)", items)
        return Batch(row, token, created, wanted=dict(enumerate(requests)))

    def note(self, batch: Batch, column: Literal["input_file", "server_id"], value: str) -> None:
        """Note an id that the server gave. From ``input_file`` on, the batch may exist at the server."""
        self._run(f"UPDATE batches SET {column} = ? WHERE id = ?", value, batch.row)
        setattr(batch, column, value)

    def forget(self, answers: Iterable[Answer]) -> None:
        """Forget items whose answers are in the store."""
        items = [self._key(answer.request) for answer in answers]
        with explained(self._path), self._connection:
            self._connection.executemany(f"DELETE FROM batch_items {_THIS}", items)

    def items_left(self, row: int | None = None) -> int:
        """Return how many items are pending: of one batch, or of all of the describer."""
        where, value = ("describer", self._describer) if row is None else ("batch", row)
        return self._run(f"SELECT count(*) FROM batch_items WHERE {where} = ?", value)[0][0]

    def close_batch(self, row: int) -> None:
        """Close a batch: nothing more comes of it, and what is left of its items may be submitted anew."""
        self._run("DELETE FROM batch_items WHERE batch = ?", row)
        self._run("UPDATE batches SET closed = ? WHERE id = ?", time.time(), row)

    def _run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self._path), self._connection:
            return self._connection.execute(sql, values).fetchall()

    def _key(self, request: Request) -> tuple[bytes, int, int, int]:
        return bytes.fromhex(request.digest), self._prompt(request.prompt), self._describer, 0

    def _prompt(self, prompt: Prompt) -> int:
        with explained(self._path), self._connection:  # on disk before it is used: the id is remembered
            return self._references.prompt(prompt)


def pending(
    path: Path, settings: Mapping[str, Any], prompts: Iterable[Prompt]
) -> tuple[dict[Prompt, set[str]], list[str]]:
    """Return the digests of what is in a batch for each prompt, and the names of the open batches."""
    with Ledger(path, settings) as ledger:
        batches = [batch.server_id or batch.token for batch in ledger.open_batches()]
        return {prompt: ledger.digests(prompt) for prompt in prompts if batches}, batches


class BatchError(DescriberError):
    """A call of the Batch API failed.

    It was ``refused``, and nothing was made; there is ``no room`` until other batches have ended; what was asked for is
    ``gone``; the server is ``busy``; or the call may have taken effect unheard (``unsure``). The last two pass.
    """

    def __init__(self, message: str, kind: Literal["refused", "no room", "gone", "busy", "unsure"]) -> None:
        super().__init__(message)
        self.kind, self.passes = kind, kind in ("busy", "unsure")


class BatchDescriber(OpenAIDescriber):
    """The model of ``openai:MODEL`` through the Batch API: the same settings, half the price.

    While it waits, ``describe`` yields empty groups about once a second: the caller may break off there, and everything
    pending stays with the server for the next run.
    """

    def __init__(self, config: DescribeConfig) -> None:
        kind, _, model = config.describer.partition(":")
        if kind != "openai":
            raise ConfigError(f"--batch goes with openai:MODEL, not with {config.describer}; leave it out.")
        super().__init__(model, config)
        self._config = config
        self.price = self.price and self.price.scaled(HALF_PRICE)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers as batches end; see ``Describer``."""
        config, timeout = self._config, max(self._config.timeout, _TIMEOUT_S)
        with Ledger(config.store, self.settings) as self._ledger, blocking_client(self._server, timeout) as client:
            self._client = client.with_options(max_retries=config.retries)
            self._open: dict[int, Batch] = {}
            self._source, self._exhausted = iter(requests), False
            self._has_room, self._max_lines, self._heard = True, MAX_LINES, time.monotonic()
            try:
                yield from self._resume()
                with console.status("Batches") as status:
                    while True:
                        if self._may_submit():
                            yield from self._submit()
                        for batch in list(self._open.values()):
                            if not batch.status:
                                self._look(batch)
                            if batch.status and batch.wanted:
                                yield from self._collect(batch)
                        waiting = [batch for batch in self._open.values() if batch.wanted]
                        if self._exhausted and not waiting:
                            break
                        done = sum(batch.done for batch in waiting)
                        status.update(f"batches at the server: {len(waiting)}, requests they have done: {done:,}")
                        if not self._may_submit():
                            yield from _rest(config.poll_seconds)
            except (GeneratorExit, KeyboardInterrupt):
                if left := self._ledger.items_left():
                    say(f"{left:,} answers are pending; the same command collects them.")
                raise

    def report(self, images: Dataset) -> Report:
        """Return what is still pending."""
        with Ledger(self._config.store, self.settings) as ledger:
            count = len(ledger.open_batches())
            return Report(facts={"batches_open": count, "answers_on_their_way": ledger.items_left()} if count else {})

    def _resume(self) -> Iterator[Sequence[Answer]]:
        for batch in self._ledger.open_batches():
            if batch.server_id is None and batch.input_file is not None:  # the creation was cut short
                for seconds in (0.0, SETTLING_S):  # a call whose sender was killed just now may still take effect
                    yield from _rest(seconds)
                    if found := self._find(batch):
                        self._ledger.note(batch, "server_id", found)
                        break
            if batch.server_id is None:
                self._close(batch)
            elif self._ledger.items_left(batch.row):
                self._open[batch.row] = batch
            else:  # all answers came otherwise, and what still runs would be paid for
                with contextlib.suppress(*_failures()):
                    self._client.batches.cancel(batch.server_id)
                self._close(batch)

    def _may_submit(self) -> bool:
        return not self._exhausted and self._has_room and self._running() < MAX_OPEN

    def _running(self) -> int:
        return sum(not batch.status for batch in self._open.values())

    def _close(self, batch: Batch) -> None:
        if batch.input_file is not None:
            with contextlib.suppress(*_failures()):  # the server's own expiry does it then
                self._client.files.delete(batch.input_file)
        self._ledger.close_batch(batch.row)
        self._open.pop(batch.row, None)

    def _submit(self) -> Iterator[Sequence[Answer]]:
        asked: list[Request] = []
        with tempfile.TemporaryFile() as spool:
            while len(asked) < self._max_lines and (request := self._next_request()):
                try:
                    job = Job(request, data_urls(request, self._options))
                except (OSError, DecodeError) as error:
                    yield [Answer(request=request, error=why_unusable(error))]
                    continue
                head = f'{{"custom_id": "{len(asked)}", "method": "POST", "url": "/v1/chat/completions", "body": '
                line = head.encode() + self._dialect.body(job) + b"}\n"
                if asked and spool.tell() + len(line) > MAX_BYTES:
                    self._put_back([request])
                    break
                spool.write(line)
                asked.append(request)
            yield []
            if asked:
                self._send(asked, spool)

    def _next_request(self) -> Request | None:
        """Return the next request to send, None if there is none; for what is pending, the answer is waited for."""
        for request in self._source:
            if (place := self._ledger.place(request)) is None:
                return request
            row, line = place
            self._open[row].wanted[line] = request
        self._exhausted = True
        return None

    def _put_back(self, requests: Iterable[Request]) -> None:
        self._source, self._exhausted = itertools.chain(requests, self._source), False

    def _send(self, requests: Sequence[Request], spool: BinaryIO) -> None:
        batch = self._ledger.add(requests)
        try:
            with self._explained("the requests cannot be uploaded"):
                spool.seek(0)
                made = self._client.files.create(file=(f"{_NAME}-{batch.token}.jsonl", spool), purpose="batch")
                input_file = _id(made.id)
            self._ledger.note(batch, "input_file", input_file)
            self._ledger.note(batch, "server_id", self._create(batch, input_file))
        except DescriberError as error:
            kind = error.kind if isinstance(error, BatchError) else "unsure"
            if batch.input_file is None or kind in ("refused", "no room", "gone"):
                self._close(batch)
            if kind != "no room":
                raise
            self._wait_for_room(requests, len(requests), str(error))
        else:
            self._open[batch.row] = batch

    def _create(self, batch: Batch, input_file: str) -> str:
        """Create a batch at the server, once: where a call may have taken effect unheard, it is looked for first."""
        unsure = False

        def create() -> str:
            nonlocal unsure
            if unsure and (found := self._find(batch)):
                return found
            given: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batches = self._client.with_options(max_retries=0).batches
            try:
                with self._explained("the batch cannot be created"):
                    created = batches.create(input_file_id=input_file, metadata={_NAME: batch.token}, **given)
                    created = _id(created.id)
            except BatchError as error:
                unsure = unsure or error.kind == "unsure"
                raise
            return (self._find(batch) if unsure else None) or created

        try:
            return _tried(create)
        except BatchError as error:
            raise (DescriberError(str(error)) if unsure else error) from None

    def _find(self, batch: Batch) -> str | None:
        """Return the server's id of a batch by its token. Of several, all but the first are cancelled."""
        named: list[Any] = []
        with self._explained("the batches cannot be listed"):
            for one in itertools.islice(self._client.batches.list(limit=100), _MOST_LISTED):  # newest first
                if one.created_at < batch.created - _CLOCK_SKEW_S:
                    break
                if (one.metadata or {}).get(_NAME) == batch.token and _id(one.id):
                    named.append(one)
            named.sort(key=lambda one: (one.status in ("cancelling", "cancelled"), one.created_at))
        for twin in named[1:]:
            with contextlib.suppress(*_failures()):
                self._client.batches.cancel(twin.id)
        return named[0].id if named else None

    def _wait_for_room(self, requests: Iterable[Request], size: int, reason: str) -> None:
        """Put requests back: until another batch has ended, or, where none runs, to be sent in smaller parts."""
        self._put_back(requests)
        if self._running():
            self._has_room = False
        elif size > 1:
            self._max_lines = size // 2
        else:
            raise DescriberError(f"Batch API: the queue has no room for a single request now: {reason}")

    def _look(self, batch: Batch) -> None:
        try:
            with self._explained("the batch cannot be looked at"):
                found = self._client.batches.retrieve(batch.server_id or "")
                status: Any = found.status
                completed: Any = (found.request_counts and found.request_counts.completed) or 0
                if found.id != batch.server_id or not isinstance(status, str) or not isinstance(completed, int):
                    raise ValueError("the answer is not about this batch")
                output, failures = (_id(file) if file else None for file in (found.output_file_id, found.error_file_id))
                errors = ((found.errors and found.errors.data) or [])[:3]
                codes = tuple(error.code for error in errors)
                reason = "; ".join(str(error.message or error.code or "") for error in errors)
        except BatchError as error:
            if error.passes and time.monotonic() - self._heard <= PATIENCE_S:
                return
            days = (time.time() - batch.created) / 86_400
            if error.kind == "gone" and days >= KEPT_DAYS:
                batch.status = "expired"
                return
            lost = (
                f" The batch {batch.server_id} was submitted {days:.1f} days ago; use the key of the project that "
                f"submitted it. Otherwise its images are asked about anew after {KEPT_DAYS} days."
            )
            raise DescriberError(f"{error}{lost if error.kind == 'gone' else ''}") from None
        self._heard, batch.done = time.monotonic(), completed
        # The answers are paid for, and some servers name their file a while after the end.
        if status in _ENDED and (output or not completed):
            self._has_room, batch.status, batch.files, batch.codes = True, status, (output, failures), codes
            batch.reason = self._server.one_line(reason)

    def _collect(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        if batch.status == "failed" and not any(batch.files):
            # Nothing of the batch was worked on: it may be sent again, or nothing can be.
            size = max(self._ledger.items_left(batch.row), len(batch.wanted))
            self._close(batch)
            if _NO_ROOM.isdisjoint(batch.codes):
                raise DescriberError(f"Batch API: the server refuses the requests: {batch.reason}")
            self._wait_for_room(batch.wanted.values(), size, batch.reason)
            return
        answers = self._results(batch)
        while group := list(itertools.islice(answers, _ANSWERS_PER_GROUP)):
            yield group
            self._ledger.forget(group)
        if not self._ledger.items_left(batch.row):  # what is left, nobody asked for in this run
            self._close(batch)

    def _results(self, batch: Batch) -> Iterator[Answer]:
        reason, lost = f"the batch {batch.status} without an answer to this request", False
        with tempfile.TemporaryFile() as spool:
            for file in filter(None, batch.files):
                try:
                    whole = _tried(lambda file=file: self._download(file, spool))
                except BatchError as error:
                    if error.kind != "gone":
                        raise
                    reason, lost = "the server no longer has the answer", True
                    continue
                readable, unreadable = 0, 0
                for line in lines_of(spool):
                    try:
                        row = parse_json(line)
                        request = batch.wanted.pop(line_number(row), None)
                    except NotJsonError:
                        unreadable += line.endswith(b"\n")  # else the transfer was cut within it
                        continue
                    readable += 1
                    if request is not None:  # else it was read before
                        yield self._read(row, request)
                lost = lost or unreadable > 0 or not whole  # an answer that was paid for may be among them
                expected = batch.done if file == batch.files[0] and whole else 0
                if readable + unreadable < expected or (expected and not readable):
                    raise DescriberError(
                        f"Batch API: the file of answers is not whole: {readable:,} of {expected:,} can be read. All "
                        "of them are still at the server; give the same command again."
                    )
        while batch.wanted:
            yield Answer(request=batch.wanted.popitem()[1], error=reason, unpriced=lost)

    def _download(self, file: str, into: BinaryIO) -> bool:
        """Write the contents of a file to ``into``, from its start; return whether it ends within MAX_FILE."""
        into.seek(0)
        into.truncate()
        opened = self._client.files.with_streaming_response.content(file)
        with self._explained("the answers cannot be downloaded"), opened as response:
            for part in response.iter_bytes():
                if into.tell() + len(part) > MAX_FILE:
                    return False
                into.write(part)
        return True

    def _read(self, row: Any, request: Request) -> Answer:
        match row:
            case {"response": {"status_code": 200, "body": body}}:
                found = completion_of(body, self._server.keys)
                return to_answer(request, found, self.price, error=_NO_ANSWER if found.text is None else None)
            case {"response": {"status_code": int(status), "body": body}}:
                fault = fault_of_response(status, {}, json.dumps(body).encode(), self._server)
                if fault.verdict is Verdict.FILTERED:
                    return to_answer(request, Completion("", "content_filter"), self.price)
                way = """; give --extra-body '{"response_format": null}' to ask without a schema"""
                return Answer(request=request, error=fault.message + way * (fault.parameter == "response_format"))
            case {"error": {"message": str(message)}}:
                return Answer(request=request, error=self._server.one_line(message))
            case _:
                return Answer(request=request, error=_NO_ANSWER, unpriced=True)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Generator[None, None, None]:
        import openai

        try:
            yield
        except _failures() as error:
            text = f"Batch API: {what}: {self._server.one_line(error)}. The store notes it; the same command goes on."
            status, code = getattr(error, "status_code", 0), getattr(error, "code", None)
            is_final = status and status < 500 and status not in (408, 409, 429)
            kind: Any = "busy" if status == 429 else "unsure"
            if isinstance(error, openai.NotFoundError):
                kind = "gone"
            elif isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
                text, kind = f"{text} Set OPENAI_API_KEY to a key of the project.", "refused"
            elif code in _NO_ROOM or (status and "enqueued" in str(error).lower()):
                kind = "no room"
            elif isinstance(error, RedirectedError) or code in _NO_MONEY or is_final:
                kind = "refused"
            raise BatchError(text, kind) from None


def _tried(call: Callable[[], T]) -> T:
    """Return what a call gives, tried again while its fault may pass."""
    for attempt in itertools.count(1):
        try:
            return call()
        except BatchError as error:
            if not error.passes or attempt == _TRIES:
                raise
        time.sleep(_FIRST_WAIT_S * 2**attempt)
    raise AssertionError


def _failures() -> tuple[type[Exception], ...]:
    """Return errors of the client. No JSON, or something else than was asked for, is the page of a gateway."""
    import httpx2
    import openai

    http = (openai.OpenAIError, RedirectedError, httpx2.HTTPError, httpx2.InvalidURL)
    return (*http, ValueError, AttributeError, TypeError, EOFError, OverflowError, RecursionError)


def _id(found: Any) -> str:
    if not isinstance(found, str) or not found.isprintable() or not 0 < len(found) <= _MAX_ID:
        raise ValueError("the answer holds no usable id")
    return found


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file from its start, without blank ones; a line longer than MAX_BODY is cut there."""
    file.seek(0)
    while line := file.readline(MAX_BODY):
        end = line
        while len(end) == MAX_BODY and not end.endswith(b"\n"):
            end = file.readline(MAX_BODY)
        if line.strip():
            yield line if end is line or not end.endswith(b"\n") else line + b"\n"


def line_number(row: Any) -> int:
    """Return the number of the line that a row answers; raises NotJsonError where it names none."""
    name = mapping(row).get("custom_id")
    if isinstance(name, str) and name.isdecimal() and len(name) < _MOST_DIGITS:
        return int(name)
    raise NotJsonError("the row answers no line")


def _rest(seconds: float) -> Iterator[Sequence[Answer]]:
    """Wait, with an empty group about once a second: the caller may break off there."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _TICK_S))
        yield []
