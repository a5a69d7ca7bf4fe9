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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from gpt4image.artifacts.answers import Prompt
from gpt4image.artifacts.store import References, add_lost, connect_writer, explained
from gpt4image.base.errors import DecodeError, DescriberError
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai import chat
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import MAX_BODY, RedirectedError, blocking_client, parse_json
from gpt4image.describing.prices import HALF_PRICE

MAX_LINES, MAX_BYTES, MAX_OPEN = 50_000, 190_000_000, 100  # the server takes 50,000 lines and 200 MB
MAX_FILE = 4 * 2**30  # bytes of a file of answers, decompressed; what comes after them is not read
SETTLING_S = 60.0  # how long a call may take effect after its sender was killed
PATIENCE_S = 6 * 3600.0  # how long a server may be away
KEPT_DAYS = 30  # how long a server keeps answers
_TIMEOUT_S = 600.0  # an answer about 190 MB that were uploaded takes its time
_CLOCK_SKEW_S = 86_400.0
_MAX_ID, _MOST_LISTED = 500, 100_000
_ENDED = frozenset(("completed", "expired", "cancelled", "failed"))
_NO_ROOM = frozenset(("token_limit_exceeded", "request_limit_exceeded"))
_NO_JSON = (ValueError, AttributeError, TypeError, EOFError, OverflowError, RecursionError)  # the page of a gateway
_ANSWERS_PER_GROUP, _TICK_S = 256, 1.0
_LOOKS = 20  # at a batch that has ended, until what is not there is taken for lost
_NAME, _NO_ANSWER = "gpt4image", "the response holds no answer"

# An answer that was committed after its batch was made is this batch's, or took its place: a kill came between the
# store's commit and the ledger's.
_STORED = """
FROM batch_requests AS i WHERE i.describer = ? AND EXISTS (
    SELECT 1 FROM results AS r JOIN batches AS b ON b.id = i.batch
    WHERE (r.digest, r.prompt, r.describer, r.sample) = (i.digest, i.prompt, i.describer, i.sample)
    AND r.text IS NOT NULL AND r.created >= b.created
"""
_UNPRICED = f"SELECT total(usd) {_STORED} AND (r.tokens_in IS NULL OR r.tokens_out IS NULL))"
_THIS = "WHERE (digest, prompt, describer, sample) = (?, ?, ?, ?)"


@dataclass
class Batch:
    """A batch that is not closed, by its row in the ledger."""

    row: int
    token: str  # unique name, sent with the batch: finds it again where the id was not noted
    created: float  # when the ledger noted it, in seconds since 1970-01-01 UTC
    input_file: str | None  # the server's id of the uploaded file
    server_id: str | None = None  # the server's id of the batch; None where the creation was not heard of
    wanted: dict[int, Request] = field(default_factory=dict[int, Request])  # what this run waits for, by line
    unsure: bool = True  # a call that was to create it may have taken effect unheard
    done: int | None = 0  # requests that the server has answered; None where it does not say, or what cannot be
    status: str = ""  # how it ended, once the files of its answers are there
    files: tuple[str | None, str | None] = (None, None)  # of answers and of errors
    codes: tuple[str | None, ...] = ()  # of errors of the batch as a whole
    reason: str = ""
    looks: int = 0  # at the batch after its end, while something is not there


