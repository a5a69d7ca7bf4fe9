"""A Batch API that sends nonsense, too much or another address: what can be read is kept, and nothing is locked."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from batch_cases import KEY, on_their_way, submit_only, texts
from batch_server import BatchServer, Fault, chat_completion, describe_ok
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import DescriberError
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.batch import api as batch_api
from gpt4image.describing.describers.openai import untrusted

BODY = json.dumps({"status_code": 200, "body": chat_completion(["x"])})
BAD_LINES = {
    "1e999": f'{{"custom_id": 1e999, "response": {BODY}}}',
    "huge number in a name": f'{{"custom_id": "{"9" * 5000}", "response": {BODY}}}',
    "half deep": '{"custom_id": "0", "response": ' + "[" * 1200 + "]" * 1200 + "}",
    "huge status": f'{{"custom_id": "0", "response": {{"status_code": {"9" * 5000}, "body": {{}}}}}}',
    "half a surrogate": '{"custom_id": "\\ud800", "response": {"status_code": 200, "body": {}}}',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_a_failure_and_locks_nothing(name: str, server: BatchServer, config: Any) -> None:
    numbers = itertools.count()
    server.answer = lambda body: BAD_LINES[name] if next(numbers) == 7 else describe_ok(body)  # the line of number 0
    outcome = describe(config())
    assert (outcome.summary["described"], outcome.summary["failed"]) == (7, 1)
    assert on_their_way(config()) == {}
    server.answer = describe_ok
    assert describe(config()).summary["described"] == 1


def test_a_line_that_is_too_long_is_a_failure_and_the_rest_is_kept(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MAX_BODY", 100_000)
    numbers = itertools.count()
    server.answer = lambda body: describe_ok(body) | ({"padding": "x" * 300_000} if next(numbers) == 3 else {})
    outcome = describe(config())
    assert (outcome.summary["described"], outcome.summary["failed"]) == (7, 1)


def test_a_file_without_end_is_read_up_to_a_limit(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MAX_FILE", 100_000)
    real = server._file

    def endless(method: str, name: str, *rest: str) -> tuple[int, Any]:
        status, body = real(method, name, *rest)
        return status, body + b"{}\n" * 1_000_000 if rest == ("content",) else body

    monkeypatch.setattr(server, "_file", endless)
    server.answer = lambda body: describe_ok(body)
    outcome = describe(config())
    assert outcome.summary["described"] + outcome.summary["failed"] == 8
    assert on_their_way(config()) == {}


def test_the_body_of_a_batch_is_bounded(server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MAX_BODY", 100_000)
    server.faults = [Fault("POST /v1/files", 200, body={"id": "file", "padding": "x" * 200_000})]
    with pytest.raises(DescriberError, match=r"cannot be uploaded: the answer is longer than"):
        describe(config())


@pytest.mark.parametrize(
    "what", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/file-output"]
)
def test_a_redirect_is_refused(what: str, server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Redirect(bytes):
        """The body of a redirect."""

    from batch_server import _Handler

    def send_header(handler: Any, name: str, value: str) -> None:
        real(handler, name, value)
        if name == "Content-Length" and value == "7":
            real(handler, "Location", f"http://elsewhere.test:81/?key={KEY}")

    real = _Handler.send_header
    monkeypatch.setattr(_Handler, "send_header", send_header)
    server.faults = [Fault(what, 307, body=Redirect(b"elsewhe"))]
    with pytest.raises(DescriberError, match=r"redirected to elsewhere.test:81;") as caught:
        describe(config())
    assert KEY not in str(caught.value)
    assert describe(config()).summary["without_description"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"id": 7, "object": "batch", "status": "completed"},
        {"id": "batch_0", "status": ["completed"]},
        {"id": "batch_0", "status": "completed", "request_counts": "all"},
        {"id": "batch_0", "status": "completed", "output_file_id": "x" * 10_000},
        {"id": "batch_0", "status": "failed", "errors": {"data": 7}},
        b'{"id": "\xff"}',
    ],
)
def test_a_batch_of_another_shape_is_looked_at_again(body: Any, server: BatchServer, config: Any) -> None:
    submit_only(server, config())
    server.faults = [Fault("GET /v1/batches/", 200, body=body)]
    assert describe(config()).summary["described"] == 8
    assert len(server.batches) == 1


def test_the_key_in_an_answer_is_not_kept(server: BatchServer, config: Any) -> None:
    server.answer = lambda body: chat_completion([f"A cat, says {KEY}."])
    describe(config())
    assert set(texts(config())) == {"A cat, says ***."}


def test_an_answer_that_cannot_be_read_counts_at_its_dearest(server: BatchServer, config: Any, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"tiny": {"input": 10.0, "output": 100.0}}')
    numbers = itertools.count()
    server.answer = lambda body: describe_ok(body) if next(numbers) == 0 else chat_completion([], usage=None)
    outcome = describe(config(prices=tmp_path / "prices.json", max_cost=0.01, max_tokens=20))
    call, dearest = 0.002 / 2, 0.00325 / 2
    unreadable = outcome.summary["failed"]
    assert unreadable and outcome.summary["cost_usd"] == pytest.approx(call + unreadable * dearest)
    assert outcome.summary["cost_usd"] <= 0.01
    with DescriptionStore(config().store) as store:
        assert sum(row.cost_usd or 0.0 for row in store.descriptions()) == pytest.approx(call)


def test_answers_of_earlier_runs_let_the_first_batch_hold_what_fits(
    server: BatchServer, config: Any, tmp_path: Path
) -> None:
    (tmp_path / "prices.json").write_text('{"tiny": {"input": 10.0, "output": 100.0}}')
    limits = {"prices": tmp_path / "prices.json", "max_cost": 1.0, "max_tokens": 20}
    describe(config(limit=2, **limits))
    assert [lines(server, batch) for batch in server.batches.values()] == [1, 1], "nothing is known of the first"
    assert describe(config(**limits)).summary["described"] == 6
    assert [lines(server, batch) for batch in server.batches.values()] == [1, 1, 6]


def test_what_is_in_a_batch_counts_in_the_limit_of_the_next_run(
    server: BatchServer, config: Any, tmp_path: Path
) -> None:
    (tmp_path / "prices.json").write_text('{"tiny": {"input": 10.0, "output": 100.0}}')
    limits = {"prices": tmp_path / "prices.json", "max_tokens": 20}
    describe(config(limit=1, max_cost=1.0, **limits))
    submit_only(server, config(limit=3, max_cost=1.0, **limits))
    first = describe(config(max_cost=0.0056, **limits)).summary  # a call costs 0.001, and may cost 0.001625
    assert first["cost_usd"] == pytest.approx(0.004) and first["stopped_by"] == "--max-cost 0.0056"
    assert sum(lines(server, batch) for batch in server.batches.values()) == 4
    assert describe(config(max_cost=0.0057, **limits)).summary["described"] == 1


def lines(server: BatchServer, batch: dict[str, Any]) -> int:
    return len(server.files[batch["input_file_id"]].splitlines())
