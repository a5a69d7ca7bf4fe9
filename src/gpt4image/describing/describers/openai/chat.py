"""A chat completion with images: the body of a call, what an answer holds, and what a failed call means."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from gpt4image.base.errors import DescriberError
from gpt4image.config import DescriberOptions
from gpt4image.describing.class_lists import readable
from gpt4image.describing.describers.base import Answer, Example, Request
from gpt4image.describing.describers.openai.server import (
    MAX_NAME,
    MAX_TEXT,
    NotJsonError,
    Server,
    mapping,
    parse_json,
    redacted,
    sequence,
)
from gpt4image.describing.prices import FREE, Price
from gpt4image.describing.questions import mark_of

_LIMIT_NAMES = ("max_completion_tokens", "max_tokens")
_MOST_TOKENS = 10_000_000  # no model reads more: what is more is no count

NO_MONEY = {
    *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"),
    *("insufficient_funds", "insufficient_balance", "exceeded_current_quota_error", "arrearage"),
}
# With status 400 only, which otherwise is about the image: with 429, a limit per minute is called a quota too.
_NO_MONEY_TEXT = re.compile(
    r"credit balance|(?:insufficient|not enough|out of) (?:credits?|funds|balance|quota)|exceeded your (?:\w+ )?quota",
    re.IGNORECASE,
)
_FILTERED = {
    *("content_policy_violation", "content_filter", "content_filtered", "responsibleaipolicyviolation"),
    *("moderation_blocked", "data_inspection_failed"),
}
_FILTERED_TEXT = re.compile(r"input was flagged|content management policy|safety system", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"unsupported|not support|unrecognized|unknown|extra|not permitted", re.IGNORECASE)
_PARAMETER = re.compile(r"max_completion_tokens|max_tokens|temperature|response_format")
# What nobody writes about but to say that it is not taken.
_STRUCTURE = re.compile(r"response_format|json_schema")
# A longer wait stops the run: otherwise nobody would know why nothing happens.
LONGEST_WAIT_S = 600.0
_LONGEST_BELIEVED_S = 7 * 86_400.0
_TIMED_OUT = (408, 504, 524)  # before the model, which may have answered and be billed


@dataclass(frozen=True)
class Completion:
    """What a response holds. It is malformed if ``text`` is None; its tokens are paid for all the same."""

    text: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached: int = 0  # tokens of the request that the server had kept from earlier calls


def completion_of(body: Any, secrets: Sequence[str] = ()) -> Completion:
    """Return what a decoded response body holds, without ``secrets``. Never raises: other shapes are left out.

    A body with an error has no answer, whatever else it holds; the tokens that it reports are paid for.
    """
    usage = mapping(mapping(body).get("usage"))
    paid = Completion(
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        cached=_count(mapping(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
    )
    for choice in map(mapping, [] if mapping(body).get("error") else sequence(mapping(body).get("choices"))):
        message, reason = mapping(choice.get("message")), choice.get("finish_reason")
        refusal, text = message.get("refusal"), _text(message)
        if reason == "error":
            continue
        if isinstance(refusal, str) and refusal:
            return replace(paid, text=redacted(refusal, secrets, MAX_TEXT), finish_reason="refusal")
        if text is not None:
            reason = redacted(reason, secrets, MAX_NAME) if isinstance(reason, str) else None
            return replace(
                paid,
                text=redacted(text, secrets, MAX_TEXT),
                finish_reason=reason if len(text) <= MAX_TEXT else "length",
            )
    return paid


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS else None


def _text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message; empty where a reasoning model spent all tokens on thinking."""
    content = message.get("content")
    if content is None and "role" in message:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in map(mapping, sequence(content))]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


@dataclass(eq=False)
class Job:
    """A request on its way."""

    request: Request
    pictures: tuple[str, ...] = field(default=(), repr=False)  # data URLs: image, frames, or images of a sheet
    tries: int = 0  # failed calls
    sent: frozenset[str] = frozenset()  # fields of the last call that not every model takes
    in_place: bool = False  # holds a place among the calls in flight


def to_answer(request: Request, found: Completion, price: Price | None, **others: Any) -> Answer:
    """Return the answer that a completion holds, or, with an ``error``, what was paid for nothing.

    That a request or an answer took no tokens is not believed.
    """
    read, written = found.tokens_in or None, found.tokens_out or None
    known = price == FREE or None not in (read, written)
    return Answer(
        request=request,
        text=found.text,
        finish_reason=found.finish_reason,
        tokens_in=read,
        tokens_out=written,
        cost_usd=price.of(read or 0, written or 0, found.cached) if price and known else None,
        retry=found.text is None,
        unpriced=not known,
        **others,
    )


def filtered(request: Request, price: Price | None) -> Answer:
    """Return the answer to what a server refused to read: it says nothing, and costs nothing."""
    return Answer(request=request, text="", finish_reason="content_filter", cost_usd=None if price is None else 0.0)


class Verdict(Enum):
    """What to do about a failed call."""

    RETRY = "try again soon"
    LIMITED = "too many calls: slow down, then try again"
    OVERLOADED = "the server has too much to do: fewer at a time, then try again"
    LOST = "no response came: try again"
    ADAPT = "a field is not taken: try again without it"
    FILTERED = "the server refuses this content: the image is done"
    GIVE_UP = "this image will not be answered"
    STOP = "no image will be answered"


@dataclass(frozen=True)
class Fault:
    """One failed call."""

    kind: str  # short name for counting, e.g. ``429`` or ``timeout``
    verdict: Verdict
    message: str  # what the server wrote, or what happened, free of secrets
    retry_after: float | None = None  # minimum wait in seconds; None where the server does not say
    parameter: str | None = None  # field of the request that the server does not accept
    paid: bool = False  # the server began to answer with success, so the call is paid for, whatever became of it
    doubtful: bool = False  # no answer came, and the server may bill the call all the same