@dataclass
class _Found:
    """What the files of a batch hold."""

    readable: int = 0  # lines
    unreadable: int = 0
    answers: int = 0  # lines of either kind that name a request, as no page of a gateway does
    torn: bool = False  # the last line is cut
    paid: set[int] = field(default_factory=set[int])  # numbers of the requests that were answered
    failed: dict[int, Answer] = field(default_factory=dict[int, Answer])

    def rows(self, spool: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each line that can be read, after the number of its request."""
        spool.seek(0)
        while line := spool.readline(MAX_BODY):
            self.answers += b'"custom_id"' in line
            try:
                row: Any = parse_json(line)
                number = int(row["custom_id"])
            except (ValueError, TypeError, LookupError, OverflowError):
                self.torn = not line.endswith(b"\n")  # or it is too long, and goes on
                self.unreadable += not self.torn
                continue
            self.readable, self.torn = self.readable + 1, False
            if chat.mapping(row.get("response")).get("status_code") == 200:
                self.paid.add(number)
            yield number, row

    def is_whole(self, done: int | None) -> bool:
        """Return whether all is there of which the server says that it is ``done``."""
        return done == 0 or (self.answers > 0 and not self.torn and len(self.paid) + self.unreadable >= (done or 0))


class Ledger(contextlib.AbstractContextManager["Ledger", None]):
    """Open batches of a describer, in its store; for one thread. Where a method raises StoreError, nothing is noted.

    What was paid for and brought no price is added to what the store knows to be uncertain, in the same transaction in
    which the request is forgotten: so it counts once, in all later runs.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open it; items whose answer is in the store already are forgotten."""
        self._path, self._settings = path, settings
        with explained(path):
            self._connection = connect_writer(path)
            self._references = References(self._connection)
            with self._connection:
                self._describer = self._references.describer(settings)
                unpriced = self._connection.execute(_UNPRICED, (self._describer,)).fetchone()[0]
                add_lost(self._connection, settings, unpriced)
                self._connection.execute(f"DELETE {_STORED})", (self._describer,))

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not closed, oldest first."""
        sql = "SELECT id, token, created, input_file, server_id FROM batches WHERE describer = ? AND closed IS NULL"
        return [Batch(*row) for row in self._run(f"{sql} ORDER BY id", self._describer)]

    def place(self, request: Request) -> tuple[int, int] | None:
        """Return row and line of a request that is in a batch."""
        return next(iter(self._run(f"SELECT batch, line FROM batch_requests {_THIS}", *self._key(request))), None)

    def pending(self, prompts: Iterable[Prompt]) -> tuple[dict[Prompt, dict[str, float]], list[str]]:
        """Return the price at most of what is in a batch, by digest, for each prompt; and the names of the batches."""
        batches = [batch.server_id or batch.token for batch in self.open_batches()]
        sql = "SELECT lower(hex(digest)), usd FROM batch_requests WHERE prompt = ? AND describer = ?"
        found = ((prompt, self._run(sql, self._prompt(prompt), self._describer)) for prompt in prompts if batches)
        return {prompt: dict(rows) for prompt, rows in found}, batches

    def add(self, requests: Sequence[Request], token: str, input_file: str) -> Batch:
        """Note a batch that is about to be created, with a request per line of the uploaded file."""
        keys, created = [*map(self._key, requests)], time.time()
        with explained(self._path), self._connection:
            sql = "INSERT INTO batches (describer, token, created, input_file) VALUES (?, ?, ?, ?) RETURNING id"
            row = self._connection.execute(sql, (self._describer, token, created, input_file)).fetchone()[0]
            items = ((*key, row, line, requests[line].usd) for line, key in enumerate(keys))
            self._connection.executemany("INSERT INTO batch_requests VALUES (?, ?, ?, ?, ?, ?, ?)", items)
        return Batch(row, token, created, input_file, wanted=dict(enumerate(requests)), unsure=False)

    def note_id(self, batch: Batch, server_id: str) -> None:
        self._run("UPDATE batches SET server_id = ? WHERE id = ?", server_id, batch.row)
        batch.server_id = server_id

    def forget(self, answers: Iterable[Answer]) -> None:
        """Forget items whose answers are in the store, and count those that were paid for and tell no price."""
        items = [(self._key(answer.request), answer.unpriced) for answer in answers]
        with explained(self._path), self._connection:
            for key, unpriced in items:
                usd = self._connection.execute(f"DELETE FROM batch_requests {_THIS} RETURNING usd", key).fetchall()
                add_lost(self._connection, self._settings, unpriced * sum(one for (one,) in usd))

    def items_left(self, row: int | None = None) -> int:
        """Return how many items are pending: of one batch, or of all of the describer."""
        where, value = ("describer", self._describer) if row is None else ("batch", row)
        return self._run(f"SELECT count(*) FROM batch_requests WHERE {where} = ?", value)[0][0]

    def close_batch(self, row: int) -> None:
        """Close a batch: nothing more comes of it, and what is left of its items may be submitted anew."""
        self._run("DELETE FROM batch_requests WHERE batch = ?", row)
        self._run("UPDATE batches SET closed = ? WHERE id = ?", time.time(), row)

    def _run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self._path), self._connection:
            return self._connection.execute(sql, values).fetchall()

    def _key(self, request: Request) -> tuple[bytes, int, int, int]:
        return bytes.fromhex(request.digest), self._prompt(request.prompt), self._describer, 0

    def _prompt(self, prompt: Prompt) -> int:
        with explained(self._path), self._connection:  # on disk before it is used: the id is remembered
            return self._references.prompt(prompt)


