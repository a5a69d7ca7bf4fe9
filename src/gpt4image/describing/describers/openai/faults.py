"""What a failed call means: try again, wait first, give the image up, or stop the run."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from gpt4image.describing.describers.openai.untrusted import NotJsonError, mapping, parse_json, sequence

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
LONGEST_BELIEVED_S = 7 * 86_400.0
REDIRECT = "redirect"


class Verdict(Enum):
    """What to do about a failed call."""

    RETRY = "try again soon"
    LIMITED = "too many calls: slow down, then try again"
    OVERLOADED = "the server has too much to do: fewer at a time, then try again"
    LOST = "no response came: try again"
    FILTERED = "the server refuses this content: the image is done"
    GIVE_UP = "this image will not be answered"
    STOP = "no image will be answered"


@dataclass(frozen=True)
class Fault:
    """One failed call.

    Attributes:
        kind: short name for counting, e.g. ``429`` or ``timeout``.
        message: what the server wrote, or what happened; ``Client`` removes secrets from it and cuts it.
        retry_after: minimum wait in seconds; None where the server does not say.
        parameter: field of the request that the server does not accept.
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
    text = error.get("message", error.get("detail", ""))
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    text = text or content.decode("utf-8", errors="replace")
    verdict = _verdict(status, set(_codes(error)), text)
    wait = retry_after(headers, time.time())
    if (wait or 0.0) > LONGEST_WAIT_S and verdict in (Verdict.RETRY, Verdict.LIMITED, Verdict.OVERLOADED):
        verdict = Verdict.STOP
    parameter = _parameter_of(error, text) if status in (400, 403, 422) else None
    return Fault(str(status), verdict, f"HTTP {status}: {text.strip() or 'no explanation'}", wait, parameter)


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
    """Return the error object of a body in one of the shapes that servers use; empty where there is none."""
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
    """Return which of the parameters that not every model takes the server complains about."""
    named = error.get("param")
    if isinstance(named, str) and _PARAMETER.fullmatch(named.partition(".")[0]):
        return named.partition(".")[0]
    found = _STRUCTURE.search(text) or (_PARAMETER.search(text) if _UNSUPPORTED.search(text) else None)
    return None if found is None else "response_format" if found[0] == "json_schema" else found[0]


def no_response(error: BaseException, seconds: float) -> Fault:
    """Return the fault of a connection that could not be made, broke, or was silent for so many seconds."""
    from aiohttp import ClientConnectorError, ClientResponseError, ConnectionTimeoutError, SocketTimeoutError
    from aiohttp.http_exceptions import HttpProcessingError

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    unreachable = any(isinstance(cause, ClientConnectorError | ConnectionTimeoutError) for cause in causes)
    silent = any(isinstance(cause, SocketTimeoutError) for cause in causes)
    if type(error) is TimeoutError or (silent and not unreachable):
        return Fault("timeout", Verdict.LOST, f"no answer within {seconds:g} s")
    kind = "unreachable" if unreachable else "connection"
    # Their texts hold the address, with any secret of its query, or what the server sent, already cut.
    if isinstance(causes[-1], ClientResponseError | HttpProcessingError | ValueError):
        return Fault(kind, Verdict.LOST, f"the answer is not valid HTTP ({type(causes[-1]).__name__})")
    return Fault(kind, Verdict.LOST, str(causes[-1]) or type(causes[-1]).__name__)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date) ask to wait.

    A date is compared with that of the response; without one, with ``now``, by a clock that may differ. None where
    nothing is asked that a server means: less than no time, or more than a week.
    """
    text = headers.get("retry-after", "")
    milliseconds, seconds = _number(headers.get("retry-after-ms", "")), _number(text)
    if milliseconds is not None:
        seconds = milliseconds / 1000
    elif seconds is None and (until := _timestamp(text)) is not None:
        sent = _timestamp(headers.get("date", ""))
        seconds = until - (now if sent is None else sent)
    if seconds is None or seconds > LONGEST_BELIEVED_S:
        return None
    return max(0.0, seconds)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
