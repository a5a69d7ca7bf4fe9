"""An OpenAI-compatible server: its address and key, the official client for it, and the border to what it sends.

A server is trusted with the images and the key, and believed about tokens. What it sends is bounded, is never
redirected, and is freed of the key.
"""

from __future__ import annotations

import ipaddress
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.base.secrets import NO_SECRETS, hide_in_logs, without

if TYPE_CHECKING:
    import httpx2

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
MAX_BODY, MAX_FILE = 16 * 2**20, 4 * 2**30
"""Maximum bytes of a response, and of a file of answers."""
MAX_TEXT, MAX_NAME, MAX_MESSAGE = 200_000, 100, 300
"""Maximum characters of a text that is kept, of a name (such as a finish reason), and of an error message."""
_SHORTEST_SECRET, _LONGEST_WORD = 6, 20


class BorderError(DescriberError):
    """A server sends what is not taken from any; ``paid`` where the call had succeeded by then."""

    def __init__(self, message: str, *, paid: bool = False) -> None:
        super().__init__(message)
        self.paid = paid


@dataclass(frozen=True)
class Server:
    """Where the model is and how to get in."""

    url: str  # without secrets
    key: str
    key_name: str  # the variable that the key was read from
    query: Mapping[str, str]
    headers: Mapping[str, str]
    secrets: tuple[str, ...]  # the longest first

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

    @property
    def client_options(self) -> dict[str, Any]:
        """Arguments of the official clients. Retries are off: what may be billed is counted before it is sent."""
        headers = {"Accept-Encoding": "identity", **self.headers}
        given = {"default_query": dict(self.query), "default_headers": headers, "max_retries": 0}
        return {"api_key": self.key, "base_url": self.url, **given}

    def shown(self, text: str, limit: int = MAX_TEXT) -> str:
        """Return a text of the server without secrets, which go before it is cut."""
        found = without(text, self.secrets)
        return found if len(found) <= limit else found[: limit - 1] + "…"

    def one_line(self, error: object) -> str:
        """Return an error text, short and free of secrets."""
        text = "".join(c if c.isprintable() else " " for c in self.shown(str(error), 20 * MAX_MESSAGE))
        return self.shown(" ".join(text.split()), MAX_MESSAGE)


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
    query = dict(parse_qsl(parts.query))
    # A key of local servers may be a word ("EMPTY"), which would be blotted out of descriptions.
    is_word = key.isalpha() and len(key) <= _LONGEST_WORD
    secrets = {password, login, user, "" if is_word else key}
    secrets |= {value for name, value in query.items() if not name.lower().endswith(NO_SECRETS)}
    server = Server(
        url=url,
        key=key or "none",
        key_name=provider.key,
        query=query,
        headers={"Authorization": f"Basic {login}"} if login else {},
        secrets=tuple(sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)),
    )
    if not key and (server.is_openai or (provider.needs_key and server.url == provider.url)):
        raise ConfigError(
            f"{provider.key} is not set: put your {provider.title} key there, or give --base-url of another server."
        )
    return server


def http_options(*, is_async: bool) -> dict[str, Any]:
    """Return arguments of an HTTP client that make it the border: no redirect, nothing packed, nothing endless."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream, httpx2.SyncByteStream):
        def __init__(self, response: httpx2.Response) -> None:
            self._whole: Any = response.stream
            self._left = MAX_FILE if response.request.url.path.endswith("/content") else MAX_BODY
            self._paid = response.is_success

        def _take(self, part: bytes) -> bytes:
            self._left -= len(part)
            if self._left < 0:
                raise BorderError("the answer is too long", paid=self._paid)
            return part

        def __iter__(self) -> Iterator[bytes]:
            return map(self._take, self._whole)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for part in self._whole:
                yield self._take(part)

        def close(self) -> None:
            self._whole.close()

        async def aclose(self) -> None:
            await self._whole.aclose()

    def guard(response: httpx2.Response) -> None:
        _require_plain(response)
        response.stream = Bounded(response)

    async def guard_async(response: httpx2.Response) -> None:
        guard(response)

    return {"follow_redirects": False, "event_hooks": {"response": [guard_async if is_async else guard]}}


def _require_plain(response: httpx2.Response) -> None:
    if response.is_redirect:
        raise BorderError(f"HTTP {response.status_code}: it redirects, and a key or an image is not sent on")
    if response.headers.get("content-encoding", "identity") != "identity":  # a few bytes may unpack to gigabytes
        raise BorderError("the answer is compressed, which was not asked for", paid=response.is_success)
