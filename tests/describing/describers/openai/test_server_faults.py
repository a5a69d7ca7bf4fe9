"""`describe` against a server with every fault, once and always: good images described, bad ones named, keys kept."""

from __future__ import annotations

import hashlib
import io
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from PIL import Image

from canaries import Watch, with_secrets
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import DescriberError
from gpt4image.cli import ITEMS_SKIPPED, OK, USER_MISTAKE, main
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai import describer as calls
from gpt4image.describing.describers.openai import limiter
from openai_stub import Call, Reply, Stub, answer, failure, json_reply, serve

COLOURS = {
    "black": (10, 10, 10),
    "blue": (30, 40, 230),
    "cyan": (30, 220, 230),
    "green": (20, 170, 40),
    "grey": (128, 128, 128),
    "magenta": (220, 30, 220),
    "orange": (240, 140, 20),
    "red": (230, 30, 20),
    "teal": (10, 110, 110),
    "white": (245, 245, 245),
    "yellow": (240, 230, 30),
}
BAD = "green"
CONCURRENCY, RETRIES = 3, 2
REFUSAL = "I'm sorry, but I can't assist with that request."
Fault = Callable[[Call, Reply], Reply]
"""What becomes of a call and of the good reply to it."""


def status(number: int, code: str, **headers: Callable[[], str]) -> Fault:
    """Key and address come back in the message, as OpenAI does with wrong ones."""
    return lambda call, good: failure(
        number,
        f"{code}, to {call.path} {call.headers}.\nA second line.",
        code,
        **{name: value() for name, value in headers.items()},
    )


def says(content: str | None, finish: str = "stop", refusal: str | None = None) -> Fault:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return lambda call, good: json_reply({"choices": [{"message": message, "finish_reason": finish}]})


def html(number: int) -> Fault:
    return lambda call, good: Reply(
        number, f"<html><p>{call.headers}</p></html>".encode(), {"content-type": "text/html"}
    )


def body(content: bytes, **headers: str) -> Fault:
    return lambda call, good: Reply(200, content, headers)


