"""An OpenAI-compatible server: where it is, the official client for it, and what it sends, read within limits.

A server is trusted with the images and the key, and believed about tokens. It is not trusted to send little, to send
what it promised, or to keep the key out of its texts.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.base.secrets import NO_SECRETS, hide_in_logs, without

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"


class Provider(NamedTuple):
    """A service that speaks OpenAI's protocol: address, environment variable with its key, and one of its models."""

    title: str
    url: str
    key: str
    model: str
    needs_key: bool = True


PROVIDERS = {
    "openai": Provider("OpenAI", OPENAI_URL, "OPENAI_API_KEY", "gpt-4.1-mini"),
    "anthropic": Provider("Anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "claude-haiku-4-5"),
    "gemini": Provider(
        "Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "gemini-2.5-flash"
    ),
    "ollama": Provider("Ollama", "http://localhost:11434/v1", "OLLAMA_API_KEY", "qwen2.5vl:3b", needs_key=False),
}
"""By the first word of a describer's SPEC."""
MAX_BODY, MAX_ERROR = 16 * 2**20, 2**20
"""Maximum bytes, decompressed, of an answer or a line in a file of answers, and of the body of an error."""
MAX_TEXT, MAX_NAME, MAX_MESSAGE = 200_000, 100, 300
"""Maximum characters of a text that is kept, of a name (such as a finish reason), and of an error message."""
_DEEPEST, _MOST_DIGITS = 100, 20
_HOST = re.compile(r"(\[[\w:.%]+\]|[^:\[\]]*)(:\d*)?")
# What is shorter is no key, and would blot words out of the server's texts.
_SHORTEST_SECRET = 6
# Letters only may be a word of a description, unless there are more of them than words have.
_LONGEST_WORD = 20
_OF_THE_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


class TooLargeError(ValueError):
    """A server sends more than anybody asked for."""


class NotJsonError(ValueError):
    """What should be JSON is not, or is nothing that anybody sends on purpose."""


class RedirectedError(DescriberError):
    """A server asks to send the request, with the key and the image, to another address."""


@dataclass(frozen=True)
class Server:
    """Where the model is and how to get in."""

    url: str  # without secrets
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key: str
    secrets: tuple[str, ...]  # may not appear anywhere; the longest is first
    key_name: str  # the variable that the key was read from

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of the secrets that are no words: what the model writes may not hold them either."""
        return tuple(
            secret
            for secret in self.secrets
            if len(secret) >= _SHORTEST_SECRET and not (secret.isalpha() and len(secret) <= _LONGEST_WORD)
        )

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own address."""
        return f".{urlsplit(self.url).hostname}".endswith(".api.openai.com")

    @property
    def is_private(self) -> bool:
        """Whether this is an address of this machine or the network around it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_private
        except ValueError:
            return "." not in host or host.endswith((".localhost", ".local", ".internal"))

    def credentials(self) -> dict[str, Any]:
        """Return arguments of the official client; its own retries are off."""
        headers = {"default_query": dict(self.query), "default_headers": dict(self.headers)}
        return {"api_key": self.key, "base_url": self.url, "max_retries": 0, **headers}

    def one_line(self, text: object) -> str:
        """Return an error text, short and free of secrets."""
        shown = redacted(str(text), self.secrets, 20 * MAX_MESSAGE)
        return redacted(" ".join("".join(c if c.isprintable() else " " for c in shown).split()), (), MAX_MESSAGE)


def find_server(base_url: str | None, kind: str = "openai") -> Server:
    """Return the server of ``base_url``, or of OPENAI_BASE_URL for ``openai``, or of PROVIDERS. Raises ConfigError."""
    provider = PROVIDERS[kind]
    hide_in_logs("httpx2", "openai._base_client")  # they write whole addresses
    in_place = os.environ.get("OPENAI_BASE_URL", "").strip() if kind == "openai" else ""
    given = base_url or in_place or provider.url
    try:
        parts = urlsplit(given.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        shown = given.rpartition("@")[2].partition("?")[0]
        raise ConfigError(f"--base-url {shown}: write the whole address, e.g. http://localhost:8000/v1.")
    name = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    key = os.environ.get(provider.key, "").strip()
    if not key.isascii():
        raise ConfigError(
            f"{provider.key} holds characters that no key has (a quotation mark, or ...?); copy it again."
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    login = b64encode(f"{user}:{password}".encode()).decode() if user or password else ""
    secrets = {key, password, parts.password or "", login, *query_secrets(given)}
    secrets |= {user, parts.username or ""} if len(user) >= _SHORTEST_SECRET else set()
    server = Server(
        url=url,
        query=dict(parse_qsl(parts.query)),
        headers={"Authorization": f"Basic {login}"} if login else {},
        key=key or "none",
        secrets=tuple(sorted(secrets - {""}, key=len, reverse=True)),
        key_name=provider.key,
    )
    if not key and (server.is_openai or (provider.needs_key and server.url == provider.url)):
        raise ConfigError(
            f"{provider.key} is not set: put your {provider.title} key there, or give --base-url of another server."
        )
    return server


def query_secrets(address: str) -> set[str]:
    """Return the values in the query of an address that may be keys, in each spelling in which they may come back."""
    found: set[str] = set()
    for pair in address.partition("?")[2].partition("#")[0].split("&"):
        name, _, value = pair.partition("=")
        text = unquote_plus(value or name)
        if len(text) >= _SHORTEST_SECRET and not name.lower().endswith(NO_SECRETS):
            found |= {value or name, text, quote(text, safe=""), quote_plus(text)}
    return found


def blocking_client(server: Server, timeout: float) -> openai.OpenAI:
    """Return the official client for whatever is not a chat completion.

    It follows no redirect, and holds bodies to MAX_BODY except those that are asked for as streams.
    """
    import httpx2
    from openai import DefaultHttpxClient, OpenAI

    class Limited(DefaultHttpxClient):
        def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
            options["follow_redirects"] = False
            response = super().send(request, stream=True, **options)
            try:
                require_direct(response)
                if stream and response.is_success:
                    return response
                content = bytearray()
                for part in response.iter_bytes():
                    add_part(content, part, response)
            except BaseException:
                response.close()
                raise
            response.close()
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_TRANSFER]
            return httpx2.Response(response.status_code, headers=headers, content=bytes(content), request=request)

    return OpenAI(**server.credentials(), timeout=timeout, http_client=Limited(timeout=timeout))


async def read_async(response: httpx2.Response) -> bytes:
    """Return the decompressed body of a streamed response, and close it. Raises RedirectedError, TooLargeError."""
    content = bytearray()
    try:
        require_direct(response)
        async with contextlib.aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                add_part(content, part, response)
    finally:
        await response.aclose()
    return bytes(content)


def add_part(content: bytearray, part: bytes, response: httpx2.Response) -> None:
    """Add a part of a body. Raises TooLargeError."""
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


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text. Raises NotJsonError, also where it is nested deeper than 100 levels.

    Invalid UTF-8 becomes U+FFFD; NaN and numbers of too many digits become None. So an answer that was paid for is not
    lost for a detail that nobody reads.
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


_DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else None, parse_constant=lambda name: None
)


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one where ``value`` is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a JSON array; an empty one where ``value`` is something else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def redacted(text: str, secrets: Iterable[str], limit: int) -> str:
    """Return at most ``limit`` characters of ``text``; secrets are removed before it is cut."""
    text = without(text, secrets)
    return text if len(text) <= limit else text[: limit - 1] + "…"
