"""A Batch API on loopback, as OpenAI's is documented, that counts what it was paid for and misbehaves on request.

Chat completions are answered too.
"""

import email
import email.policy
import json
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from openai_stub import Call, Reply, completion, json_reply, serve

ENDED = ("completed", "expired", "cancelled", "failed")


def images_of(body: dict[str, Any]) -> list[str]:
    """The data URLs of the images in a request body."""
    return re.findall(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", json.dumps(body))


def describe_ok(body: dict[str, Any]) -> dict[str, Any]:
    """Answer with a text that depends on the image."""
    return completion(f"A shape of kind {zlib.crc32(images_of(body)[0].encode())}.")


@dataclass
class Fault:
    """What happens to the next ``times`` requests that match.

    Attributes:
        request: start of "METHOD path".
        status: answered with it; None drops the connection.
        done: the request takes effect first.
        body: what is answered, with these headers.
    """

    request: str
    status: int | None = None
    times: int = 1
    done: bool = False
    body: Any = field(default_factory=lambda: {"error": {"message": "scripted", "type": "server_error", "code": None}})
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class BatchServer:
    """What the server holds, and its script.

    Attributes:
        polls: how often a batch is looked at until it ends.
        end: status of each batch in the end, by its number; ``completed`` for the others.
        errors: why a batch of that number fails.
        answer: a request body as a response body; a status and its error; an error of the line (with ``code``); a
            string, written as it is; None for no line.
        spoil: what becomes of a file of answers that is downloaded.
        room: most lines in batches that run; a batch beyond fails for its token limit.
        late: how many looks at a batch that has ended do not name the file of its answers yet.
        counts: whether a batch tells how many of its requests are done.
        paid: how often each image was answered or is being worked on.
    """

    polls: int = 1
    end: dict[int, str] = field(default_factory=dict[int, str])
    errors: dict[int, list[dict[str, Any]]] = field(default_factory=dict[int, list[dict[str, Any]]])
    answer: Callable[[dict[str, Any]], Any] = describe_ok
    spoil: Callable[[bytes], bytes] = bytes
    room: int | None = None
    late: int = 0
    counts: bool = True
    faults: list[Fault] = field(default_factory=list[Fault])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    batches: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    paid: Counter[str] = field(default_factory=Counter[str])
    requests: list[str] = field(default_factory=list[str])
    inputs: list[list[dict[str, Any]]] = field(default_factory=list[list[dict[str, Any]]])
    deleted: list[str] = field(default_factory=list[str])
    authorisations: set[str] = field(default_factory=set[str])
    url: str = ""
    lock: Any = field(default_factory=threading.RLock)

    def reply(self, call: Call) -> Reply:
        parts = urlsplit(call.path)
        request = f"{call.method} {parts.path}"
        with self.lock:
            self.requests.append(request)
            self.authorisations.add(call.headers.get("authorization", ""))
            fault = next((fault for fault in self.faults if fault.times and request.startswith(fault.request)), None)
            status, said = 200, None
            if fault is None or fault.done:
                status, said = self._handle(call, parts.path, parse_qs(parts.query))
        if fault is not None:
            fault.times -= 1
            if fault.status is None:
                return Reply(cut=0)
            status, said = fault.status, fault.body
        if isinstance(said, bytes):
            return Reply(status, said, fault.headers if fault else {})
        return json_reply(said, status)

    def _handle(self, call: Call, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        match call.method, path.removeprefix("/v1/").split("/"):
            case "POST", ["chat", "completions"]:
                self.paid.update(images_of(call.body))
                return 200, self.answer(call.body)
            case "POST", ["files"]:
                return 200, self._upload(call)
            case method, ["files", name, *rest]:
                return self._file(method, name, *rest)
            case "POST", ["batches"]:
                return self.create(call.body)
            case _, ["batches"]:
                return 200, _page([_shown(batch) for batch in self.batches.values()][::-1], query)
            case method, ["batches", name, *rest]:
                return self.batch(method, name, *rest)
            case _:
                return _not_found("no such path")

    def _upload(self, call: Call) -> dict[str, Any]:
        kind = call.headers["content-type"].encode()
        message = email.message_from_bytes(b"Content-Type: " + kind + b"\n\n" + call.content, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        assert parts["purpose"].get_payload(decode=True).strip() == b"batch"
        name = f"file-{len(self.files)}"
        self.files[name] = parts["file"].get_payload(decode=True)
        return self._file_object(name)

    def _file(self, method: str, name: str, *rest: str) -> tuple[int, Any]:
        if name not in self.files or name in self.deleted:
            return _not_found(f"No such File object: {name}")
        if method == "DELETE":
            self.deleted.append(name)
            return 200, {"id": name, "object": "file", "deleted": True}
        return 200, self.spoil(self.files[name]) if rest == ("content",) else self._file_object(name)

    def _file_object(self, name: str) -> dict[str, Any]:
        common = {"object": "file", "created_at": int(time.time()), "purpose": "batch", "status": "processed"}
        return {"id": name, "bytes": len(self.files[name]), "filename": name, **common}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        if asked["input_file_id"] not in self.files:
            return _not_found("no such input file")
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        number = len(self.batches)
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        own = {"id": f"batch_{number}", "object": "batch", "created_at": int(time.time()), "request_counts": counts}
        running = sum(len(other["lines"]) for other in self.batches.values() if other["status"] not in ENDED)
        batch = {**asked, **own, "status": "validating", "polls": 0, "number": number, "lines": lines}
        self.batches[batch["id"]] = batch
        self.inputs.append(lines)
        reasons = self.errors[number] if self.end.get(number) == "failed" else []
        if self.room is not None and running + len(lines) > self.room:
            reasons = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
        if reasons:
            batch |= {"status": "failed", "errors": {"object": "list", "data": reasons}}
        else:
            self.paid.update(url for line in lines for url in images_of(line["body"]))
        return 200, _shown(batch)

    def batch(self, method: str, name: str, *rest: str) -> tuple[int, Any]:
        batch = self.batches.get(name)
        if batch is None:
            return _not_found(f"No batch found with id {name!r}")
        if method == "POST" and rest == ("cancel",):
            if batch["status"] in ENDED:
                return 409, {"error": {"message": f"It is {batch['status']}", "type": "conflict", "code": None}}
            batch["status"] = "cancelled"
            self.paid.subtract(url for line in batch["lines"] for url in images_of(line["body"]))
        elif batch["status"] not in ENDED:
            batch["polls"] += 1
            batch["status"] = "in_progress"
            if batch["polls"] >= self.polls:
                self._finish(batch)
        shown = _shown(batch) | ({} if self.counts else {"request_counts": None})
        if batch["status"] in ENDED and self.late:
            self.late -= 1
            shown["output_file_id"] = None
        return 200, shown

    def _finish(self, batch: dict[str, Any]) -> None:
        results: dict[str, list[str]] = {"output": [], "error": []}
        for line in batch["lines"][::-1]:  # the order of the answers is not that of the questions
            said, row = self.answer(line["body"]), {"custom_id": line["custom_id"], "response": None, "error": None}
            if isinstance(said, tuple):
                row["response"] = {"status_code": said[0], "body": {"error": said[1]}}
            elif isinstance(said, dict):
                row |= {"error": said} if "code" in said else {"response": {"status_code": 200, "body": said}}
            if said is not None:
                kind = "error" if isinstance(said, tuple) or row["error"] else "output"
                results[kind].append(said if isinstance(said, str) else json.dumps(row, ensure_ascii=False))
        for kind, lines in results.items():
            if lines:
                batch[f"{kind}_file_id"] = name = f"file-{kind}-{batch['number']}"
                self.files[name] = "".join(f"{line}\n" for line in lines).encode()
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


@contextmanager
def serving(script: BatchServer) -> Iterator[BatchServer]:
    """Serve ``script`` on a free port of this machine until the block ends."""
    with serve(script.reply) as stub:
        script.url = stub.url
        yield script