BUSY = "rate_limit_exceeded"
FAULTS: dict[str, dict[str, Fault]] = {
    # The next try may find it gone.
    "passes": {
        "429": status(429, BUSY),
        "429 retry-after seconds": status(429, BUSY, retry_after=lambda: "0.2"),
        "429 retry-after-ms": status(429, BUSY, retry_after_ms=lambda: "200"),
        "429 retry-after date": status(429, BUSY, retry_after=lambda: formatdate(time() + 1, usegmt=True)),
        **{str(number): status(number, "server_error") for number in (408, 500, 502, 503, 529)},
        "html 502": html(502),
        "html 200": html(200),
        "bad status line": lambda call, good: Reply(999),
        "hang": lambda call, good: replace(good, delay=60.0),
        "end missing": lambda call, good: replace(good, headers={"content-length": "9999"}),
        "drip": lambda call, good: replace(good, drip=0.1),
        "closed": lambda call, good: replace(good, cut=0),
        "closed in body": lambda call, good: replace(good, cut=len(good.head) + 9),
        "reset": lambda call, good: replace(good, cut=0, reset=True),
        "reset after headers": lambda call, good: replace(good, cut=len(good.head), reset=True),
        "reset in body": lambda call, good: replace(good, cut=len(good.head) + 9, reset=True),
        "truncated json": lambda call, good: replace(good, content=good.content[: len(good.content) // 2]),
        "other json": lambda call, good: json_reply({"choices": "none", "seen": call.headers}),
        "list json": body(b"[1, 2, 3]"),
        "null": body(b"null"),
        "empty body": body(b""),
        "broken gzip": body(b"nonsense", **{"content-encoding": "gzip"}),
        "empty choices": lambda call, good: answer(),
        "error in a 200": lambda call, good: json_reply({"error": {"message": "no", "code": 502}}),
    },
    # It is about this image, and asking again is of no use.
    "image": {
        "bad image 400": status(400, "image_parse_error"),
        "too large 413": status(413, "request_too_large"),
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
SLOW = [name for name in FAULTS["passes"] if "after" in name or name in ("hang", "drip", "end missing")]
ALL = {name: fault for faults in FAULTS.values() for name, fault in faults.items()}
Script = Callable[[int, str], str | None]
"""Number of a call about an image and its colour -> name of the fault that it meets."""


def colour_of(image: bytes) -> str:
    """Return the name of the colour in the middle of a picture."""
    with Image.open(io.BytesIO(image)) as opened:
        pixel: Any = opened.convert("RGB").getpixel((16, 16))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def key_of(colour: str) -> str:
    return f"unlabelled/{colour}.png"


def text_about(colour: str) -> str:
    return f"A square of plain {colour} without any pattern, filling the whole frame."


class Server:
    """A stub server whose calls meet the faults of ``script``; counts calls and paid answers by colour."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.stub = Stub(self._reply)

    def _reply(self, call: Call) -> Reply:
        colour = colour_of(call.image)
        fault = self.script(self.calls[colour], colour)
        self.calls[colour] += 1
        self.paid[colour] += fault is None
        good = answer(text_about(colour), delay=0.01)
        return ALL[fault](call, good) if fault else good


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    server = Server(script)
    with serve(server._reply) as server.stub:
        yield server


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "unlabelled").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (32, 32), colour).save(root / key_of(name))
    return root


@pytest.fixture(autouse=True)
def secret(watched: Watch) -> list[str]:
    """Texts in which, as in every file and all output of the test, no secret may stand, whole or cut."""
    return watched.texts


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the order of waits but not their length: what is tested is what is asked, not when."""
    monkeypatch.setattr(calls, "_BACKOFF_S", 0.02)
    monkeypatch.setattr(calls, "_LONGEST_BACKOFF_S", 0.1)
    monkeypatch.setattr(limiter, "_PAUSE_S", (0.05, 0.05))
    monkeypatch.setattr(limiter, "_SLOWEST", 20.0)


class Ran:
    """What a run came to: exit code, output and the stored texts by colour."""

    def __init__(self, code: int, out: str, err: str, store: Path, pictures: Path) -> None:
        self.code = code
        self.err = err
        self.summary: dict[str, Any] = json.loads(out) if out else {}
        self.skipped = {item["name"]: item["reason"] for item in self.summary.get("skipped", ())}
        names = {hashlib.sha256(image.read_bytes()).hexdigest(): image.stem for image in pictures.glob("*/*.png")}
        with DescriptionStore(store) as opened:
            self.texts = {names[row.digest]: row.text for row in opened.texts()}


@pytest.fixture
def run(tmp_path: Path, pictures: Path, capfd: pytest.CaptureFixture[str], secret: list[str]) -> Callable[..., Ran]:
    def run_with(server: Server, *options: str, timeout: float = 2.0) -> Ran:
        store = tmp_path / "s.db"
        command = f"describe --data folder:{pictures} --store {store} --describer openai:tiny --json "
        url = with_secrets(server.stub.url, login=False)
        command += f"--base-url {url} --concurrency {CONCURRENCY} --retries {RETRIES} --timeout {timeout} "
        code = main([*(command + "--image-format png").split(), *options])
        out, err = capfd.readouterr()
        secret.extend([out, err])
        return Ran(code, out, err, store, pictures)

    return run_with


Run = Callable[..., Ran]
CALLED_ONCE = dict.fromkeys(COLOURS, 1)
GOOD = {name: text_about(name) for name in COLOURS}


@pytest.mark.parametrize("fault", [*SLOW, *FAULTS["answer"]])
def test_a_fault_that_passes_costs_one_more_call(fault: str, run: Run) -> None:
    # Calls are counted: on a busy machine a good one may take a second, which is no fault.
    timeout = 2.0 if fault in ("hang", "drip", "end missing") else 30.0
    with serving(lambda number, colour: fault if number == 0 and colour == BAD else None) as server:
        ran = run(server, timeout=timeout)
        assert ran.code == OK, ran.err
        assert ran.texts == GOOD
        assert server.calls == CALLED_ONCE | {BAD: 2}
        assert server.stub.most_in_flight <= CONCURRENCY
        assert run(server, timeout=timeout).code == OK
        assert server.calls == CALLED_ONCE | {BAD: 2}, "a finished dataset is not asked about again"


LASTING = [*FAULTS["passes"], *FAULTS["image"], *FAULTS["answer"]]


@pytest.mark.parametrize("faults", [LASTING[start : start + 3] for start in range(0, len(LASTING), 3)])
def test_images_that_always_meet_a_fault_are_named_and_cost_the_others_nothing(faults: Sequence[str], run: Run) -> None:
    fault_of = dict(zip(COLOURS, faults, strict=False))
    with serving(lambda number, colour: fault_of.get(colour)) as server:
        ran = run(server)
        assert ran.code == ITEMS_SKIPPED
        assert ran.texts == {colour: text for colour, text in GOOD.items() if colour not in fault_of}
        assert sorted(ran.skipped) == sorted(map(key_of, fault_of))
        counts = dict(server.calls)
        for colour, fault in fault_of.items():
            most = 1 + RETRIES if fault in FAULTS["passes"] else 1 if fault in FAULTS["image"] else 2
            assert 1 <= counts[colour] <= most, fault
            reason = ran.skipped[key_of(colour)]
            assert reason and len(reason) <= 400 and "\n" not in reason, fault
        assert counts == CALLED_ONCE | {colour: counts[colour] for colour in fault_of}

        server.script = lambda number, colour: None
        again = run(server, "--retry-rejected")
        assert again.code == OK and again.texts == GOOD
        assert server.calls == counts | {colour: counts[colour] + 1 for colour in fault_of}


@pytest.mark.parametrize("fault", ["429", "500", "reset", "html 502"])
def test_a_server_that_never_works_ends_the_run_within_its_retries(fault: str, run: Run) -> None:
    with serving(lambda number, colour: fault) as server:
        ran = run(server, "--limit", "2")
        assert ran.code == ITEMS_SKIPPED
        assert ran.texts == {} and len(ran.skipped) == 2
        assert list(server.calls.values()) == [1 + RETRIES] * 2


@pytest.mark.parametrize("fault", FAULTS["stops"])
def test_what_every_call_would_meet_stops_the_run_and_keeps_what_came(
    fault: str, run: Run, secret: list[str], pictures: Path, tmp_path: Path
) -> None:
    with serving(lambda number, colour: fault if colour == BAD else None) as server:
        ran = run(server)
        assert ran.code == USER_MISTAKE
        assert ran.err.startswith("Error: ") and "Traceback" not in ran.err
        assert WORDS.get(fault, "there is no quota left") in " ".join(ran.err.split())
        assert set(server.calls.values()) == {1}
        assert set(ran.texts) == set(+server.paid), "an answer that was paid for was dropped"

        data, store = f"folder:{pictures}", tmp_path / "s.db"
        with pytest.raises(DescriberError) as caught:
            url = with_secrets(server.stub.url, login=False)
            describe(DescribeConfig(data=data, store=store, describer="openai:tiny", base_url=url, image_format="png"))
        secret.append("".join(traceback.format_exception(caught.value)))
        assert max(server.paid.values()) <= 1, "what is described is not paid for again"


def test_faults_of_all_kinds_at_once_lose_and_double_nothing(run: Run) -> None:
    """Every image meets two other faults of those that pass, one after the other."""
    names = [name for name in FAULTS["passes"] if name not in SLOW]
    assert len(names) <= 2 * len(COLOURS)

    def two(number: int, colour: str) -> str | None:
        return names[(2 * sorted(COLOURS).index(colour) + number) % len(names)] if number < 2 else None

    with serving(two) as server:
        ran = run(server)
        assert ran.code == OK, ran.summary
        assert ran.texts == GOOD
        assert set(server.calls.values()) == {3}
