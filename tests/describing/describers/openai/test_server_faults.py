"""`describe` against a server with every fault, once and always: good images described, bad ones named, keys kept."""

import gzip
import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from PIL import Image

from canaries import Watch, with_secrets
from gpt4image.base.errors import DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai import describer as calls
from gpt4image.describing.describers.openai import limiter
from gpt4image.describing.describers.openai import server as border
from openai_cases import rows_of
from openai_stub import Call, Reply, Stub, answer, failure, json_reply, serve

NAMES = "abcdefghijkl"
CONCURRENCY, RETRIES = 3, 2
REFUSAL = "I'm sorry, but I can't assist with that request."
Fault = Callable[[Call, Reply], Reply]
"""What becomes of a call and of the good reply to it."""


def status(number: int, code: str, **headers: Callable[[], str]) -> Fault:
    """Key and address come back in the message, as OpenAI does with wrong ones."""

    def reply(call: Call, good: Reply) -> Reply:
        given = {name: value() for name, value in headers.items()}
        return failure(number, f"{code}, to {call.path} {call.headers}.\nA second line.", code, **given)

    return reply


def says(content: str | None, finish: str = "stop", refusal: str | None = None) -> Fault:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return lambda call, good: json_reply({"choices": [{"message": message, "finish_reason": finish}]})


def html(number: int) -> Fault:
    return lambda call, good: Reply(
        number, f"<html><p>{call.headers}</p></html>".encode(), {"content-type": "text/html"}
    )


def body(content: bytes, **headers: str) -> Fault:
    return lambda call, good: Reply(200, content, headers)


def broken(within: int | None = None, **changes: Any) -> Fault:
    """The connection ends, or so many bytes after the headers."""
    return lambda call, good: replace(good, cut=0 if within is None else len(good.head) + within, **changes)