def fault_of_response(status: int, headers: Mapping[str, str], content: bytes, server: Server | None = None) -> Fault:
    """Return what a response with an error status means; the secrets of the server are removed from its message."""
    error = _error_of(content)
    text = error.get("message", error.get("detail", ""))
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    text = text or content.decode("utf-8", errors="replace")
    parts = (error, mapping(error.get("innererror")), mapping(error.get("metadata")))
    codes = [part.get(name) for part in parts for name in ("code", "type", "status")]
    verdict = _verdict(status, {code.lower() for code in codes if isinstance(code, str)}, text)
    wait = retry_after(headers, time.time())
    if (wait or 0.0) > LONGEST_WAIT_S and verdict in (Verdict.RETRY, Verdict.LIMITED, Verdict.OVERLOADED):
        verdict = Verdict.STOP
    parameter = _parameter_of(error, text) if status in (400, 403, 422) else None
    message = f"HTTP {status}: {text.strip() or 'no explanation'}"
    message = message if server is None else server.one_line(message)
    return Fault(str(status), verdict, message, wait, parameter, doubtful=status in _TIMED_OUT)


def _verdict(status: int, codes: set[str], text: str) -> Verdict:
    if codes & NO_MONEY or status == 402 or (status == 400 and _NO_MONEY_TEXT.search(text)):
        return Verdict.STOP
    if 400 <= status < 500 and (codes & _FILTERED or (status in (400, 403) and _FILTERED_TEXT.search(text))):
        return Verdict.FILTERED
    if status in (401, 403, 404):
        return Verdict.STOP
    if status == 429:
        return Verdict.LIMITED
    if status in (503, 529):
        return Verdict.OVERLOADED
    return Verdict.GIVE_UP if 400 <= status < 500 and status not in (408, 409, 425) else Verdict.RETRY


def _error_of(content: bytes) -> Mapping[str, Any]:
    try:
        body = parse_json(content)
    except NotJsonError:
        return {}
    body = mapping(next(iter(sequence(body)), body))
    error = body.get("error", body)
    return mapping(error) if isinstance(error, dict) else {"message": error}


def _parameter_of(error: Mapping[str, Any], text: str) -> str | None:
    named = error.get("param")
    if isinstance(named, str) and _PARAMETER.fullmatch(named.partition(".")[0]):
        return named.partition(".")[0]
    found = _STRUCTURE.search(text) or (_PARAMETER.search(text) if _UNSUPPORTED.search(text) else None)
    return None if found is None else "response_format" if found[0] == "json_schema" else found[0]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date) ask to wait.

    A date is compared with that of the response, or with ``now``. None where nothing is asked that a server means: less
    than no time, or more than a week.
    """
    seconds = None
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError, KeyError):
            seconds = float(headers[name]) / unit
            break
    if seconds is None and (until := _timestamp(headers.get("retry-after", ""))) is not None:
        seconds = until - (_timestamp(headers.get("date", "")) or now)
    return max(0.0, seconds) if seconds is not None and seconds <= _LONGEST_BELIEVED_S else None  # nor NaN


def _timestamp(date: str) -> float | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp()
    return None


class Dialect:
    """The body of a call for one model; models and servers differ in what they accept.

    Attributes:
        examples: labelled pictures that every question begins with.
    """

    def __init__(self, model: str, options: DescriberOptions, server: Server) -> None:
        self._model, self._options = model, options
        self._limit_name = _LIMIT_NAMES[0] if server.is_openai else _LIMIT_NAMES[1]
        self._refused = set[str]()
        self.examples: Sequence[Example] = ()

    def body(self, job: Job) -> bytes:
        """Return the JSON body of the next call of a job."""
        options, request, sheet = self._options, job.request, job.request.sheet
        fields: dict[str, Any] = {"model": self._model, self._limit_name: options.max_tokens * max(1, len(sheet))}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
        if request.schema is not None and "response_format" not in self._refused:
            form = {"name": "answer", "strict": True, "schema": request.schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": form}
        job.sent = frozenset(fields)
        detail = {} if options.detail == "auto" else {"detail": options.detail}
        about, parts = {request.digest, *(one.digest for one in sheet)}, list[str | tuple[str]]()  # texts, and (URL,)
        if self.examples:
            parts.append("Examples of the classes, labelled by people:")
            for example in self.examples:
                if example.digest not in about:
                    parts += [(example.url,), f"Class: {readable(example.class_name)}"]
            parts.append("These were the examples.")
        for number, url in enumerate(job.pictures, start=1):
            parts += [f"Image {number} {mark_of(sheet[number - 1].digest)}:", (url,)] if sheet else [(url,)]
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": part[0], **detail}}
            for part in (*parts, request.question)
        ]
        messages: list[dict[str, Any]] = [{"role": "system", "content": options.system}] if options.system else []
        messages.append({"role": "user", "content": content})
        return json.dumps({**fields, **options.extra_body, "messages": messages}).encode()

    def adapt(self, fault: Fault, job: Job) -> bool:
        """Change what is sent where the model does not accept it; return whether another call is worth it.

        Raises DescriberError: the user has to change an option.
        """
        name = fault.parameter
        if name == "temperature" and self._options.temperature is not None:
            raise DescriberError(f"{self._model} takes no --temperature {self._options.temperature:g}: leave it out.")
        if name is None or name not in job.sent:
            return False
        if name in _LIMIT_NAMES and not self._refused.intersection(_LIMIT_NAMES):
            self._limit_name = next(other for other in _LIMIT_NAMES if other != name)
        self._refused.add(name)
        return name != self._limit_name
