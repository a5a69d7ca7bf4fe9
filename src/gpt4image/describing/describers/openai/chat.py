"""A chat completion with images: the body of a call, what an answer holds, and what a failed call means."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
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

_LIMIT_NAMES = ("max_completion_tokens", "max_tokens")
_CLASS = re.compile(r'"class"\s*:\s*"(?P<value>(?:[^"\\]|\\.)+)"')
_MOST_TOKENS = 2**53  # what is more is no count, and no database takes it

_NO_MONEY = {
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
_PARAMETER = re.compile(r"max_completion_tokens|max_tokens|temperature|response_format|logprobs")
# What nobody writes about but to say that it is not taken.
_STRUCTURE = re.compile(r"response_format|json_schema|logprobs")
# A longer wait stops the run: otherwise nobody would know why nothing happens.
LONGEST_WAIT_S = 600.0
_LONGEST_BELIEVED_S = 7 * 86_400.0


@dataclass(frozen=True)
class Completion:
    """What a response holds. It is malformed if ``text`` is None; its tokens are paid for all the same."""

    text: str | None = None
    finish_reason: str | None = None
    probability: float | None = None  # of the tokens of the class, where the answer is JSON with one
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
                probability=class_probability(choice.get("logprobs")),
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


def class_probability(logprobs: Any) -> float | None:
    """Return the probability of the tokens that spell the class in a JSON answer; None where it is not told."""
    tokens: list[tuple[str, float]] = []
    for one in sequence(mapping(logprobs).get("content")):
        match one:
            case {"token": str(token), "logprob": int() | float() as value} if -1e6 <= value <= 1e-3:
                tokens.append((token, value))
            case _:
                return None
    found = _CLASS.search("".join(token for token, _ in tokens))
    if found is None:
        return None
    total, place = 0.0, 0
    for token, value in tokens:
        end = place + len(token)
        if place < found.end("value") and end > found.start("value"):
            total += value
        place = end
    return min(1.0, math.exp(total))


@dataclass(eq=False)
class Job:
    """A request on its way, with what was answered and paid for so far."""

    request: Request
    pictures: tuple[str, ...] = field(default=(), repr=False)  # data URLs: image, frames, or images of a sheet
    turns: list[Completion] = field(default_factory=list[Completion])  # responses to the first turns
    tokens_in: int | None = None
    tokens_out: int | None = None
    cached: int = 0
    latency: float = 0.0  # seconds that the successful calls took
    tries: int = 0  # failed calls
    wasted: int = 0  # those of them that were paid for
    unpriced: int = 0  # wasted calls whose price the server does not tell
    sent: frozenset[str] = frozenset()  # fields of the last call that not every model takes
    in_place: bool = False  # holds a place among the calls in flight

    def pay(self, completion: Completion, *, wasted: bool = False) -> None:
        """Add the tokens of a call."""
        if completion.tokens_in is not None:
            self.tokens_in = (self.tokens_in or 0) + completion.tokens_in
        if completion.tokens_out is not None:
            self.tokens_out = (self.tokens_out or 0) + completion.tokens_out
        self.cached += completion.cached
        self.wasted += wasted
        self.unpriced += wasted and None in (completion.tokens_in, completion.tokens_out)

    @property
    def is_paid(self) -> bool:
        """Whether any call is known to have been paid for."""
        return self.wasted > 0 or (self.tokens_in, self.tokens_out) != (None, None)

    @property
    def goes_on(self) -> bool:
        """Whether the conversation has another turn."""
        last, ended = self.turns[-1], len(self.turns) == len(self.request.turns)
        return bool(last.text) and last.finish_reason not in ("refusal", "content_filter") and not ended

    def answer(self, price: Price | None, error: str | None = None) -> Answer:
        """Return all turns as one answer, with the first finish reason that is out of the ordinary; or an error."""
        reasons = [turn.finish_reason for turn in self.turns]
        known = price == FREE or None not in (self.tokens_in, self.tokens_out)
        texts = [turn.text for turn in self.turns if turn.text]
        return Answer(
            request=self.request,
            text=None if error else "\n\n".join(texts),
            finish_reason=None if error else next((r for r in reasons if r not in (None, "stop")), reasons[-1]),
            probability=None if error or len(self.turns) > 1 else self.turns[0].probability,
            error=error,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            cost_usd=price.of(self.tokens_in or 0, self.tokens_out or 0, self.cached) if price and known else None,
            latency_s=self.latency or None,
            wasted=self.wasted,
            unpriced=self.unpriced,
        )


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


def fault_of_response(status: int, headers: Mapping[str, str], content: bytes, server: Server | None = None) -> Fault:
    """Return what a response with an error status means; the secrets of the server are removed from its message."""
    error = _error_of(content)
    text = error.get("message", error.get("detail", ""))
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    text = text or content.decode("utf-8", errors="replace")
    verdict = _verdict(status, set(_codes(error)), text)
    wait = retry_after(headers, time.time())
    if (wait or 0.0) > LONGEST_WAIT_S and verdict in (Verdict.RETRY, Verdict.LIMITED, Verdict.OVERLOADED):
        verdict = Verdict.STOP
    parameter = _parameter_of(error, text) if status in (400, 403, 422) else None
    message = f"HTTP {status}: {text.strip() or 'no explanation'}"
    return Fault(str(status), verdict, message if server is None else server.one_line(message), wait, parameter)


def _verdict(status: int, codes: set[str], text: str) -> Verdict:
    if codes & _NO_MONEY or status == 402 or (status == 400 and _NO_MONEY_TEXT.search(text)):
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


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    for part in (error, mapping(error.get("innererror")), mapping(error.get("metadata"))):
        for code in (part.get("code"), part.get("type"), part.get("status")):
            if isinstance(code, str):
                yield code.lower()


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
    text, milliseconds = headers.get("retry-after", ""), _number(headers.get("retry-after-ms", ""))
    seconds = _number(text) if milliseconds is None else milliseconds / 1000
    if seconds is None and (until := _timestamp(text)) is not None:
        seconds = until - (_timestamp(headers.get("date", "")) or now)
    return None if seconds is None or seconds > _LONGEST_BELIEVED_S else max(0.0, seconds)


def _number(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return number if math.isfinite(number := float(text)) else None
    return None


def _timestamp(date: str) -> float | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp()
    return None


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


class Dialect:
    """The body of a call for one model; models and servers differ in what they accept."""

    def __init__(self, model: str, options: DescriberOptions, server: Server) -> None:
        self._model, self._options = model, options
        self._limit_name = _LIMIT_NAMES[0] if server.is_openai else _LIMIT_NAMES[1]
        self._refused, self._examples = set[str](), list[Example]()

    def body(self, job: Job) -> bytes:
        """Return the JSON body of the next call of a job."""
        options, turns, sheet = self._options, job.request.turns, job.request.sheet
        fields: dict[str, Any] = {"model": self._model, self._limit_name: options.max_tokens * max(1, len(sheet))}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
        if (schema := job.request.schema) is not None:
            form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
            structure = {"response_format": form, **({"logprobs": True} if "class" in schema["properties"] else {})}
            fields |= {name: value for name, value in structure.items() if name not in self._refused}
        job.sent = frozenset(fields)
        shown = [*self._shown({job.request.digest, *(one.digest for one in sheet)})]
        for number, url in enumerate(job.pictures, start=1):
            shown += [_text_part(f"Image {number}:")] if sheet else []
            shown.append(self._image_part(url))
        messages: list[dict[str, Any]] = [{"role": "system", "content": options.system}] if options.system else []
        messages.append({"role": "user", "content": [*shown, _text_part(turns[0])]})
        for turn, answer in zip(turns[1:], job.turns, strict=False):
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": turn}]
        return json.dumps({**fields, **options.extra_body, "messages": messages}).encode()

    def show(self, examples: Sequence[Example]) -> None:
        """Begin every question with examples."""
        self._examples = [*examples]

    def _shown(self, about: set[str]) -> Iterator[dict[str, Any]]:
        if self._examples:
            yield _text_part("Examples of the classes, labelled by people:")
            for example in self._examples:
                if example.digest not in about:
                    yield self._image_part(example.url)
                    yield _text_part(f"Class: {readable(example.class_name)}")
            yield _text_part("These were the examples.")

    def _image_part(self, url: str) -> dict[str, Any]:
        detail = {} if self._options.detail == "auto" else {"detail": self._options.detail}
        return {"type": "image_url", "image_url": {"url": url, **detail}}

    def refuse(self, field: str) -> None:
        """Send a field no more: this server does not take it, or does not need it."""
        self._refused.add(field)

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
        self.refuse(name)
        return name != self._limit_name
