"""The calls of OpenAI's Batch API: patient with faults, and a batch is created once, whatever happens on the way."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx2
import openai
from openai.types import Batch

from gpt4image.base.errors import DescriberError
from gpt4image.describing.describers.openai.untrusted import NotJsonError, RedirectedError, lines_of, parse_json

MAX_FILE = 4 * 2**30
"""Maximum bytes of a file of answers, decompressed; what comes after them is not read."""
ENDED = frozenset(("completed", "expired", "cancelled", "failed"))
_MAX_ID = 500
_MOST_LISTED = 100_000
# No JSON, or something else than was asked for: the page of a gateway, or a body without end.
_NO_ANSWER = (
    *(openai.OpenAIError, RedirectedError, httpx2.HTTPError, httpx2.InvalidURL),
    *(ValueError, AttributeError, TypeError, EOFError, OverflowError, RecursionError),
)
_NO_ROOM = frozenset(("token_limit_exceeded", "request_limit_exceeded"))
_NO_MONEY = frozenset(("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"))
_NAME = "gpt4image"
_TRIES = 7
_FIRST_WAIT_S = 1.0
_CLOCK_SKEW_S = 86_400.0
_GO_ON = "What was submitted is noted in the store; the same command goes on with it."


class RefusedError(DescriberError):
    """The server refused, and nothing was made."""


class NoRoomError(RefusedError):
    """The server takes no more batches until others have ended."""


class GoneError(RefusedError):
    """The server does not know the batch or the file."""


class BusyError(DescriberError):
    """The server is not reached, fails, or has no time: another try may succeed.

    Attributes:
        unsure: the call may have taken effect although no answer came.
    """

    def __init__(self, message: str, *, unsure: bool) -> None:
        super().__init__(message)
        self.unsure = unsure


@dataclass(frozen=True)
class BatchState:
    """The state of a batch, as the server tells it: ``codes`` and ``reason`` say why it failed."""

    status: str
    completed: int = 0
    output_file: str | None = None
    error_file: str | None = None
    codes: tuple[str | None, ...] = ()
    reason: str = ""


class BatchApi:
    """Batches and files of one account at one server."""

    def __init__(self, client: openai.OpenAI, one_line: Callable[[object], str], *, retries: int) -> None:
        """Prepare; nothing is sent. ``one_line`` makes an error text short and free of secrets."""
        self._client = client.with_options(max_retries=retries)
        self._one_line = one_line

    def upload(self, lines: BinaryIO, token: str) -> str:
        """Upload the file of requests of the batch ``token`` and return its id; raises RefusedError or BusyError."""
        with self._explained("the requests cannot be uploaded"):
            lines.seek(0)
            return _id(self._client.files.create(file=(_file_name(token), lines), purpose="batch"))

    def create(self, input_file: str, token: str, since: float) -> str:
        """Create the batch that is called ``token`` and return its id.

        Where a call may have taken effect unheard, the batch is looked for before another is made. The name was made at
        ``since``, in seconds since 1970-01-01 UTC.

        Raises:
            NoRoomError: too much waits at the server; no batch was made.
            RefusedError: no batch was made.
            DescriberError: the batch may exist.
        """
        unsure, tries = False, 0
        while True:
            if unsure and (found := self.find(token, since)):
                return found.id
            try:
                created = self._create(input_file, token)
                first = self.find(token, since) if unsure else None
                return created if first is None else first.id
            except BusyError as error:
                unsure, tries = unsure or error.unsure, tries + 1
                if tries == _TRIES:
                    raise
                time.sleep(_FIRST_WAIT_S * 2**tries)
            except RefusedError as error:
                raise (DescriberError(str(error)) if unsure else error) from None

    def _create(self, input_file: str, token: str) -> str:
        with self._explained("the batch cannot be created"):
            batch = self._client.with_options(max_retries=0).batches.create(
                input_file_id=input_file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_NAME: token},
            )
            return _id(_checked(batch))

    def find(self, token: str, since: float) -> Batch | None:
        """Return the batch called ``token``, if there is one. Were there several, all but the first are cancelled."""
        named: list[Batch] = []
        with self._explained("the batches cannot be listed"):
            for batch in itertools.islice(self._client.batches.list(limit=100), _MOST_LISTED):  # newest first
                if batch.created_at < since - _CLOCK_SKEW_S:
                    break
                if (batch.metadata or {}).get(_NAME) == token and _id(batch):
                    named.append(batch)
            named.sort(key=lambda batch: (batch.status in ("cancelling", "cancelled"), batch.created_at))
        for twin in named[1:]:
            with contextlib.suppress(*_NO_ANSWER):
                self._client.batches.cancel(twin.id)
        return named[0] if named else None

    def look(self, batch: str) -> BatchState:
        """Return the state of a batch; raises BusyError, GoneError or RefusedError."""
        with self._explained("the batch cannot be looked at"):
            found = _checked(self._client.batches.retrieve(batch))
            if found.id != batch:
                raise ValueError("the answer is about another batch")
            errors = ((found.errors.data if found.errors else None) or [])[:3]
            return BatchState(
                found.status,
                (found.request_counts.completed if found.request_counts else 0) or 0,
                _id(found, "output_file_id") if found.output_file_id else None,
                _id(found, "error_file_id") if found.error_file_id else None,
                tuple(error.code for error in errors),
                self._one_line("; ".join(str(error.message or error.code or "") for error in errors)),
            )

    def download(self, file: str, into: BinaryIO) -> bool:
        """Write the contents of a file to ``into``, from its start; return whether that is all of it.

        A file that ends within a line was cut on the way; if it stays so, try after try, it is written as it came. One
        that is longer than MAX_FILE is written up to there.

        Raises:
            GoneError: the server does not have it.
            DescriberError: the server cannot be reached.
        """
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            into.seek(0)
            into.truncate()
            try:
                with (
                    self._explained("the answers cannot be downloaded"),
                    self._client.files.with_streaming_response.content(file) as response,
                ):
                    for part in response.iter_bytes():
                        if into.tell() + len(part) > MAX_FILE:
                            return False
                        into.write(part)
                if last or not _is_cut(into):
                    break
            except BusyError:
                if last:
                    raise
            time.sleep(_FIRST_WAIT_S * 2**attempt)
        return True

    def cancel(self, batch: str) -> None:
        """Cancel a batch that nobody waits for, unless it has ended; where that fails, it runs to its end."""
        with contextlib.suppress(*_NO_ANSWER):
            if _checked(self._client.batches.retrieve(batch)).status not in ENDED:
                self._client.batches.cancel(batch)

    def delete(self, file: str) -> None:
        """Delete a file; where that fails, it is left to the server's own expiry."""
        with contextlib.suppress(*_NO_ANSWER):
            self._client.files.delete(file)

    def delete_upload(self, token: str, since: float) -> None:
        """Delete the file of requests of the batch ``token``, whose id was not heard, if it arrived; as ``delete``."""
        with contextlib.suppress(*_NO_ANSWER):
            for file in itertools.islice(self._client.files.list(purpose="batch", order="desc"), _MOST_LISTED):
                if file.created_at < since - _CLOCK_SKEW_S:
                    break
                if file.filename == _file_name(token):
                    self._client.files.delete(file.id)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Generator[None, None, None]:
        try:
            yield
        except _NO_ANSWER as error:
            raise _meaning(error, f"Batch API: {what}: {self._one_line(error)}. {_GO_ON}") from None


