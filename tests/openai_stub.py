"""A small server for tests: one function from call to reply, on a free port of this machine; replies as OpenAI's.

with serve(lambda call: answer("a red square")) as stub:
    ...  # stub.url is the base URL; stub.calls, stub.most_in_flight
"""

import asyncio
import base64
import contextlib
import io
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Call:
    """One request, with its number from 0 on."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @cached_property
    def body(self) -> dict[str, Any]:
        return json.loads(self.content)

    @cached_property
    def images(self) -> list[bytes]:
        return [base64.b64decode(data) for data in re.findall(rb';base64,([^"]*)"', self.content)]

    @property
    def image(self) -> bytes:
        """The image that is asked about; empty where there is none."""
        return self.images[0] if self.images else b""

    @property
    def pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(image)).convert("RGB") for image in self.images]


@dataclass(frozen=True)
class Reply:
    """What goes back after ``delay`` seconds.

    Attributes:
        cut: the connection is closed after so many bytes of it.
        reset: it is not closed but reset, as by a server that crashes.
        drip: seconds between its bytes.
    """

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None
    reset: bool = False
    drip: float = 0.0

    @property
    def head(self) -> bytes:
        headers = {"content-type": "application/json", "content-length": str(len(self.content)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


Handler = Callable[[Call], Reply]


def completion(*texts: str | None, finish: str = "stop", tokens: tuple[int, int] = (100, 10)) -> dict[str, Any]:
    """The body of a chat completion with one choice per text."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {"object": "chat.completion", "choices": choices, "usage": usage}


def answer(*texts: str | None, delay: float = 0.0, **others: Any) -> Reply:
    return json_reply(completion(*texts, **others), delay=delay)


def json_reply(value: Any, status: int = 200, delay: float = 0.0, **headers: str) -> Reply:
    """Any JSON; underscores in header names become dashes."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), named, delay)


def failure(status: int, message: str = "no", code: str | None = None, delay: float = 0.0, **headers: str) -> Reply:
    """An error in OpenAI's shape."""
    return json_reply({"error": {"message": message, "code": code, "type": None}}, status, delay, **headers)


class Stub:
    """The server's side of a test."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.calls: list[Call] = []
        self.most_in_flight = 0
        self.transports: set[asyncio.Transport] = set()
        self.waiting: set[asyncio.Transport] = set()
        self.mistakes: list[Exception] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count(self) -> int:
        return len(self.calls)

    def received(self, head: bytes, content: bytes) -> Reply:
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in rest)}
        method, path, _ = first.split(" ")
        self.calls.append(call := Call(self.count, method, path, headers, content))
        self.most_in_flight = max(self.most_in_flight, len(self.waiting))
        try:
            return self.handler(call)
        except (AssertionError, LookupError, OSError, TypeError, ValueError) as error:  # a mistake of the test
            self.mistakes.append(error)
            return failure(400, repr(error))


class _Connection(asyncio.Protocol):
    def __init__(self, stub: Stub) -> None:
        self.stub, self.parts, self.missing = stub, list[bytes](), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.stub.transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stub.transports.discard(self.transport)
        self.stub.waiting.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return
        whole = b"".join(self.parts)
        head, blank, content = whole.partition(b"\r\n\r\n")
        lengths = (line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        self.missing = int(next(lengths, 0)) - len(content) if blank else 1
        self.parts = [whole]
        if blank and self.missing <= 0:
            self.parts, self.missing = [], 0
            self.stub.waiting.add(self.transport)
            reply = self.stub.received(head, content)
            asyncio.get_running_loop().call_later(reply.delay, self.send, reply)

    def send(self, reply: Reply) -> None:
        data = (reply.head + reply.content)[: reply.cut]
        if reply.drip:
            self.drip(data, reply.drip)
            return
        self.stub.waiting.discard(self.transport)
        self.transport.write(data)
        if reply.reset:
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            asyncio.get_running_loop().call_later(0.01, self.transport.abort)  # so that what was sent arrives first
        elif reply.cut is not None:
            self.transport.close()

    def drip(self, data: bytes, seconds: float) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data[:1])
            asyncio.get_running_loop().call_later(seconds, self.drip, data[1:], seconds)


@contextlib.contextmanager
def serve(handler: Handler) -> Iterator[Stub]:
    """Run the server in a thread until the block ends; a mistake of the handler fails the test."""
    stub = Stub(handler)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(stub), "127.0.0.1", 0, backlog=1024))
    stub.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(lambda: [transport.abort() for transport in stub.transports])
        loop.call_soon_threadsafe(loop.call_later, 0.01, loop.stop)
        thread.join(5)
        loop.close()
    assert not stub.mistakes
