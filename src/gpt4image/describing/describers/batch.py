"""Requests through OpenAI's Batch API: half the price, answers within a day; nothing is paid twice or lost.

What was handed over and has not come back is noted in the description store before it is sent: the ledger. An item is
identified as results are, is in at most one batch, and is forgotten once its answer is in the store. What is pending is
waited for instead of being sent again. So the process may be killed at any moment, and the same command goes on.
"""

import contextlib
import itertools
import json
import secrets
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4image.artifacts.answers import Prompt
from gpt4image.artifacts.store import PromptIds, add_lost, connect_writer, explained
from gpt4image.base.errors import DecodeError, DescriberError
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.images import data_urls, why_unusable
from gpt4image.describing.describers.openai.chat import NO_MONEY, Verdict, fault_of, filtered, read_json, to_answer
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.openai.server import MAX_BODY, BorderError, http_options
from gpt4image.describing.prices import HALF_PRICE

MAX_LINES, MAX_BYTES, MAX_OPEN = 50_000, 190_000_000, 100  # the server takes 50,000 lines and 200 MB
SETTLING_S = 60.0  # how long a call may take effect after its sender was killed
PATIENCE_S = 6 * 3600.0  # how long a server may be away
LOOKS = 20  # at a batch that has ended, until what is not there is taken for lost
_TIMEOUT_S = 600.0  # an answer about 190 MB that were uploaded takes its time
_MOST_LISTED, _ANSWERS_PER_GROUP = 10_000, 256
_ENDED = frozenset(("completed", "expired", "cancelled", "failed"))
_ODD = (ValueError, AttributeError, TypeError, EOFError, OverflowError, RecursionError)  # the page of a gateway
_NO_ROOM = ("token_limit_exceeded", "request_limit_exceeded", "nqueued")

# An answer that was committed after its batch was made is this batch's, or took its place: a kill came between the
# store's commit and the ledger's.
_STORED = """
FROM batch_requests AS i WHERE i.describer = ? AND EXISTS (
    SELECT 1 FROM results AS r JOIN batches AS b ON b.id = i.batch
    WHERE (r.digest, r.prompt, r.describer, r.sample) = (i.digest, i.prompt, i.describer, i.sample)
    AND r.text IS NOT NULL AND r.created >= b.created
"""
_THIS = "WHERE (digest, prompt, describer, sample) = (?, ?, ?, ?)"


