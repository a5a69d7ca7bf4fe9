"""An OpenAI-compatible server: where it is, and one call to it through the official client, as an answer or a fault."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

from gpt4image.base.errors import ConfigError
from gpt4image.base.secrets import NO_SECRETS, hide_in_logs
from gpt4image.describing.describers.openai.completions import Completion, completion_of
from gpt4image.describing.describers.openai.faults import REDIRECT, Fault, Verdict, fault_of_response, no_response
from gpt4image.describing.describers.openai.untrusted import (
    NotJsonError,
    RedirectedError,
    TooLargeError,
    one_line,
    parse_json,
    read,
    read_async,
    require_direct,
)

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"
_CONNECT_S = 10.0
# What is shorter is no key, and would blot words out of the server's texts.
_SHORTEST_SECRET = 6
# Letters only may be a word of a description, unless there are more of them than words have.
_LONGEST_WORD = 20
_OF_THE_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Server:
    """Where the model is and how to get in: base URL without secrets, parameters and headers of every call, API key.

    ``secrets`` may not appear anywhere; the longest is first.
    """

    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key: str
    secrets: tuple[str, ...]

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
        host = urlsplit(self.url).hostname or ""
        return host == "api.openai.com" or host.endswith(".api.openai.com")

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


def find_server(base_url: str | None) -> Server:
    """Return the server of ``base_url``, else of OPENAI_BASE_URL, else OpenAI; the key is read from OPENAI_API_KEY.

    Raises:
        ConfigError: the address is invalid, or OpenAI is asked without a key.
    """
    hide_in_logs("httpx2", "openai._base_client")  # they write whole addresses
    given = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL
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
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key.isascii():
        raise ConfigError("OPENAI_API_KEY holds characters that no key has (a quotation mark, or ...?); copy it again.")
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
    )
    if server.is_openai and not key:
        raise ConfigError("OPENAI_API_KEY is not set: put your OpenAI key there, or give --base-url of another server.")
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


@dataclass(frozen=True)
class Reply:
    """What came back: a completion, and the fault where it is of no use; both where it is malformed but paid for."""

    completion: Completion
    fault: Fault | None = None


class Client:
    """Sends bodies and reads answers through the connections of the official client, with its headers.

    Its ``post`` is not used: copying options and building models would take half as much time again for each call, and
    retries are counted elsewhere.
    """

    def __init__(self, server: Server, timeout: float, concurrency: int) -> None:
        self._server = server
        self._timeout = timeout
        self._concurrency = concurrency

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Open as many connections as there are calls, and close them at the end."""
        import httpx2
        from openai import AsyncOpenAI, DefaultAioHttpClient

        # Over aiohttp, which the client offers as a transport, a call takes half the CPU time.
        self._http = DefaultAioHttpClient(limits=httpx2.Limits(max_connections=self._concurrency))
        async with AsyncOpenAI(**self._server.credentials(), http_client=self._http) as client:
            headers = {**client.auth_headers, **client.default_headers}
            timeout = httpx2.Timeout(self._timeout, connect=min(_CONNECT_S, self._timeout))
            self._call: dict[str, Any] = {
                "method": "POST",
                "url": httpx2.URL(f"{self._server.url}/chat/completions", params=self._server.query or None),
                "headers": httpx2.Headers({name: text for name, text in headers.items() if isinstance(text, str)}),
                "extensions": {"timeout": timeout.as_dict()},
            }
            yield

    async def ask(self, body: bytes) -> Reply:
        """Send a request and wait for the whole answer until the timeout, however slowly it arrives.

        What comes back is free of secrets and no longer than the limits of ``untrusted``.
        """
        import aiohttp
        import httpx2

        response, completion = None, Completion()
        try:
            async with asyncio.timeout(self._timeout):
                request = httpx2.Request(**self._call, content=body)
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    content = await read_async(response)
                except TooLargeError as error:
                    content = str(error).encode()
            completion, fault = self._read(response, content)
        except RedirectedError as error:
            fault = Fault(REDIRECT, Verdict.STOP, str(error))
        except (OSError, httpx2.RequestError, httpx2.InvalidURL, aiohttp.ClientError, ValueError, EOFError) as error:
            # Also where the answer is no HTTP, or a body that cannot be decompressed.
            fault = no_response(error, self._timeout)
            fault = replace(fault, paid=response is not None and response.is_success)
        if fault is not None:
            fault = replace(fault, message=one_line(fault.message, self._server.secrets))
        return Reply(completion, fault)

    def _read(self, response: httpx2.Response, content: bytes) -> tuple[Completion, Fault | None]:
        if not response.is_success:
            return Completion(), fault_of_response(response.status_code, response.headers, content)
        try:
            value = parse_json(content)
        except NotJsonError:
            value = None
        completion = completion_of(value, self._server.keys)
        if completion.choices:
            return completion, None
        text = content.decode("utf-8", errors="replace") or "nothing"
        what = f"status {response.status_code} without an answer: {text}"
        return completion, Fault("malformed", Verdict.RETRY, what, paid=True)


def blocking_client(server: Server, timeout: float) -> openai.OpenAI:
    """Return the official client for whatever is not a chat completion.

    It follows no redirect, and holds bodies to the limits of ``untrusted`` except those that are asked for as streams.
    """
    import httpx2
    from openai import DefaultHttpxClient, OpenAI

    class Limited(DefaultHttpxClient):
        def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
            options["follow_redirects"] = False
            response = super().send(request, stream=True, **options)
            if stream and response.is_success:
                try:
                    require_direct(response)
                except ValueError:
                    response.close()
                    raise
                return response
            content = read(response)
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_TRANSFER]
            return httpx2.Response(response.status_code, headers=headers, content=content, request=request)

    return OpenAI(**server.credentials(), timeout=timeout, http_client=Limited(timeout=timeout))
