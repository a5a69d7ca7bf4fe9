"""Chat completions: the body of a request with an image, what an answer holds, and what models accept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gpt4image.base.errors import DescriberError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.openai.faults import LONGEST_WAIT_S, REDIRECT, Fault
from gpt4image.describing.describers.openai.untrusted import MAX_NAME, MAX_TEXT, redacted

if TYPE_CHECKING:
    from gpt4image.describing.describers.openai.client import Server
    from gpt4image.describing.describers.openai.jobs import Job

_LIMIT_NAMES = ("max_completion_tokens", "max_tokens")
_LONGEST_NAMED_S = 1e9
_MOST_TOKENS = 2**53  # what is more is no count, and no database takes it


@dataclass(frozen=True)
class Choice:
    """One answer of the model."""

    text: str
    finish_reason: str | None


@dataclass(frozen=True)
class Completion:
    """What a response holds: no choice where it is malformed; tokens are paid for all the same."""

    choices: tuple[Choice, ...] = ()
    tokens_in: int | None = None
    tokens_out: int | None = None

    @property
    def is_priced(self) -> bool:
        """Whether the server says how many tokens are to be paid for."""
        return self.tokens_in is not None and self.tokens_out is not None

    @property
    def tokens(self) -> int | None:
        """All tokens, where the server counts them."""
        known = [count for count in (self.tokens_in, self.tokens_out) if count is not None]
        return sum(known) if known else None


class Dialect:
    """How a job becomes the body of a call for one model; models and servers differ in what they accept."""

    def __init__(self, model: str, options: DescriberOptions, server: Server) -> None:
        self._model = model
        self._options = options
        self._server = server
        self._limit_name = _LIMIT_NAMES[0] if server.is_openai else _LIMIT_NAMES[1]
        self._switched = False

    def body(self, job: Job) -> bytes:
        """Return the JSON body of the next call of a job."""
        options, turns = self._options, job.request.turns
        job.limit_name = self._limit_name
        fields: dict[str, Any] = {"model": self._model, self._limit_name: options.max_tokens}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
        if len(job.samples) > 1:
            fields["n"] = len(job.samples)
        head = json.dumps({**fields, **options.extra_body})[:-1] + ', "messages": ['
        if options.system:
            head += json.dumps({"role": "system", "content": options.system}) + ", "
        head += '{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "'
        tail = '"}}' if options.detail == "auto" else f'", "detail": "{options.detail}"}}}}'
        tail += ", " + json.dumps({"type": "text", "text": turns[0]}) + "]}"
        for turn, answer in zip(turns[1:], job.turns, strict=False):
            tail += ", " + json.dumps({"role": "assistant", "content": answer.text})
            tail += ", " + json.dumps({"role": "user", "content": turn})
        # The image goes between ready-made parts: as JSON it would be searched for characters to escape.
        return b"".join((head.encode(), job.image_url, tail.encode(), b"]}"))

    def adapt(self, fault: Fault, job: Job) -> bool:
        """Change what is sent where the model does not accept it; return whether the job is worth another call.

        Raises:
            DescriberError: the user has to change an option.
        """
        if fault.parameter == "temperature" and self._options.temperature is not None:
            raise DescriberError(f"{self._model} takes no --temperature {self._options.temperature:g}: leave it out.")
        if fault.parameter not in _LIMIT_NAMES or fault.parameter != job.limit_name:
            return False
        if not self._switched:
            self._switched = True
            self._limit_name = next(name for name in _LIMIT_NAMES if name != job.limit_name)
        return self._limit_name != job.limit_name

    def explain(self, fault: Fault) -> str:
        """Return what a fault that stops the run means, and what to do."""
        url, reason = self._server.url, f"({fault.message})"
        if fault.kind == REDIRECT:
            return f"{url} sends the request elsewhere {reason}. If that is right, give its address as --base-url."
        if fault.kind == "401":
            return f"{url} does not accept the key in OPENAI_API_KEY {reason}."
        if fault.kind == "403":
            return f"{url} does not let this key use {self._model} {reason}."
        if fault.kind == "404":
            hint = "" if url.endswith("/v1") else "; most addresses end in /v1: is --base-url complete?"
            return f"{url} does not know the model {self._model} {reason}{hint}"
        if fault.retry_after is not None and fault.retry_after > LONGEST_WAIT_S:
            wait = timedelta(seconds=round(min(fault.retry_after, _LONGEST_NAMED_S)))
            return f"{url} takes no more calls for {wait} {reason}; give the same command again then."
        return f"{url} wants to be paid before it answers: there is no quota left {reason}."


def completion_of(body: Any, secrets: Sequence[str] = ()) -> Completion:
    """Return what a decoded response body holds. Never raises: whatever is of another shape is left out.

    Args:
        body: the JSON value.
        secrets: what texts may not hold.
    """
    if not isinstance(body, dict):
        return Completion()
    usage, choices = body.get("usage"), body.get("choices")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        tuple(_choices(choices if isinstance(choices, list) else [], secrets)),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None


def _choices(choices: Sequence[Any], secrets: Sequence[str]) -> Iterator[Choice]:
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or choice.get("finish_reason") == "error":
            continue
        reason, refusal = choice.get("finish_reason"), message.get("refusal")
        reason = redacted(reason, secrets, MAX_NAME) if isinstance(reason, str) else None
        if isinstance(refusal, str) and refusal:
            yield Choice(redacted(refusal, secrets, MAX_TEXT), "refusal")
        elif (text := _text(message)) is not None:
            yield Choice(redacted(text, secrets, MAX_TEXT), reason if len(text) <= MAX_TEXT else "length")


def _text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message; empty where a reasoning model spent all tokens on thinking."""
    content = message.get("content")
    if content is None and "role" in message:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None