@dataclass
class Batch:
    """A batch that is not closed, by its row in the ledger."""

    row: int
    created: float  # when the ledger noted it, in seconds since 1970-01-01 UTC
    input_file: str  # the server's id of the uploaded file
    server_id: str | None = None  # the server's id of the batch; None where the creation was not heard of
    wanted: dict[int, Request] = field(default_factory=dict[int, Request])  # what this run waits for, by line
    unsure: bool = True  # a call that was to create it may have taken effect unheard
    done: int | None = 0  # requests that the server has answered; None where it does not say, or what cannot be
    status: str = ""  # how it ended, once the files of its answers are there
    files: tuple[str | None, ...] = ()  # of errors and of answers
    reason: str = ""
    looks: int = 0  # at the batch after its end, while something is not there


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
        self._ids = PromptIds(self._connection)
        with self._changing() as execute:
            self._describer = self._ids.describer(settings)
            unknown = "AND (r.tokens_in IS NULL OR r.tokens_out IS NULL))"
            ((unpriced,),) = execute(f"SELECT total(usd) {_STORED} {unknown}", (self._describer,))
            add_lost(self._connection, settings, unpriced)
            execute(f"DELETE {_STORED})", (self._describer,))

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _changing(self) -> Generator[Any]:
        with explained(self._path), self._connection:
            yield self._connection.execute

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not closed, oldest first."""
        sql = "SELECT id, created, input_file, server_id FROM batches WHERE describer = ? AND closed IS NULL"
        with self._changing() as execute:
            return [Batch(*row) for row in execute(f"{sql} ORDER BY id", (self._describer,))]

    def place(self, request: Request) -> tuple[int, int] | None:
        """Return row and line of a request that is in a batch."""
        with self._changing() as execute:
            return execute(f"SELECT batch, line FROM batch_requests {_THIS}", self._key(request)).fetchone()

    def pending(self, prompts: Iterable[Prompt]) -> tuple[dict[Prompt, dict[str, float]], list[str]]:
        """Return the price at most of what is in a batch, by digest, for each prompt; and the names of the batches."""
        batches = [batch.server_id or batch.input_file for batch in self.open_batches()]
        sql = "SELECT lower(hex(digest)), usd FROM batch_requests WHERE prompt = ? AND describer = ?"
        with self._changing() as execute:
            keys = {prompt: (self._ids.prompt(prompt), self._describer) for prompt in prompts if batches}
            return {prompt: dict(execute(sql, key)) for prompt, key in keys.items()}, batches

    def add(self, requests: Sequence[Request], input_file: str) -> Batch:
        """Note a batch that is about to be created, with a request per line of the uploaded file."""
        created = time.time()
        with self._changing() as execute:
            sql = "INSERT INTO batches (describer, token, created, input_file) VALUES (?, ?, ?, ?) RETURNING id"
            ((row,),) = execute(sql, (self._describer, secrets.token_hex(16), created, input_file)).fetchall()
            for line, request in enumerate(requests):
                items = (*self._key(request), row, line, request.usd)
                execute("INSERT INTO batch_requests VALUES (?, ?, ?, ?, ?, ?, ?)", items)
        return Batch(row, created, input_file, wanted=dict(enumerate(requests)), unsure=False)

    def note_id(self, batch: Batch, server_id: str) -> None:
        with self._changing() as execute:
            execute("UPDATE batches SET server_id = ? WHERE id = ?", (server_id, batch.row))
        batch.server_id = server_id

    def forget(self, answers: Iterable[Answer]) -> None:
        """Forget items whose answers are in the store, and count those that were paid for and tell no price."""
        with self._changing() as execute:
            for answer in answers:
                sql = f"DELETE FROM batch_requests {_THIS} RETURNING usd"
                usd = sum(one for (one,) in execute(sql, self._key(answer.request)).fetchall())
                add_lost(self._connection, self._settings, answer.unpriced * usd)

    def items_left(self, row: int | None = None) -> int:
        """Return how many items are pending: of one batch, or of all of the describer."""
        where, value = ("describer", self._describer) if row is None else ("batch", row)
        with self._changing() as execute:
            return execute(f"SELECT count(*) FROM batch_requests WHERE {where} = ?", (value,)).fetchone()[0]

    def close_batch(self, row: int) -> None:
        """Close a batch: nothing more comes of it, and what is left of its items may be submitted anew."""
        with self._changing() as execute:
            execute("DELETE FROM batch_requests WHERE batch = ?", (row,))
            execute("UPDATE batches SET closed = ? WHERE id = ?", (time.time(), row))

    def _key(self, request: Request) -> tuple[bytes, int, int, int]:
        return bytes.fromhex(request.digest), self._ids.prompt(request.prompt), self._describer, 0


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
        self._config, self._unreadable = config, list[Skipped]()
        self.price = self.price and self.price.scaled(HALF_PRICE)

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        from openai import DefaultHttpxClient, OpenAI

        config = self._config
        options: dict[str, Any] = {**self._server.client_options, "max_retries": config.retries}
        http = DefaultHttpxClient(timeout=max(config.timeout, _TIMEOUT_S), **http_options(is_async=False))
        with Ledger(config.store, self.settings) as self._ledger, OpenAI(**options, http_client=http) as self._api:
            self._open = {batch.row: batch for batch in self._ledger.open_batches()}
            self._source, self._exhausted = iter(requests), False
            self._has_room, self._max_lines, heard = True, MAX_LINES, time.monotonic()
            try:
                with console.status("Batches") as status:
                    while True:
                        if self._may_submit():
                            yield from self._submit()
                        for batch in [one for one in self._open.values() if one.wanted or not one.status]:
                            try:
                                yield from self._advance(batch)
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
                            yield from _sleep(config.poll_seconds)
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

    def _submit(self) -> Iterator[Sequence[Answer]]:
        """Upload as many requests as a batch takes, and note them."""
        asked = list[Request]()
        with tempfile.TemporaryFile() as spool:
            while len(asked) < self._max_lines and (request := self._next_request()):
                try:
                    pictures = data_urls(request, self._options)
                except (OSError, DecodeError) as error:
                    yield [Answer(request=request, error=why_unusable(error))]
                    continue
                line = {"custom_id": str(len(asked)), "method": "POST", "url": "/v1/chat/completions"}
                content = json.dumps({**line, "body": self._body(request, pictures)}).encode() + b"\n"
                if asked and spool.tell() + len(content) > MAX_BYTES:
                    self._put_back([request])
                    break
                spool.write(content)
                asked.append(request)
            yield []
            if asked:
                spool.seek(0)
                with self._calling("the requests cannot be uploaded"):
                    made = self._api.files.create(file=("gpt4image.jsonl", spool), purpose="batch")
                    input_file = made.id
                batch = self._ledger.add(asked, input_file)
                self._open[batch.row] = batch

    def _next_request(self) -> Request | None:
        """Return the next request to send, None if there is none; for what is pending, the answer is waited for."""
        for request in self._source:
            if (place := self._ledger.place(request)) is None:
                return request
            self._open[place[0]].wanted[place[1]] = request
        self._exhausted = True
        return None

    def _put_back(self, requests: Iterable[Request]) -> None:
        self._source, self._exhausted = itertools.chain(requests, self._source), False

    def _close(self, batch: Batch) -> None:
        with contextlib.suppress(BatchError), self._calling("a file cannot be deleted"):  # it expires then
            self._api.files.delete(batch.input_file)
        self._ledger.close_batch(batch.row)
        self._open.pop(batch.row, None)

    def _advance(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        """Take the next step with a batch; one that fails for now is taken again."""
        if batch.server_id is None and batch.unsure:
            yield from self._recover(batch)
        elif batch.server_id is None:
            self._create(batch)
        if batch.server_id is not None and not batch.status:
            self._poll(batch)
        if not (batch.status and batch.wanted):
            return
        answers = self._results(batch)
        while group := list(itertools.islice(answers, _ANSWERS_PER_GROUP)):
            yield group
            self._ledger.forget(answer for answer in group if not answer.pending)
        if batch.row in self._open and not self._ledger.items_left(batch.row):  # what is left, nobody asked for
            self._close(batch)

    def _create(self, batch: Batch) -> None:
        given: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        try:
            with self._calling("the batch cannot be created"):
                batches = self._api.with_options(max_retries=0).batches
                server_id = batches.create(input_file_id=batch.input_file, **given).id
        except BatchError as error:
            batch.unsure = error.kind == "unsure"
            if error.passes:
                raise
            self._requeue(batch, error)
        else:
            self._ledger.note_id(batch, server_id)

    def _recover(self, batch: Batch) -> Iterator[Sequence[Answer]]:
        """Find the batch of a call that may have taken effect unheard; if it stays away, send the requests anew."""
        for seconds in (0.0, SETTLING_S):
            yield from _sleep(seconds)
            with self._calling("the batches cannot be listed"):
                for one in itertools.islice(self._api.batches.list(limit=100), _MOST_LISTED):  # newest first
                    if one.input_file_id == batch.input_file:
                        self._ledger.note_id(batch, one.id)
                        return
        self._close(batch)
        self._put_back(batch.wanted.values())

    def _requeue(self, batch: Batch, error: BatchError) -> None:
        """Close a batch that was not worked on; its requests wait for room, or are sent in smaller parts."""
        size = self._ledger.items_left(batch.row)
        self._close(batch)
        self._has_room = all(other.status for other in self._open.values())
        if error.kind != "no room" or (self._has_room and size < 2):
            raise error
        self._put_back(batch.wanted.values())
        if self._has_room:
            self._max_lines = size // 2

    def _poll(self, batch: Batch) -> None:
        try:
            with self._calling("the batch cannot be looked at"):
                found: Any = self._api.batches.retrieve(batch.server_id or "")
                counts, status = found.request_counts, found.status
                done, failed, total = (getattr(counts, name, None) for name in ("completed", "failed", "total"))
                if found.input_file_id not in (batch.input_file, None):
                    raise BatchError(f"Batch API: the server calls another batch {batch.server_id} now.", "gone")
                if found.id != batch.server_id or not isinstance(status, str) or not isinstance(done, int | None):
                    raise ValueError("the answer is not about this batch")
                files = found.error_file_id, found.output_file_id
                reasons = [
                    f"{one.message or ''} {one.code or ''}" for one in (found.errors and found.errors.data) or ()
                ]
        except BatchError as error:
            if error.kind != "gone":
                raise
            days = (time.time() - batch.created) / 86_400
            batch.status, batch.done, batch.looks = "away", None, LOOKS
            batch.reason = f"{error} It was submitted {days:.1f} days ago; use the key of the project that did"
            return
        if status == "completed" and (done is None or done + (failed or 0) < (total or 0)):
            done = None  # a server that does not count
        batch.done, batch.looks = done, batch.looks + (status in _ENDED)
        # The answers are paid for, and some servers name their file a while after the end.
        nothing = status == "failed" or (done == 0 and (files[0] or status != "completed"))
        if status in _ENDED and (files[1] or nothing or batch.looks >= LOOKS):
            self._has_room, batch.status, batch.files = True, status, files
            batch.reason = self._server.one_line("; ".join(reasons[:3]))

    def _results(self, batch: Batch) -> Iterator[Answer]:
        """Yield answers and take them off what is wanted; what is not there yet stays, for some looks."""
        if batch.status == "failed" and not any(batch.files):
            kind = "no room" if any(word in batch.reason for word in _NO_ROOM) else "refused"
            self._requeue(batch, BatchError(f"Batch API: the server refuses the requests: {batch.reason}", kind))
            return
        paid, failed, is_torn, is_gone = set[int](), dict[int, Answer](), False, False
        named = readable = unreadable = 0
        for file in filter(None, batch.files):
            with tempfile.TemporaryFile() as spool:
                is_gone |= not self._download(file, spool)
                spool.seek(0)
                while line := spool.readline(MAX_BODY):
                    row: Any = read_json(line)
                    named += b'"custom_id"' in line  # as on no page of a gateway
                    try:
                        number = int(row["custom_id"])
                    except (ValueError, TypeError, LookupError, OverflowError):
                        is_torn = not line.endswith(b"\n")
                        unreadable += not is_torn
                        continue
                    readable, is_torn = readable + 1, False
                    if number in batch.wanted:  # or it was read before
                        answer = self._read(row, line, batch.wanted[number])
                        if answer.text is None:
                            failed[number] = answer  # unless a good line follows
                        else:
                            del batch.wanted[number]
                            yield answer
                    if isinstance(row.get("response"), dict) and row["response"].get("status_code") == 200:
                        paid.add(number)
        is_whole = named > 0 and not is_torn and len(paid) + unreadable >= (batch.done or 0)
        is_there = is_gone or is_whole or batch.done == 0 or batch.wanted.keys() <= failed.keys()
        batch.looks += not is_there
        if is_there or batch.looks >= LOOKS:
            is_unreadable = not is_there and any(batch.files) and (is_torn or not named)
            if is_unreadable:
                name = batch.files[1] or batch.files[0]
                batch.reason = f"Batch API: the file {name} is not whole, {readable:,} of its lines can be read"
            reason = "the server no longer has the answer" if is_gone else f"the batch {batch.status} without an answer"
            yield from self._rest(batch, paid, failed, reason, can_wait=is_unreadable or batch.status == "away")

    def _rest(
        self, batch: Batch, paid: set[int], failed: Mapping[int, Answer], reason: str, *, can_wait: bool
    ) -> Iterator[Answer]:
        """Yield what is to become of requests without an answer.

        Answers that are paid for and cannot be had now are waited for by the next run. Others are lost: as many as the
        server says that it answered were paid for.
        """
        if can_wait:
            reason = (
                f"{batch.reason}; the same command reads it again. --retry-rejected gives these answers up, counts "
            )
            reason += "them as paid, and the next run asks again."
            failed = {}
        missing = [number for number in batch.wanted if number not in failed]
        is_unsure = can_wait or batch.done is None or batch.done < len(paid)
        lost = {*(missing if is_unsure else missing[: (batch.done or 0) - len(paid)])}
        is_left = can_wait and not self._config.retry_rejected
        if is_left:
            say(f"{len(batch.wanted):,} images wait for an answer. {reason}")
        for number, request in batch.wanted.items():
            if is_left:
                self._unreadable += [Skipped(name=key, reason=reason) for key in request.keys]
                yield Answer(request=request, pending=True)
            else:
                yield failed.get(number) or Answer(request=request, error=reason, unpriced=number in lost)
        batch.wanted.clear()

    def _download(self, file: str, into: Any) -> bool:
        """Read a file of answers; return False where the server does not have it any more."""
        try:
            with (
                self._calling("the answers cannot be downloaded"),
                self._api.files.with_streaming_response.content(file) as response,
            ):
                for part in response.iter_bytes():
                    into.write(part)
        except BatchError as error:
            if error.kind != "gone":
                raise
            return False
        return True

    def _read(self, row: Any, line: bytes, request: Request) -> Answer:
        match row:
            case {"response": {"status_code": 200, "body": body}}:
                return to_answer(request, body, line, self._server, self.price)
            case {"response": {"status_code": int(status), "body": body}}:
                fault = fault_of(status, {}, json.dumps(body).encode(), self._server)
                if fault.verdict is Verdict.FILTERED:
                    return filtered(request, self.price)
                way = """; give --extra-body '{"response_format": null}' to ask without a schema"""
                return Answer(request=request, error=fault.message + way * ("response_format" in fault.unsupported))
            case {"error": {"message": str(message)}}:
                return Answer(request=request, error=self._server.one_line(message))
            case _:
                return Answer(request=request, error="the response holds no answer", unpriced=True)

    @contextlib.contextmanager
    def _calling(self, what: str) -> Generator[None]:
        import httpx2
        import openai

        try:
            yield
        except (openai.OpenAIError, BorderError, httpx2.HTTPError, httpx2.InvalidURL, *_ODD) as error:
            text = f"Batch API: {what}: {self._server.one_line(error)}. The store notes it; the same command goes on."
            status, said = getattr(error, "status_code", 0), f"{getattr(error, 'body', '')}"
            kind = "unsure"
            if isinstance(error, openai.NotFoundError):
                kind = "gone"
            elif any(word in said for word in _NO_ROOM):
                kind = "no room"
            elif isinstance(error, BorderError) or NO_MONEY.search(said):
                kind = "refused"
            elif status and status < 500 and status not in (408, 409):
                kind = "busy" if status == 429 else "refused"
            raise BatchError(text, kind) from None


def _sleep(seconds: float) -> Iterator[Sequence[Answer]]:
    """Wait, with an empty group about once a second: the caller may break off there."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        yield []
