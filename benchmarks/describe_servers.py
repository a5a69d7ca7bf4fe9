"""A server that answers /v1/chat/completions at once, late, rarely or badly, and counts what it was asked.

    .venv/bin/python benchmarks/describe_servers.py --latency 0.5

prints its address; GET /stats returns the counts. It has no framework, so that on two cores it leaves the client room.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CAPTION = (
    "A photograph of a single thing in the middle of the frame, lit softly from the left and standing out clearly "
    "against a plain background. Its surface shows fine grain, with patches of warm and cool colour that blend into "
    "one another, and its outline is blurred where it meets the ground. The upper part is brighter, the lower part "
    "lies in a shade that hides most details. Nothing else can be seen, and no text appears anywhere in the picture."
)
REFUSAL = "I'm sorry, but I can't help with describing this image."
_STATUS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What the server does to requests; shares are of calls, but for ``refused``, a share of images.

    Attributes:
        latency: seconds until an answer.
        cap: most requests a second; 429 beyond.
        bucket: the cap is a token bucket of this many requests, in place of windows of one second.
        retry_after: a 429 says when to come again.
        errors: share answered with status 500.
        hangs: share never answered.
        malformed: share answered with half of the JSON.
        refused: share of the images that are always refused, with status 200: in words, or by a content filter.
    """

    latency: float = 0.0
    cap: float = 0.0
    bucket: float = 0.0
    retry_after: bool = False
    errors: float = 0.0
    hangs: float = 0.0
    malformed: float = 0.0
    refused: float = 0.0


class Server:
    """Counts calls and decides how each is answered."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.chance = random.Random(0)
        self.outcomes: Counter[str] = Counter()
        self.paid = 0  # answers with tokens
        self.refused_images: set[int] = set()
        self.first = self.last = 0.0
        self._window, self._taken = -1, 0
        self._tokens, self._filled = behaviour.bucket, time.monotonic()

    def stats(self) -> dict[str, object]:
        return {
            "requests": self.outcomes.total(),
            "outcomes": self.outcomes,
            "paid": self.paid,
            "refused_images": len(self.refused_images),
            "refusals": self.outcomes["refusal"],
            "seconds": self.last - self.first,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one kept-alive connection, in order."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                _, _, length = head.partition(b"content-length:")
                body = await reader.readexactly(int(length.split(b"\r\n", 1)[0] or 0))
                if head.startswith(b"get"):
                    writer.write(_response(200, json.dumps(self.stats()).encode()))
                elif b"image_url" not in body:  # a probe, not a call
                    writer.write(_response(404, _error("There is no image.", "no_image")))
                else:
                    outcome, response = self.decide(body)
                    self.outcomes[outcome] += 1
                    if outcome == "hang":
                        await reader.read()
                    elif outcome in ("answer", "refusal", "malformed"):
                        await asyncio.sleep(self.behaviour.latency)
                    self.last = time.perf_counter()
                    writer.write(response)

    def decide(self, body: bytes) -> tuple[str, bytes]:
        """Return the outcome of a call and the response."""
        start = body.find(b";base64,")
        image = zlib.crc32(body[start : body.find(b'"', start)])
        self.first = self.first or time.perf_counter()
        if self.behaviour.cap and not self._has_room():
            return "429", _response(429, _error("Rate limit reached.", "rate_limit_exceeded"), self._retry_after())
        shares = [self.behaviour.errors, self.behaviour.hangs, self.behaviour.malformed]
        [outcome] = self.chance.choices(["500", "hang", "malformed", "answer"], [*shares, 1 - sum(shares)])
        if outcome == "500":
            return outcome, _response(500, _error("The server had an error.", "server_error"))
        if outcome == "hang":
            return outcome, b""
        self.paid += 1
        refused = image % 1000 < 1000 * self.behaviour.refused
        if refused:
            self.refused_images.add(image)
        payload = _REFUSALS[image % 2] if refused else _completion(f"{CAPTION} {image:08x}")
        if outcome == "malformed":
            payload = payload[: len(payload) // 2]
        return ("refusal" if refused and outcome == "answer" else outcome), _response(200, payload)

    def _has_room(self) -> bool:
        now = time.monotonic()
        if self.behaviour.bucket:
            grown = self._tokens + (now - self._filled) * self.behaviour.cap
            self._tokens, self._filled = min(self.behaviour.bucket, grown), now
            self._tokens -= (has_room := self._tokens >= 1)
            return has_room
        if int(now) != self._window:
            self._window, self._taken = int(now), 0
        self._taken += 1
        return self._taken <= self.behaviour.cap

    def _retry_after(self) -> str:
        if not self.behaviour.retry_after:
            return ""
        now = time.monotonic()
        wait = (1 - self._tokens) / self.behaviour.cap if self.behaviour.bucket else int(now) + 1 - now
        return f"retry-after-ms: {1000 * wait:.0f}\r\nretry-after: {max(1, round(wait))}\r\n"


def _completion(text: str, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    usage = {"prompt_tokens": 280, "completion_tokens": 25, "total_tokens": 305}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini"}
    return json.dumps({**about, "choices": [choice], "usage": usage}).encode()


_REFUSALS = (_completion(REFUSAL), _completion("", "content_filter"))


def _error(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


def _response(status: int, payload: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def serving(**behaviour: float) -> Iterator[Running]:
    """Run a server with this ``Behaviour`` in another process."""
    options = [f"--{name}={value}" for name, value in behaviour.items()]
    with subprocess.Popen([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Running(next(iter(process.stdout or [])).strip())
        finally:
            process.kill()


async def _serve(behaviour: Behaviour) -> None:
    listening = await asyncio.start_server(Server(behaviour).serve, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in Behaviour.__dataclass_fields__:
        parser.add_argument(f"--{name}", type=float, default=0.0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Behaviour(**vars(parser.parse_args()))))
