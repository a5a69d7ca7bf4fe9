"""A Batch API on loopback, as OpenAI's is documented, that counts what it was paid for and misbehaves on request."""

from __future__ import annotations

import email
import email.policy
import json
import re
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Line = dict[str, Any]
ENDED = ("completed", "expired", "cancelled", "failed")


def chat_completion(texts: list[str], **others: Any) -> dict[str, Any]:
    """A response body; 100 tokens in, 10 out per text."""
    choices = [
        {"index": number, "finish_reason": "stop", "message": {"role": "assistant", "content": text, "refusal": None}}
        for number, text in enumerate(texts)
    ]
    tokens = {"prompt_tokens": 100, "completion_tokens": 10 * len(texts), "total_tokens": 100 + 10 * len(texts)}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "tiny", "choices": choices, "usage": tokens}
    return {**body, **others}


def image_of(body: dict[str, Any]) -> str:
    """The data URL of the image in a request body."""
    (url,) = re.findall(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", json.dumps(body))
    return url


def describe_ok(body: dict[str, Any]) -> dict[str, Any]:
    """Answer with a text that depends on the image and the sample."""
    shape = zlib.crc32(image_of(body).encode())
    return chat_completion([f"A shape of kind {shape}, try {number}." for number in range(body.get("n") or 1)])


@dataclass
class Fault:
    """What happens to the next ``times`` requests that match.

    Attributes:
        request: start of "METHOD path".
        status: answered with it; None drops the connection.
        done: the request takes effect first.
        body: what is answered.
        seconds: the server takes its time first.
    """

    request: str
    status: int | None = None
    times: int = 1
    done: bool = False
    body: Any = field(default_factory=lambda: {"error": {"message": "scripted", "type": "server_error", "code": None}})
    seconds: float = 0.0


@dataclass
class BatchServer:
    """What the server holds, and its script.

    Attributes:
        polls: how often a batch is looked at until it ends.
        end: status of each batch in the end, by its number; ``completed`` for the others.
        errors: why a batch of that number fails.
        answer: what comes of a request body: a response body; a status and its error; an error of the line itself (with
            ``code``); a string, written as it is; None for no line.
        room: most lines in batches that run; a batch beyond fails for its token limit.
        late: how many looks at a batch that has ended do not name the file of its answers yet.
        paid: how often each image was answered or is being worked on.
    """

    polls: int = 1
    end: dict[int, str] = field(default_factory=dict)
    errors: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], Any] = describe_ok
    room: int | None = None
    late: int = 0
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str | None] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    paid: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    inputs: list[list[Line]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    authorisations: set[str] = field(default_factory=set)
    url: str = ""
    lock: Any = field(default_factory=threading.RLock)

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: bytes, kind: str) -> tuple[int, Any]:
        if path == "/v1/files":
            return 200, self._upload(body, kind) if method == "POST" else self._list_files(query)
        if path.startswith("/v1/files/"):
            return self._file(method, *path.removeprefix("/v1/files/").split("/"))
        if method == "POST" and path == "/v1/batches":
            return self._create(json.loads(body))
        if path == "/v1/batches":
            return 200, _page([_shown(batch) for batch in self.batches.values()][::-1], query)
        if path.startswith("/v1/batches/"):
            return self._batch(method, *path.removeprefix("/v1/batches/").split("/"))
        return _not_found("no such path")

    def _upload(self, body: bytes, kind: str) -> dict[str, Any]:
        message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\n\n" + body, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        assert parts["purpose"].get_payload(decode=True).strip() == b"batch"
        name = f"file-{len(self.files)}"
        self.files[name] = parts["file"].get_payload(decode=True)
        self.names[name] = parts["file"].get_filename()
        return self._file_object(name)

    def _file(self, method: str, name: str, *rest: str) -> tuple[int, Any]:
        if name not in self.files or name in self.deleted:
            return _not_found(f"No such File object: {name}")
        if method == "DELETE":
            self.deleted.append(name)
            return 200, {"id": name, "object": "file", "deleted": True}
        return 200, self.files[name] if rest == ("content",) else self._file_object(name)

    def _list_files(self, query: dict[str, list[str]]) -> dict[str, Any]:
        assert query["purpose"] == ["batch"] and query["order"] == ["desc"]
        return _page([self._file_object(name) for name in [*self.names][::-1] if name not in self.deleted], query)

    def _file_object(self, name: str) -> dict[str, Any]:
        common = {"object": "file", "created_at": int(time.time()), "purpose": "batch", "status": "processed"}
        return {"id": name, "bytes": len(self.files[name]), "filename": self.names.get(name, name), **common}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if asked["input_file_id"] not in self.files:
            return _not_found("no such input file")
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        number = len(self.batches)
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        batch = {
            "id": f"batch_{number}",
            "object": "batch",
            "status": "validating",
            "created_at": int(time.time()),
            **asked,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "polls": 0,
            "number": number,
            "lines": lines,
        }
        running = sum(len(other["lines"]) for other in self.batches.values() if other["status"] not in ENDED)
        self.batches[batch["id"]] = batch
        self.inputs.append(lines)
        if self.room is not None and running + len(lines) > self.room:
            reason = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [reason]}}
        elif self.end.get(number) == "failed":
            batch |= {"status": "failed", "errors": {"object": "list", "data": self.errors[number]}}
        else:
            self.paid.update(image_of(line["body"]) for line in lines)
        return 200, _shown(batch)

    def _batch(self, method: str, name: str, *rest: str) -> tuple[int, Any]:
        batch = self.batches.get(name)
        if batch is None:
            return _not_found(f"No batch found with id {name!r}")
        if method == "POST" and rest == ("cancel",):
            if batch["status"] in ENDED:
                return 409, {"error": {"message": f"It is {batch['status']}", "type": "conflict", "code": None}}
            batch["status"] = "cancelled"
            self.paid.subtract(image_of(line["body"]) for line in batch["lines"])
        elif batch["status"] not in ENDED:
            batch["polls"] += 1
            batch["status"] = "in_progress"
            if batch["polls"] >= self.polls:
                self._finish(batch)
        if batch["status"] in ENDED and self.late:
            self.late -= 1
            return 200, {**_shown(batch), "output_file_id": None}
        return 200, _shown(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        results: dict[str, list[Any]] = {"output": [], "error": []}
        for line in batch["lines"][::-1]:  # the order of the answers is not that of the questions
            said = self.answer(line["body"])
            named = {"id": f"r-{line['custom_id']}", "custom_id": line["custom_id"]}
            if isinstance(said, str):
                results["output"].append(said)
            elif isinstance(said, tuple):
                failure = {"status_code": said[0], "body": {"error": said[1]}}
                results["error"].append({**named, "response": failure, "error": None})
            elif said is not None and "code" in said:
                results["error"].append({**named, "response": None, "error": said})
            elif said is not None:
                results["output"].append({**named, "response": {"status_code": 200, "body": said}, "error": None})
        for kind, lines in results.items():
            if lines:
                batch[f"{kind}_file_id"] = name = f"file-{kind}-{batch['number']}"
                texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
                self.files[name] = "".join(f"{text}\n" for text in texts).encode()
        batch["request_counts"] |= {"completed": len(results["output"]), "failed": len(results["error"])}
        batch["status"] = self.end.get(batch["number"], "completed")


def _page(newest_first: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
    """Small pages: whoever lists has to turn them."""
    names = [item["id"] for item in newest_first]
    start = names.index(query["after"][0]) + 1 if "after" in query else 0
    page = newest_first[start : start + 2]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
    return {"object": "list", "data": page, "has_more": start + len(page) < len(newest_first), **ends}


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in ("lines", "polls", "number")}


def _not_found(message: str) -> tuple[int, Any]:
    return 404, {"error": {"message": message, "type": "invalid_request_error", "code": None}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    script: BatchServer

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        script = self.script
        with script.lock:
            request = f"{self.command} {parts.path}"
            script.requests.append(request)
            script.authorisations.add(self.headers.get("Authorization", ""))
            fault = next((f for f in script.faults if f.times and request.startswith(f.request)), None)
            if fault is not None:
                fault.times -= 1
            kind = self.headers.get("Content-Type", "")
            status, said = 200, None
            if fault is None or fault.done:
                status, said = script.handle(self.command, parts.path, parse_qs(parts.query), body, kind)
        if fault is not None:
            time.sleep(fault.seconds)
            if fault.status is None:
                self.close_connection = True
                return
            status, said = fault.status, fault.body
        self._send(status, said if isinstance(said, bytes) else json.dumps(said).encode())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mistakes: list[BaseException | None] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep mistakes of the script for the end; a client that was killed is none."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.mistakes.append(error)


@contextmanager
def serving(script: BatchServer) -> Iterator[BatchServer]:
    """Serve ``script`` on a free port of this machine until the block ends."""
    handler = type("Handler", (_Handler,), {"script": script})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not server.mistakes