BUSY, DEEP = "rate_limit_exceeded", b"[" * 50_000 + b"]" * 50_000
FAULTS: dict[str, dict[str, Fault]] = {
    # The next try may find it gone.
    "passes": {
        "429": status(429, BUSY),
        **{str(number): status(number, "server_error") for number in (408, 500, 502, 503, 529)},
        "html 502": html(502),
        "bad status line": lambda call, good: Reply(999),
        "closed": broken(),
        "reset": broken(reset=True),
        "html 200": html(200),
        "closed in body": broken(9),
        "reset after headers": broken(0, reset=True),
        "reset in body": broken(9, reset=True),
        "truncated json": lambda call, good: replace(good, content=good.content[: len(good.content) // 2]),
        "other json": lambda call, good: json_reply({"choices": "none", "seen": call.headers}),
        "list json": body(b"[1, 2, 3]"),
        "null": body(b"null"),
        "empty body": body(b""),
        "broken gzip": body(b"nonsense", **{"content-encoding": "gzip"}),
        "gzip": lambda call, good: Reply(200, gzip.compress(good.content), {"content-encoding": "gzip"}),
        "nested": body(DEEP),
        "too large": body(b" " * 2**20),
        "huge counts": body(b'{"choices": [], "usage": {"prompt_tokens": %b, "completion_tokens": 1}}' % (b"9" * 5000)),
        "odd header": lambda call, good: Reply(200, b"{}", {f"bad name {call.headers}": "x"}),
        "long header": lambda call, good: Reply(200, b"{}", {"x": "a" * 8180 + f"{call.headers}" * 99}),
        "empty choices": lambda call, good: answer(),
        "error in a 200": lambda call, good: json_reply({"error": {"message": "no", "code": 502}}),
    },
    "slow": {
        "429 retry-after seconds": status(429, BUSY, retry_after=lambda: "0.2"),
        "429 retry-after-ms": status(429, BUSY, retry_after_ms=lambda: "200"),
        "429 retry-after date": status(429, BUSY, retry_after=lambda: formatdate(time() + 1, usegmt=True)),
        "hang": lambda call, good: replace(good, delay=60.0),
        "end missing": lambda call, good: replace(good, headers={"content-length": "9999"}),
        "drip": lambda call, good: replace(good, drip=0.1),
    },
    # It is about this image, and asking again is of no use.
    "image": {
        "bad image 400": status(400, "image_parse_error"),
        "too large 413": status(413, "request_too_large\x1b[31m"),
        "nested 400": lambda call, good: Reply(400, b'{"error": {"message": %b}}' % DEEP),
        "long 422": lambda call, good: failure(422, f"{call.headers}" + "x" * 10**5),
    },
    # The model gave no description, or a filter kept it back.
    "answer": {
        "content filter 400": status(400, "content_filter"),
        "refusal": says(REFUSAL),
        "refusal field": says(None, refusal=REFUSAL),
        "content filter": says("", "content_filter"),
        "no text": says(None),
    },
    # Every call would meet it.
    "stops": {
        "no quota": status(429, "insufficient_quota"),
        "wrong key": status(401, "invalid_api_key"),
        "forbidden": status(403, "forbidden"),
        "no such model": status(404, "model_not_found"),
        "no credit": status(402, "insufficient_credits"),
    },
}
WORDS = {
    "wrong key": "does not accept the key in OPENAI_API_KEY",
    "forbidden": "does not let this key use tiny",
    "no such model": "does not know the model tiny",
}
"""What the user is told where every call would meet a fault; else that there is no quota."""
ALL = {name: fault for faults in FAULTS.values() for name, fault in faults.items()}
Script = Callable[[int, str], str | None]
"""Number of a call about an image and its name -> name of the fault that it meets."""
GOOD = {name: f"A square of kind {name} without any pattern, filling the whole frame." for name in NAMES}


@dataclass
class Server:
    """A stub server whose calls meet the faults of ``script``; counts calls and paid answers by image."""

    script: Script
    calls: Counter[str] = field(default_factory=Counter[str])
    paid: Counter[str] = field(default_factory=Counter[str])
    stub: Stub = field(init=False)

    def reply(self, call: Call) -> Reply:
        name = NAMES[call.pictures[0].getpixel((16, 16))[0] // 20]  # type: ignore[index]
        fault = self.script(self.calls[name], name)
        self.calls[name] += 1
        self.paid[name] += fault is None
        good = answer(GOOD[name], delay=0.01)
        return ALL[fault](call, good) if fault else good


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    with serve(server.reply) as server.stub:
        yield server


@pytest.fixture(autouse=True)
def secret(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts in which, as in every file and all output, no secret may stand. Waits are short: what is asked counts."""
    monkeypatch.setattr(calls, "BACKOFF_S", (0.02, 0.1))
    monkeypatch.setattr(limiter, "PAUSE_S", (0.05, 0.05))
    monkeypatch.setattr(limiter, "_SLOWEST", 20.0)
    monkeypatch.setattr(border, "MAX_BODY", 2**19)
    return watched.texts


Run = Callable[..., tuple[dict[str, str], dict[str, str]]]


@pytest.fixture
def run(tmp_path: Path, secret: list[str]) -> Run:
    """Describe by a server; returns reasons of what was skipped, and the stored texts, by image."""
    (tmp_path / "set" / "unlabelled").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(tmp_path / "set" / "unlabelled" / f"{name}.png")
    names = {hashlib.sha256(image.read_bytes()).hexdigest(): image.stem for image in tmp_path.glob("set/*/*.png")}

    def run_with(server: Server, **options: Any) -> tuple[dict[str, str], dict[str, str]]:
        data: Any = {"data": f"folder:{tmp_path / 'set'}", "store": tmp_path / "s.db", "image_format": "png"}
        calls: Any = {"concurrency": CONCURRENCY, "retries": RETRIES, "timeout": 2.0, "describer": "openai:tiny"}
        calls["base_url"] = with_secrets(server.stub.url, login=False)
        outcome = describe(DescribeConfig(**{**data, **calls, **options}))
        secret.append(json.dumps([outcome.facts, str(outcome.skipped)]))
        texts = {names[row.digest]: row.text for row in rows_of(tmp_path / "s.db")}
        return {item.name[-5]: item.reason for item in outcome.skipped}, texts

    return run_with


def test_faults_that_pass_cost_one_more_call_each(run: Run) -> None:
    once = dict(zip(NAMES, [*FAULTS["slow"], *FAULTS["answer"]], strict=False))
    with serving(lambda number, name: once.get(name) if number == 0 else None) as server:
        assert run(server) == ({}, GOOD)
        assert server.calls == dict.fromkeys(NAMES, 1) | dict.fromkeys(once, 2)
        assert server.stub.most_in_flight <= CONCURRENCY
        assert all("api-version=2" in call.path for call in server.stub.calls)
        calls = server.stub.count
        assert run(server) == ({}, GOOD) and server.stub.count == calls, "a finished dataset is not asked about again"


LASTING = [*FAULTS["slow"], *FAULTS["passes"], *FAULTS["image"], *FAULTS["answer"]]


@pytest.mark.parametrize("faults", [LASTING[start : start + 6] for start in range(0, len(LASTING), 6)])
def test_images_that_always_meet_a_fault_are_named_and_cost_the_others_nothing(faults: Sequence[str], run: Run) -> None:
    fault_of = dict(zip(NAMES[::2], faults, strict=False))
    with serving(lambda number, name: fault_of.get(name)) as server:
        skipped, texts = run(server, retries=1)
        assert texts == {name: text for name, text in GOOD.items() if name not in fault_of}
        assert skipped.keys() == fault_of.keys()
        counts = dict(server.calls)
        assert counts == dict.fromkeys(NAMES, 1) | {name: counts[name] for name in fault_of}
        for name, fault in fault_of.items():
            assert 1 <= counts[name] <= (1 if fault in FAULTS["image"] else 2), fault
            assert 0 < len(skipped[name]) <= 400 and skipped[name].isprintable(), fault

        server.script = lambda number, name: None
        assert run(server, retry_rejected=True) == ({}, GOOD)
        assert server.calls == counts | {name: counts[name] + 1 for name in fault_of}


@pytest.mark.parametrize("fault", FAULTS["stops"])
def test_what_every_call_would_meet_stops_the_run_and_keeps_what_came(
    fault: str, run: Run, secret: list[str], tmp_path: Path
) -> None:
    with serving(lambda number, name: fault if name == "d" else None) as server:
        for _ in range(2):
            with pytest.raises(DescriberError, match=WORDS.get(fault, "there is no quota left")) as caught:
                run(server)
            secret.append("".join(traceback.format_exception(caught.value)))
    kept = {row.text for row in rows_of(tmp_path / "s.db")}
    assert kept == {GOOD[name] for name in +server.paid}, "an answer that was paid for was dropped"
    assert max(server.paid.values()) == 1, "what is described is not paid for again"
