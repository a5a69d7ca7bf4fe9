"""A proxy in front of a chat completions server that injects faults by script, and counts what was asked and paid.

    with FaultProxy(upstream_url, script) as proxy:
        ...  # the client speaks to proxy.url

``script`` gets the number of the call about its image (0, 1, ...) and the image, and returns the name of one of FAULTS,
or None where the call goes through. Works in front of any server: the stub of the fast tests, or `transformers serve`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from time import time
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

REFUSAL = "I'm sorry, but I can't assist with that request."
Script = Callable[[int, bytes], str | None]


@dataclass(frozen=True)
class Message:
    """One HTTP message: its first line and headers as they came, and the whole body."""

    head: bytes
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Call:
    """One request on its way through the proxy; what a fault has to work with."""

    def __init__(
        self, proxy: FaultProxy, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.request = request
        self.reader = reader
        self.writer = writer

    @property
    def key(self) -> str:
        """The secret that the client sent: nasty servers send it back."""
        return self.request.headers.get("authorization", "").removeprefix("Bearer ")

    async def forward(self) -> Message:
        """Ask the real server. From here on the call is paid for."""
        image = image_of(self.request.body)
        if image is not None:
            self.proxy.paid[image] += 1
        reader, writer = await asyncio.open_connection(self.proxy.upstream.hostname, self.proxy.upstream.port)
        try:
            writer.write(_with_header(self.request.head, "connection", "close") + self.request.body)
            await writer.drain()
            answer = await _read_message(reader)
        finally:
            writer.close()
        if answer is None:
            raise ConnectionError("the upstream server closed the connection")
        return answer

    async def forward_completion(self) -> dict[str, Any]:
        """Ask the real server for a completion and return it as an object to be spoilt."""
        return json.loads((await self.forward()).body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def respond(self, status: int, payload: bytes, kind: str = "application/json", **headers: str) -> None:
        await self.send(response_head(status, len(payload), kind, **headers) + payload)

    async def client_leaves(self, within_s: float | None = None) -> bool:
        """Wait until the client has closed the connection, at most so long; return whether it has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        return False

    def reset(self) -> None:
        """End the connection with RST, as a crashed server does."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class FaultProxy:
    """Runs in a thread of its own, on a port of its own. Use as a context manager.

    Attributes:
        calls: calls about each image (its bytes), whatever came of them.
        paid: calls about each image that the real server was asked.
        most_in_flight: most calls that were open at once.
    """

    def __init__(self, upstream: str, script: Script = lambda number, image: None) -> None:
        self.upstream = urlsplit(upstream)
        self.script = script
        self.calls: Counter[bytes] = Counter()
        self.paid: Counter[bytes] = Counter()
        self.faults: defaultdict[bytes, list[str]] = defaultdict(list)
        self.most_in_flight = 0
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                while (request := await _read_message(reader)) is not None:
                    await self._answer(Call(self, request, reader, writer))
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, call: Call) -> None:
        image = image_of(call.request.body)
        name = None
        if image is not None:
            name = self.script(self.calls[image], image)
            self.calls[image] += 1
            self.faults[image] += [name] if name else []
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            await (FAULTS[name].inject if name else _pass)(call)
        finally:
            self._in_flight -= 1


def image_of(body: bytes) -> bytes | None:
    """Return the bytes of the image in a request; None where there is none."""
    start = body.find(b";base64,")
    return base64.b64decode(body[start + 8 : body.find(b'"', start)], validate=True) if start >= 0 else None


def response_head(status: int, length: int, kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in _KNOWN else 'Overloaded'}"]
    lines += [f"content-type: {kind}", f"content-length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


_KNOWN = frozenset(status.value for status in HTTPStatus)


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def _with_header(head: bytes, name: str, value: str) -> bytes:
    """Return the head of a message with one header replaced."""
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(name.encode() + b":")]
    return b"\r\n".join([first, *kept, f"{name}: {value}".encode(), b"", b""])


async def _read_message(reader: asyncio.StreamReader) -> Message | None:
    """Read a message to its end: by length, by chunks, or, for answers without either, to the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = Message(head, b"").headers
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int((await reader.readline()).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
            return Message(head, body)
        if "content-length" in headers:
            return Message(head, await reader.readexactly(int(headers["content-length"])))
        return Message(head, await reader.read() if head.startswith(b"HTTP/") else b"")
    except asyncio.IncompleteReadError:
        return None


async def _pass(call: Call) -> None:
    answer = await call.forward()
    await call.respond(int(answer.head.split()[1]), answer.body, answer.headers.get("content-type", "text/plain"))


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and what a client should make of it.

    Attributes:
        inject: does it.
        fate: ``passes`` where the next try may find it gone; ``image`` where it is about this image, and asking again
            is of no use; ``answer`` where the model spoke, but gave no description, or a filter kept it back;
            ``stops`` where every call would meet it.
    """

    inject: Callable[[Call], Awaitable[None]]
    fate: Literal["passes", "image", "answer", "stops"] = "passes"


def _status(
    status: int, kind: str, code: str | None = None, fate: Any = "passes", **headers: Callable[[], str]
) -> Fault:
    async def inject(call: Call) -> None:
        # The key comes back in the message, as OpenAI does with wrong ones.
        payload = error_body(f"{code or kind}, says the server to {call.key}.\nA second line.", kind, code)
        await call.respond(status, payload, **{name: value() for name, value in headers.items()})

    return Fault(inject, fate)


async def _hang(call: Call) -> None:
    await call.client_leaves()


async def _reset_at_once(call: Call) -> None:
    call.reset()


async def _reset_after_headers(call: Call) -> None:
    answer = await call.forward()
    await call.send(response_head(200, len(answer.body)))
    call.reset()


async def _reset_in_body(call: Call) -> None:
    answer = await call.forward()
    await call.send(response_head(200, len(answer.body)) + answer.body[: len(answer.body) // 2])
    await asyncio.sleep(0.01)  # so that the half arrives before the reset
    call.reset()


async def _truncated_json(call: Call) -> None:
    answer = await call.forward()
    await call.respond(200, answer.body[: len(answer.body) // 2])


async def _other_json(call: Call) -> None:
    await call.forward()
    await call.respond(200, json.dumps({"status": "ok", "choices": "none", "seen": call.key}).encode())


async def _list_json(call: Call) -> None:
    await call.forward()
    await call.respond(200, b"[1, 2, 3]")


async def _empty_choices(call: Call) -> None:
    await call.respond(200, json.dumps({**await call.forward_completion(), "choices": []}).encode())


def _says(content: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Fault:
    async def inject(call: Call) -> None:
        completion = await call.forward_completion()
        message = {"role": "assistant", "content": content, "refusal": refusal}
        completion["choices"] = [{"index": 0, "message": message, "finish_reason": finish_reason}]
        await call.respond(200, json.dumps(completion).encode())

    return Fault(inject, "answer")


def _html(status: int) -> Fault:
    async def inject(call: Call) -> None:
        page = f"<!doctype html><html><title>Bad gateway</title><p>{call.key}</p><script>alert(1)</script></html>"
        await call.respond(status, page.encode(), "text/html; charset=utf-8")

    return Fault(inject)


async def _empty_body(call: Call) -> None:
    await call.respond(200, b"")


async def _drip(call: Call) -> None:
    """Send one byte at a time, so slowly that no read times out and the answer never ends."""
    answer = await call.forward()
    await call.send(response_head(200, len(answer.body)))
    for byte in answer.body:
        await call.send(bytes([byte]))
        if await call.client_leaves(within_s=0.1):
            return


_BUSY = (429, "requests", "rate_limit_exceeded")
FAULTS: Mapping[str, Fault] = {
    "429": _status(*_BUSY),
    "429 retry-after seconds": _status(*_BUSY, retry_after=lambda: "1"),
    "429 retry-after-ms": _status(*_BUSY, retry_after_ms=lambda: "200"),
    "429 retry-after date": _status(*_BUSY, retry_after=lambda: formatdate(time() + 1, usegmt=True)),
    "408": _status(408, "timeout"),
    "500": _status(500, "server_error"),
    "502": _status(502, "server_error"),
    "503": _status(503, "overloaded"),
    "529": _status(529, "overloaded"),
    "html 502": _html(502),
    "html 200": _html(200),
    "hang": Fault(_hang),
    "drip": Fault(_drip),
    "reset": Fault(_reset_at_once),
    "reset after headers": Fault(_reset_after_headers),
    "reset in body": Fault(_reset_in_body),
    "truncated json": Fault(_truncated_json),
    "other json": Fault(_other_json),
    "list json": Fault(_list_json),
    "empty body": Fault(_empty_body),
    "empty choices": Fault(_empty_choices),
    "content filter 400": _status(400, "invalid_request_error", "content_filter", "answer"),
    "bad image 400": _status(400, "invalid_request_error", "image_parse_error", "image"),
    "too large 413": _status(413, "invalid_request_error", "request_too_large", "image"),
    "refusal": _says(REFUSAL),
    "refusal field": _says(None, refusal=REFUSAL),
    "content filter": _says("", "content_filter"),
    "no text": _says(None),
    "no quota": _status(429, "insufficient_quota", "insufficient_quota", "stops"),
    "wrong key": _status(401, "invalid_request_error", "invalid_api_key", "stops"),
    "forbidden": _status(403, "permission_error", "forbidden", "stops"),
    "no such model": _status(404, "invalid_request_error", "model_not_found", "stops"),
}
