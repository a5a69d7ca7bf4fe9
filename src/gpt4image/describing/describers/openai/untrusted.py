"""What a server sends is read here, within limits: bodies, lines of files, JSON, and texts that are shown or kept.

A server is trusted with the images and the key, and believed about tokens. It is not trusted to send little, to send
what it promised, or to keep the key out of what it says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from gpt4image.base.errors import DescriberError

if TYPE_CHECKING:
    import httpx2

MAX_BODY = 16 * 2**20
"""Most bytes of an answer, decompressed, and of a line in a file of answers."""
MAX_ERROR = 2**20
"""Most bytes of the body of an error, decompressed."""
MAX_TEXT = 200_000
"""Most characters of a text that is kept."""
MAX_NAME = 100
"""Most characters of a name that the server gives, such as a finish reason."""
MAX_MESSAGE = 300
"""Most characters of what a server says about an error."""
_DEEPEST = 100
_MOST_DIGITS = 20


class TooLargeError(ValueError):
    """A server sends more than anybody asked for."""


class NotJsonError(ValueError):
    """What should be JSON is not, or nothing that anybody sends on purpose."""


class RedirectedError(DescriberError):
    """A server asks to send the request, with the key and the image, to another address."""


async def read_async(response: httpx2.Response) -> bytes:
    """Return the decompressed body of a streamed response; the connection is closed where that is too large.

    Raises:
        RedirectedError: it is a redirect.
        TooLargeError: it is longer than MAX_BODY, or MAX_ERROR where the status is an error.
    """
    body = _Body(response)
    try:
        require_direct(response)
        async with contextlib.aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                body.add(part)
    finally:
        await response.aclose()
    return bytes(body.content)


def read(response: httpx2.Response) -> bytes:
    """Return the decompressed body of a streamed response; see ``read_async``."""
    body = _Body(response)
    try:
        require_direct(response)
        for part in response.iter_bytes():
            body.add(part)
    finally:
        response.close()
    return bytes(body.content)


def require_direct(response: httpx2.Response) -> None:
    """Raise RedirectedError for a redirect, and TooLargeError for a body that is compressed more than once.

    A few bytes that are compressed several times unpack to more than anybody can read.
    """
    if response.has_redirect_location:
        raise RedirectedError(
            f"HTTP {response.status_code}: redirected to {_host(response.headers['location'])}; requests with a key or "
            f"an image are not sent on"
        )
    if "," in response.headers.get("content-encoding", ""):
        raise TooLargeError("the answer is compressed more than once")


class _Body:
    """Parts of a body, as long as they are not too many bytes."""

    def __init__(self, response: httpx2.Response) -> None:
        self.content = bytearray()
        self._limit = MAX_BODY if response.is_success else MAX_ERROR

    def add(self, part: bytes) -> None:
        if len(self.content) + len(part) > self._limit:
            raise TooLargeError(f"the answer is longer than {self._limit // 2**20} MB")
        self.content += part


def _host(location: str) -> str:
    """Return the host that an address names, as it is spelt: a key in other letters would not be found."""
    try:
        return urlsplit(location).netloc.rpartition("@")[2] or "another path of the same server"
    except ValueError:
        return "an address that is none"


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file from its start, without blank ones; a line longer than MAX_BODY is cut there."""
    file.seek(0)
    while line := file.readline(MAX_BODY):
        end = line
        while len(end) == MAX_BODY and not end.endswith(b"\n"):
            end = file.readline(MAX_BODY)
        if line.strip():
            yield line if end is line or not end.endswith(b"\n") else line + b"\n"


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text.

    Bytes that are no UTF-8 become U+FFFD; what is no number in JSON (NaN) or has too many digits becomes None. So an
    answer that was paid for is not lost for a detail that nobody reads.

    Raises:
        NotJsonError: it is no JSON, or nested deeper than 100 levels.
    """
    try:
        value = _DECODER.decode(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise NotJsonError("no JSON") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return value
    raise NotJsonError("JSON that is nested too deeply")


def _children(parent: Any) -> Iterator[Any]:
    values = parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ()
    return (value for value in values if isinstance(value, dict | list))


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=lambda name: None)


def redacted(text: str, secrets: Iterable[str], limit: int) -> str:
    """Return at most ``limit`` characters of ``text``; secrets are removed before it is cut, not one half of them."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str, secrets: Iterable[str] = (), *, limit: int = MAX_MESSAGE) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, without any of ``secrets``."""
    text = redacted(text, secrets, 20 * limit)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return redacted(line, (), limit)
