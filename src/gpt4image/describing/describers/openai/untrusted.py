"""What a server sends is read here, within limits: bodies, lines of files, JSON, and texts that are shown or kept.

A server is trusted with the images and the key, and believed about tokens. It is not trusted to send little, to send
what it promised, or to keep the key out of its texts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from gpt4image.base.errors import DescriberError
from gpt4image.base.secrets import without

if TYPE_CHECKING:
    import httpx2

MAX_BODY = 16 * 2**20
"""Maximum bytes of an answer, decompressed, and of a line in a file of answers."""
MAX_ERROR = 2**20
"""Maximum bytes of the body of an error, decompressed."""
MAX_TEXT = 200_000
"""Maximum characters of a text that is kept."""
MAX_NAME = 100
"""Maximum characters of a name that the server gives, such as a finish reason."""
MAX_MESSAGE = 300
"""Maximum characters of an error message from a server."""
_DEEPEST = 100
_HOST = re.compile(r"(\[[\w:.%]+\]|[^:\[\]]*)(:\d*)?")
_MOST_DIGITS = 20


class TooLargeError(ValueError):
    """A server sends more than anybody asked for."""


class NotJsonError(ValueError):
    """What should be JSON is not, or is nothing that anybody sends on purpose."""


class RedirectedError(DescriberError):
    """A server asks to send the request, with the key and the image, to another address."""


async def read_async(response: httpx2.Response) -> bytes:
    """Return the decompressed body of a streamed response, and close it.

    Raises:
        RedirectedError: it is a redirect.
        TooLargeError: it is longer than MAX_BODY, or MAX_ERROR where the status is an error.
    """
    content = bytearray()
    try:
        require_direct(response)
        async with contextlib.aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                _add(content, part, response)
    finally:
        await response.aclose()
    return bytes(content)


def read(response: httpx2.Response) -> bytes:
    """Return the decompressed body of a streamed response; see ``read_async``."""
    content = bytearray()
    try:
        require_direct(response)
        for part in response.iter_bytes():
            _add(content, part, response)
    finally:
        response.close()
    return bytes(content)


def _add(content: bytearray, part: bytes, response: httpx2.Response) -> None:
    limit = MAX_BODY if response.is_success else MAX_ERROR
    if len(content) + len(part) > limit:
        raise TooLargeError(f"the answer is longer than {limit // 2**20} MB")
    content += part


def require_direct(response: httpx2.Response) -> None:
    """Raise RedirectedError for a redirect, and TooLargeError for a body that is compressed more than once.

    A few bytes that are compressed several times unpack to more than anybody can read.
    """
    if response.has_redirect_location:
        try:  # as it is spelt: a key in other letters would not be found
            host = urlsplit(response.headers["location"]).netloc.rpartition("@")[2]
        except ValueError:
            host = ":"
        if not _HOST.fullmatch(host):  # before the port may stand a login that holds a /
            host = "an invalid address"
        raise RedirectedError(
            f"HTTP {response.status_code}: redirected to {host or 'another path of the same server'}; requests with a "
            f"key or an image are not sent on"
        )
    if "," in response.headers.get("content-encoding", ""):
        raise TooLargeError("the answer is compressed more than once")


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

    Invalid UTF-8 becomes U+FFFD; NaN and numbers of too many digits become None. So an answer that was paid for is not
    lost for a detail that nobody reads.

    Raises:
        NotJsonError: it is no JSON, or nested deeper than 100 levels.
    """
    try:
        value = _DECODER.decode(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise NotJsonError("no JSON") from None
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        children = [child for parent in level for child in (*mapping(parent).values(), *sequence(parent))]
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return value
    raise NotJsonError("JSON that is nested too deeply")


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one where ``value`` is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a JSON array; an empty one where ``value`` is something else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


_DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else None, parse_constant=lambda name: None
)


def redacted(text: str, secrets: Iterable[str], limit: int) -> str:
    """Return at most ``limit`` characters of ``text``; secrets are removed before it is cut."""
    text = without(text, secrets)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: object, secrets: Iterable[str] = (), *, limit: int = MAX_MESSAGE) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, without any of ``secrets``."""
    shown = redacted(str(text), secrets, 20 * limit)
    line = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
    return redacted(line, (), limit)
