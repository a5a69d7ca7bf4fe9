"""What a failed call means: try it again, wait first, give the image up, or stop the run."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from gpt4image.describing.describers.openai.untrusted import NotJsonError, parse_json

_NO_MONEY = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "insufficient_funds",
    "insufficient_balance",
    "exceeded_current_quota_error",
    "arrearage",
}
# What some servers say with status 400, which otherwise is about the image. Not with 429: limits per minute are a
# "quota" too.
_NO_MONEY_TEXT = re.compile(
    r"credit balance|(?:insufficient|not enough|out of) (?:credits?|funds|balance|quota)|exceeded your (?:\w+ )?quota",
    re.IGNORECASE,
)
_FILTERED = {
    "content_policy_violation",
    "content_filter",
    "content_filtered",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "data_inspection_failed",
}
_FILTERED_TEXT = re.compile(r"input was flagged|content management policy|safety system", re.IGNORECASE)
_RETRYABLE = {408, 409, 425}
_OVERLOADED = {503, 529}
# A longer wait is not waited: whoever started the run would not know why nothing happens.
LONGEST_WAIT_S = 600.0
REDIRECT = "redirect"


class Verdict(Enum):
    """What to do about a failed call."""

    RETRY = "try again soon"
    LIMITED = "too many calls: slow down, then try again"
    OVERLOADED = "the server has too much to do: fewer at a time, then try again"
    LOST = "no response came: try again"
    FILTERED = "the server keeps the text back: the image is settled"
    GIVE_UP = "this image will not be answered"
    STOP = "no image will be answered"


_TRIED_AGAIN = (Verdict.RETRY, Verdict.LIMITED, Verdict.OVERLOADED)


@dataclass(frozen=True)
class Fault:
    """One failed call.

    Attributes:
        kind: short name for counting, e.g. ``429`` or ``timeout``.
        verdict: what to do.
        message: what the server said, or what happened; ``Client`` removes secrets from it and cuts it.
        retry_after: seconds to wait at least; None where the server does not say.
        parameter: field of the request that the server does not know or take.
        paid: the server began to answer with success, so the call is paid for, whatever became of the answer.
    """

    kind: str
    verdict: Verdict
    message: str
    retry_after: float | None = None
    parameter: str | None = None
    paid: bool = False


def fault_of_response(status: int, headers: Mapping[str, str], content: bytes) -> Fault:
    """Return what a response with an error status means."""
    error = _error_of(content)
    codes = {code.lower() for code in _codes(error)}
    text = _message_of(error) or content.decode("utf-8", errors="replace")
    message = f"HTTP {status}: {text.strip() or 'no explanation'}"
    verdict = _verdict(status, codes, text)
    parameter = _parameter_of(error, text) if status in (400, 422) else None
    wait = retry_after(headers, time.time())
    if wait is not None and wait > LONGEST_WAIT_S and verdict in _TRIED_AGAIN:
        verdict = Verdict.STOP
    return Fault(str(status), verdict, message, wait, parameter)


def _verdict(status: int, codes: set[str], text: str) -> Verdict:
    if codes & _NO_MONEY or status == 402 or (status == 400 and _NO_MONEY_TEXT.search(text)):
        return Verdict.STOP
    if 400 <= status < 500 and (codes & _FILTERED or (status in (400, 403) and _FILTERED_TEXT.search(text))):
        return Verdict.FILTERED
    if status in (401, 403, 404):
        return Verdict.STOP
    if status == 429:
        return Verdict.LIMITED
    if status in _OVERLOADED:
        return Verdict.OVERLOADED
    if status in _RETRYABLE or status >= 500 or status < 400:
        return Verdict.RETRY
    return Verdict.GIVE_UP


def malformed(what: str, *, paid: bool = True) -> Fault:
    """Return the fault of a response with status 200 that holds no answer."""
    return Fault("malformed", Verdict.RETRY, what, paid=paid)


def redirected(what: str) -> Fault:
    """Return the fault of a response that sends the client to another address."""
    return Fault(REDIRECT, Verdict.STOP, what)


def timed_out(seconds: float) -> Fault:
    """Return the fault of a call that took too long."""
    return Fault("timeout", Verdict.LOST, f"no answer within {seconds:g} s")


def unconnected(error: BaseException, seconds: float) -> Fault:
    """Return the fault of a connection that could not be made, broke, or was silent for so many seconds."""
    from aiohttp import ClientConnectorError, ClientResponseError, ConnectionTimeoutError, SocketTimeoutError
    from aiohttp.http_exceptions import HttpProcessingError

    causes = list(_causes(error))
    if any(isinstance(cause, ClientConnectorError | ConnectionTimeoutError) for cause in causes):
        kind = "unreachable"
    elif any(isinstance(cause, SocketTimeoutError) for cause in causes):
        return timed_out(seconds)
    else:
        kind = "connection"
    last = causes[-1]
    # Their texts hold the address, with any secret of its query, or what the server sent, already cut.
    if isinstance(last, ClientResponseError | HttpProcessingError | ValueError):
        return Fault(kind, Verdict.LOST, f"the answer is not valid HTTP ({type(last).__name__})")
    return Fault(kind, Verdict.LOST, str(last) or type(last).__name__)


def _causes(error: BaseException) -> Iterable[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date) ask to wait.

    A date is compared with that of the response; without one, with ``now``, by a clock that may differ.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (text := headers.get(name)) is not None:
            sent = _timestamp(headers.get("date", ""))
            seconds = _seconds(text, unit, now if sent is None else sent)
            if seconds is not None:
                return max(0.0, seconds)
    return None


def _seconds(text: str, unit: float, now: float) -> float | None:
    try:
        seconds = float(text) * unit
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    until = _timestamp(text)
    return None if until is None else until - now


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _error_of(content: bytes) -> Mapping[str, Any]:
    """Return the error object of a body in one of the shapes that servers use; empty where there is none."""
    try:
        body = parse_json(content)
    except NotJsonError:
        return {}
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": error}


def _codes(error: Mapping[str, Any]) -> Iterable[str]:
    for part in (error, error.get("innererror"), error.get("metadata")):
        if isinstance(part, dict):
            yield from (part[name] for name in ("code", "type", "status") if isinstance(part.get(name), str))


def _message_of(error: Mapping[str, Any]) -> str:
    message = error.get("message", error.get("detail", ""))
    return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)


def _parameter_of(error: Mapping[str, Any], text: str) -> str | None:
    """Return which of the parameters that not every model takes the server complains about."""
    named = error.get("param")
    if named in ("max_tokens", "max_completion_tokens", "temperature"):
        return named
    if not re.search(r"unsupported|not support|unrecognized|unknown|extra|not permitted", text, re.IGNORECASE):
        return None
    first = re.search(r"max_completion_tokens|max_tokens|temperature", text)
    return first[0] if first else None
