"""A chat completion with images: the body of a call, the answer that a response holds, and what a failed call means."""

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, cast

from gpt4image.artifacts.class_lists import readable
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer, Example, Request
from gpt4image.describing.describers.openai.server import MAX_NAME, MAX_TEXT, Server
from gpt4image.describing.prices import FREE, Price
from gpt4image.describing.questions import mark_of

_MOST_TOKENS = 10_000_000  # no model reads more: what is more is no count
NO_MONEY = re.compile(
    r"insufficient[_ ](?:quota|funds|balance|credits?)|billing_\w|account_deactivated|arrearage|credit balance", re.I
)
_FILTERED = re.compile(
    r"content_?(?:policy|filter)|responsibleaipolicy|moderation_blocked|data_inspection|input was flagged"
    r"|content management policy|safety system",
    re.I,
)
_UNSUPPORTED = re.compile(r"unsupported|not support|unrecognized|unknown|unavailable|extra|not permitted|param\"", re.I)
LONGEST_WAIT_S = 600.0
"""A longer wait stops the run: otherwise nobody would know why nothing happens."""
_MAY_BE_BILLED = (408, 504, 524)  # a gateway timed out, and the model may have answered


class Verdict(Enum):
    """What to do about a failed call."""

    RETRY = "try again soon"
    LIMITED = "too many calls: slow down, then try again"
    OVERLOADED = "the server has too much to do: fewer at a time, then try again"
    LOST = "no response came: try again"
    FILTERED = "the server refuses this content: the image is done"
    REJECTED = "this image will not be answered"
    STOP = "no image will be answered"


@dataclass(frozen=True)
class Fault:
    """One failed call."""

    kind: str  # short name for counting, e.g. ``429`` or ``timeout``
    verdict: Verdict
    message: str  # free of secrets
    wait: float = 0.0  # minimum wait that the server asks for, in seconds
    unsupported: str = ""  # what the server wrote, where it may say that it takes no such field
    doubtful: bool = False  # no answer came, and the server may bill the call all the same


def call_body(
    model: str, options: DescriberOptions, request: Request, pictures: Sequence[str], examples: Sequence[Example]
) -> dict[str, Any]:
    """Return the body of a call about data URLs of pictures: an image, frames of a clip, or the images of a sheet."""
    sheet = request.sheet
    fields: dict[str, Any] = {"model": model, "max_tokens": options.max_tokens * max(1, len(sheet))}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
    if request.schema is not None:
        form = {"name": "answer", "strict": True, "schema": request.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": form}
    about, parts = {request.digest, *(one.digest for one in sheet)}, list[str | tuple[str]]()  # texts, and (URL,)
    if examples:
        parts.append("Examples of the classes, labelled by people:")
        for example in examples:
            if example.digest not in about:
                parts += [(example.url,), f"Class: {readable(example.class_name)}"]
        parts.append("These were the examples.")
    for number, url in enumerate(pictures, start=1):
        parts += [f"Image {number} {mark_of(sheet[number - 1].digest)}:", (url,)] if sheet else [(url,)]
    detail = {} if options.detail == "auto" else {"detail": options.detail}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part[0], **detail}}
        for part in (*parts, request.question)
    ]
    messages: list[dict[str, Any]] = [{"role": "system", "content": options.system}] if options.system else []
    return {**fields, **options.extra_body, "messages": [*messages, {"role": "user", "content": content}]}


def read_json(content: bytes) -> Any:
    """Return the value of a JSON text; None where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def to_answer(request: Request, body: Any, raw: bytes, server: Server, price: Price | None, **others: Any) -> Answer:
    """Return the answer in the body of a successful response; without a text, an error that quotes it ``raw``.

    That a request or an answer took no tokens is not believed, and neither is a text beside an error.
    """
    text = reason = None
    for choice in map(_mapping, [] if _mapping(body).get("error") else _sequence(_mapping(body).get("choices"))):
        message, reason = _mapping(choice.get("message")), choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        if isinstance(refusal, str) and refusal:
            text, reason = refusal, "refusal"
        elif isinstance(text, list):
            text = "".join(str(part.get("text") or "") for part in map(_mapping, _sequence(text)))
        elif text is None and "role" in message:  # a reasoning model spent all tokens on thinking
            text = ""
        if isinstance(text, str) and reason != "error":
            break
        text = None
    usage = _mapping(_mapping(body).get("usage"))
    read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    cached = _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0
    known = price == FREE or (read is not None and written is not None)
    if text is None:
        others |= {
            "error": server.one_line(f"a success without an answer: {raw[:5000].decode(errors='replace')}"),
            "retry": True,
        }
    return Answer(
        request=request,
        text=None if text is None else server.shown(text),
        finish_reason="length" if len(text or "") > MAX_TEXT else server.shown(str(reason), MAX_NAME),
        tokens_in=read,
        tokens_out=written,
        cost_usd=price.of(read or 0, written or 0, cached) if price and known else None,
        unpriced=not known,
        **others,
    )


def filtered(request: Request, price: Price | None) -> Answer:
    """Return the answer to what a server refused to read: it says nothing, and costs nothing."""
    return Answer(request=request, text="", finish_reason="content_filter", cost_usd=None if price is None else 0.0)


def fault_of(status: int, headers: Mapping[str, str], content: bytes, server: Server) -> Fault:
    """Return what a response with an error status means."""
    text = content[:50_000].decode("utf-8", "replace")
    wait = retry_after(headers)
    if status in (400, 403) and _FILTERED.search(text):
        verdict = Verdict.FILTERED
    elif status in (401, 402, 403, 404) or (status in (400, 429) and NO_MONEY.search(text)) or wait > LONGEST_WAIT_S:
        verdict = Verdict.STOP
    elif status == 429:
        verdict = Verdict.LIMITED
    elif status in (503, 529):
        verdict = Verdict.OVERLOADED
    else:
        verdict = Verdict.REJECTED if 400 <= status < 500 and status not in (408, 409, 425) else Verdict.RETRY
    error = _mapping(read_json(content)).get("error")
    message = _mapping(error).get("message") or error or text.strip() or "no explanation"
    unsupported = text if status in (400, 422) and _UNSUPPORTED.search(text) else ""
    message = server.one_line(f"HTTP {status}: {message}")
    return Fault(str(status), verdict, message, wait, unsupported, doubtful=status in _MAY_BE_BILLED)


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date) ask to wait; else 0."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError, KeyError):
            return max(0.0, float(headers[name]) / unit)  # of NaN, 0
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return 0.0


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST_TOKENS else None


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