def _meaning(error: Exception, text: str) -> DescriberError:
    if isinstance(error, openai.NotFoundError):
        return GoneError(text)
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return RefusedError(f"{text} Set OPENAI_API_KEY to a key of the project.")
    if isinstance(error, openai.APIStatusError):
        if is_no_room([error.code]) or "enqueued" in str(error).lower():
            return NoRoomError(text)
        passes = error.status_code >= 500 or error.status_code in (408, 409, 429)
        if error.code in _NO_MONEY or not passes:
            return RefusedError(text)
        return BusyError(text, unsure=error.status_code != 429)
    return RefusedError(text) if isinstance(error, RedirectedError) else BusyError(text, unsure=True)


def is_no_room(codes: Iterable[str | None]) -> bool:
    """Return whether error codes say that too much waits at the server already."""
    return any(code in _NO_ROOM for code in codes)


def _file_name(token: str) -> str:
    return f"{_NAME}-{token}.jsonl"


def _is_cut(lines: BinaryIO) -> bool:
    """Return whether a file of JSON lines ends within one."""
    last = next(iter(deque(lines_of(lines), maxlen=1)), b"\n")
    with contextlib.suppress(NotJsonError):
        if not last.endswith(b"\n"):
            parse_json(last)
        return False
    return True


def _checked(batch: object) -> Batch:
    """Return a batch whose status and counts are what they should be: the client lets anything through."""
    if not isinstance(batch, Batch) or not isinstance(batch.status, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError("the answer is no batch")
    completed: Any = batch.request_counts and batch.request_counts.completed
    if not isinstance(completed, int | None):
        raise ValueError("the answer holds no number of requests")
    return batch


def _id(made: Any, name: str = "id") -> str:
    found = getattr(made, name)
    if not isinstance(found, str) or not found.isprintable() or not 0 < len(found) <= _MAX_ID:
        raise ValueError(f"the answer holds no usable {name}")
    return found