class BatchError(DescriberError):
    """A call failed: only ``busy`` passes, and ``unsure``, where it may have taken effect unheard."""

    def __init__(self, message: str, kind: str) -> None:  # or: refused, no room, gone
        super().__init__(message)
        self.kind, self.passes = kind, kind in ("busy", "unsure")


class BatchDescriber(OpenAIDescriber):
    """The model of ``openai:MODEL`` through the Batch API: the same settings, half the price.

    While it waits, ``describe`` yields empty groups about once a second: the caller may break off there, and everything
    pending stays with the server for the next run.
    """

    def __init__(self, config: DescribeConfig) -> None:
        super().__init__(config.describer.partition(":")[2], config)
        self._config = config
        self._unreadable = list[Skipped]()
        self.price = self.price and self.price.scaled(HALF_PRICE)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        config, timeout = self._config, max(self._config.timeout, _TIMEOUT_S)
        with Ledger(config.store, self.settings) as self._ledger, blocking_client(self._server, timeout) as client:
            self._client = client.with_options(max_retries=config.retries)
            self._open: dict[int, Batch] = {}
            self._source, self._exhausted = iter(requests), False
            self._has_room, self._max_lines, heard = True, MAX_LINES, time.monotonic()
            try:
                for batch in self._ledger.open_batches():
                    if batch.input_file is not None and self._ledger.items_left(batch.row):
                        self._open[batch.row] = batch
                    else:
                        self._close(batch)
                with console.status("Batches") as status:
                    while True:
                        if self._may_submit():
                            yield from self._submit()
                        for batch in [one for one in self._open.values() if one.wanted or not one.status]:
                            try:
                                yield from self._go_on(batch)
                                heard = time.monotonic()
                            except BatchError as error:
                                if not error.passes or time.monotonic() - heard > PATIENCE_S:
                                    raise
                        waiting = [batch for batch in self._open.values() if batch.wanted]
                        if self._exhausted and not waiting:
                            break
                        done = sum(batch.done or 0 for batch in waiting)
                        status.update(f"batches at the server: {len(waiting)}, requests they have done: {done:,}")
                        if not self._may_submit():
                            yield from _rest(config.poll_seconds)
            except (GeneratorExit, KeyboardInterrupt):
                if left := self._ledger.items_left():
                    say(f"{left:,} answers are pending; the same command collects them.")
                raise

    def report(self, images: Dataset) -> Report:
        with Ledger(self._config.store, self.settings) as ledger:
            count = len(ledger.open_batches())
            facts = {"batches_open": count, "answers_on_their_way": ledger.items_left()} if count else {}
            return Report(facts=facts, skipped=self._unreadable)

    def _may_submit(self) -> bool:
        is_created = all(batch.server_id for batch in self._open.values())
        return not self._exhausted and self._has_room and is_created and len(self._open) < MAX_OPEN

    def _close(self, batch: Batch) -> None:
        with contextlib.suppress(BatchError), self._explained("a file cannot be deleted"):  # it expires then
            self._client.files.delete(batch.input_file or "")
        self._ledger.close_batch(batch.row)
        self._open.pop(batch.row, None)

    def _submit(self) -> Iterator[Sequence[Answer]]:
        """Upload as many requests as a batch takes, and note them."""
        asked, token = list[Request](), secrets.token_hex(16)
        with tempfile.TemporaryFile() as spool:
            while len(asked) < self._max_lines and (request := self._next_request()):
                try:
                    job = chat.Job(request, data_urls(request, self._options))
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
                spool.seek(0)
                with self._explained("the requests cannot be uploaded"):
                    made = self._client.files.create(file=(f"{_NAME}-{token}.jsonl", spool), purpose="batch")
                    input_file = _id(made.id)
                batch = self._ledger.add(asked, token, input_file)
                self._open[batch.row] = batch

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

    def _go_on(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        """Take the next step with a batch; one that fails for now is taken again."""
        if batch.server_id is None and batch.unsure:
            yield from self._look_for(batch)
        elif batch.server_id is None:
            self._create(batch)
        if batch.server_id is not None and not batch.status:
            self._look(batch)
        if batch.status and batch.wanted:
            yield from self._collect(batch)

    def _create(self, batch: Batch) -> None:
        given: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        try:
            with self._explained("the batch cannot be created"):
                batches = self._client.with_options(max_retries=0).batches
                made = batches.create(input_file_id=batch.input_file or "", metadata={_NAME: batch.token}, **given)
                server_id = _id(made.id)
        except BatchError as error:
            batch.unsure = error.kind == "unsure"
            if error.passes:
                raise
            self._give_back(batch, error, waits=error.kind == "no room")
        else:
            self._ledger.note_id(batch, server_id)

    def _look_for(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        """Find the batch of a call that may have taken effect unheard; if it stays away, send the requests anew."""
        for seconds in (0.0, SETTLING_S):
            yield from _rest(seconds)
            with self._explained("the batches cannot be listed"):
                for one in itertools.islice(self._client.batches.list(limit=100), _MOST_LISTED):  # newest first
                    if one.created_at < batch.created - _CLOCK_SKEW_S:
                        break
                    if (one.metadata or {}).get(_NAME) == batch.token:
                        self._ledger.note_id(batch, _id(one.id))
                        return
        self._close(batch)
        self._put_back(batch.wanted.values())

    def _give_back(self, batch: Batch, error: DescriberError, *, waits: bool) -> None:
        """Close a batch that was not worked on; its requests wait for room, or are sent in smaller parts."""
        size = self._ledger.items_left(batch.row)
        self._close(batch)
        self._has_room = all(other.status for other in self._open.values())
        if not waits or (self._has_room and size < 2):
            raise error
        self._put_back(batch.wanted.values())
        if self._has_room:
            self._max_lines = size // 2

    def _look(self, batch: Batch) -> None:
        try:
            with self._explained("the batch cannot be looked at"):
                found = self._client.batches.retrieve(batch.server_id or "")
                status: Any = found.status
                names, counts = ("completed", "failed", "total"), found.request_counts
                done, failed, total = (getattr(counts, name, None) for name in names)
                if found.id != batch.server_id or not isinstance(status, str) or not isinstance(done, int | None):
                    raise ValueError("the answer is not about this batch")
                output, failures = (_id(file) if file else None for file in (found.output_file_id, found.error_file_id))
                errors = ((found.errors and found.errors.data) or [])[:3]
                codes = tuple(error.code for error in errors)
                reason = "; ".join(str(error.message or error.code or "") for error in errors)
                token = (found.metadata or {}).get(_NAME, batch.token)
            if token != batch.token:
                raise BatchError(f"Batch API: the server calls another batch {batch.server_id} now.", "gone")
        except BatchError as error:
            days = (time.time() - batch.created) / 86_400
            if error.kind != "gone":
                raise
            batch.status, batch.done, batch.looks = "expired", None, _LOOKS
            if days < KEPT_DAYS:
                batch.status = "away"
                batch.reason = f"{error} It was submitted {days:.1f} days ago; use the key of the project that did."
            return
        if status == "completed" and (done is None or done + (failed or 0) < (total or 0)):
            done = None  # a server that does not count
        batch.done = done
        if status not in _ENDED:
            return
        batch.looks += 1
        # The answers are paid for, and some servers name their file a while after the end.
        if output or status == "failed" or batch.looks >= _LOOKS or (done == 0 and (failures or status != "completed")):
            self._has_room, batch.status, batch.files, batch.codes = True, status, (output, failures), codes
            batch.reason = self._server.one_line(reason)

    def _collect(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        if batch.status == "failed" and not any(batch.files):
            error = DescriberError(f"Batch API: the server refuses the requests: {batch.reason}")
            self._give_back(batch, error, waits=not _NO_ROOM.isdisjoint(batch.codes))
            return
        answers = self._leave_pending(batch, batch.reason) if batch.status == "away" else self._results(batch)
        while group := list(itertools.islice(answers, _ANSWERS_PER_GROUP)):
            yield group
            self._ledger.forget(answer for answer in group if not answer.pending)
        if not self._ledger.items_left(batch.row):  # what is left, nobody asked for in this run
            self._close(batch)

    def _results(self, batch: Batch) -> Iterator[Answer]:
        """Yield answers and take them off what is wanted; what is not there yet stays, for some looks."""
        found, is_gone = _Found(), False
        with contextlib.ExitStack() as opened:
            spools: list[Any] = [opened.enter_context(tempfile.TemporaryFile()) for _ in batch.files]
            for file, spool in zip(batch.files, spools, strict=True):
                try:
                    if file is not None:
                        self._download(file, spool)
                except BatchError as error:
                    if error.kind != "gone":
                        raise
                    is_gone = True
            for spool in spools[::-1]:  # the file of answers last: whether it is torn matters
                for number, row in found.rows(spool):
                    if number not in batch.wanted:  # it was read before
                        continue
                    answer = self._read(row, batch.wanted[number])
                    if answer.text is None:
                        found.failed[number] = answer  # unless a good line follows
                    else:
                        del batch.wanted[number]
                        yield answer
        is_there = is_gone or found.is_whole(batch.done) or batch.wanted.keys() <= found.failed.keys()
        batch.looks += not is_there
        if not is_there and batch.looks >= _LOOKS and any(batch.files) and (found.torn or not found.answers):
            file = batch.files[0] or batch.files[1]
            what = f"the file {file} is not whole, {found.readable:,} of its lines can be read"
            yield from self._leave_pending(batch, f"Batch API: {what}; the same command reads it again.")
        elif is_there or batch.looks >= _LOOKS:
            reason = f"the batch {batch.status} without an answer to this request"
            yield from self._give_up(batch, found, "the server no longer has the answer" if is_gone else reason)

    def _give_up(self, batch: Batch, found: _Found, reason: str) -> Iterator[Answer]:
        """Yield errors for all that is still wanted; as many as the server says that it answered were paid for."""
        missing = batch.wanted.keys() - found.failed.keys()
        unsure = batch.done is None or batch.done < len(found.paid)
        lost = len(missing) if unsure else (batch.done or 0) - len(found.paid)
        for number in [*batch.wanted]:
            request = batch.wanted.pop(number)
            if number in missing:
                yield Answer(request=request, error=reason, unpriced=lost > 0)
                lost -= 1
            else:
                yield found.failed[number]

    def _leave_pending(self, batch: Batch, reason: str) -> Iterator[Answer]:
        """Go on without answers that are paid for and cannot be had now; --retry-rejected gives them up."""
        if self._config.retry_rejected:
            yield from self._give_up(replace(batch, done=None), _Found(), reason)
        if batch.wanted:
            reason += " --retry-rejected gives these answers up, counts them as paid, and the next run asks again."
            say(f"{len(batch.wanted):,} images wait for an answer. {reason}")
        for request in batch.wanted.values():
            self._unreadable += [Skipped(name=key, reason=reason) for key in request.keys]
            yield Answer(request=request, pending=True)
        batch.wanted.clear()

    def _download(self, file: str, into: BinaryIO) -> None:
        with (
            self._explained("the answers cannot be downloaded"),
            self._client.files.with_streaming_response.content(file) as response,
        ):
            for part in response.iter_bytes():
                into.write(part[: MAX_FILE - into.tell()])
                if into.tell() == MAX_FILE:
                    return

    def _read(self, row: Any, request: Request) -> Answer:
        match row:
            case {"response": {"status_code": 200, "body": body}}:
                found = chat.completion_of(body, self._server.keys)
                return chat.to_answer(request, found, self.price, error=_NO_ANSWER if found.text is None else None)
            case {"response": {"status_code": int(status), "body": body}}:
                fault = chat.fault_of_response(status, {}, json.dumps(body).encode(), self._server)
                if fault.verdict is chat.Verdict.FILTERED:
                    return chat.filtered(request, self.price)
                way = """; give --extra-body '{"response_format": null}' to ask without a schema"""
                return Answer(request=request, error=fault.message + way * (fault.parameter == "response_format"))
            case {"error": {"message": str(message)}}:
                return Answer(request=request, error=self._server.one_line(message))
            case _:
                return Answer(request=request, error=_NO_ANSWER, unpriced=True)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Generator[None, None, None]:
        import httpx2
        import openai

        faults = (openai.OpenAIError, RedirectedError, httpx2.HTTPError, httpx2.InvalidURL, *_NO_JSON)
        try:
            yield
        except faults as error:
            text = f"Batch API: {what}: {self._server.one_line(error)}. The store notes it; the same command goes on."
            status, code = getattr(error, "status_code", 0), getattr(error, "code", None)
            is_final = status and status < 500 and status not in (408, 409, 429)
            kind = "busy" if status == 429 else "unsure"
            if isinstance(error, openai.NotFoundError):
                kind = "gone"
            elif code in _NO_ROOM or (status and "enqueued" in str(error).lower()):
                kind = "no room"
            elif isinstance(error, RedirectedError) or code in chat.NO_MONEY or is_final:
                kind = "refused"
            raise BatchError(text, kind) from None


def _id(found: Any) -> str:
    if not isinstance(found, str) or not found.isprintable() or not 0 < len(found) <= _MAX_ID:
        raise ValueError("the answer holds no usable id")
    return found


def _rest(seconds: float) -> Iterator[Sequence[Answer]]:
    """Wait, with an empty group about once a second: the caller may break off there."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _TICK_S))
        yield []
