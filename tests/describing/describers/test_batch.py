"""describe --batch against a Batch API on loopback: nothing is paid twice and nothing lost, whatever happens."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_cases import (
    KEY,
    add_picture,
    config,
    lines_of,
    on_their_way,
    pictures,
    quick,
    requests_of,
    server,
    submit_only,
    texts,
)
from batch_server import BatchServer, Fault, chat_completion, describe_ok
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, DescriberError, StoreError
from gpt4image.describing.describe import describe
from gpt4image.describing.describers import batch as batch_api
from gpt4image.describing.describers.base import Request
from gpt4image.describing.describers.batch import BatchDescriber, Ledger
from gpt4image.describing.describers.openai import server as untrusted
from openai_stub import Stub, answer, serve

__all__ = ["config", "pictures", "quick", "server"]


def test_every_image_is_described_at_half_the_price_and_a_second_run_sends_nothing(
    server: BatchServer, config: Any, tmp_path: Path
) -> None:
    (tmp_path / "prices.json").write_text('{"tiny": {"input": 10.0, "output": 100.0}}')
    asked = config(prices=tmp_path / "prices.json")
    outcome = describe(asked)
    assert outcome.summary["described"] == 8 and outcome.skipped == () and "batches_open" not in outcome.summary
    assert outcome.summary["cost_usd"] == pytest.approx(8 * (100 * 10 + 10 * 100) / 1e6 / 2)
    assert sorted(texts(asked)) == sorted(
        describe_ok(line["body"])["choices"][0]["message"]["content"] for line in server.inputs[0]
    )
    assert set(server.paid.values()) == {1} and server.deleted == ["file-0"]
    calls = len(server.requests)
    assert describe(asked).summary["already_described"] == 8 and len(server.requests) == calls
    assert describe(config(batch=False)).summary["already_described"] == 8 and len(server.requests) == calls


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_did_before_it_ended_early_is_kept_and_the_rest_asked_by_the_next_run(
    server: BatchServer, config: Any, end: str
) -> None:
    numbers = itertools.count()
    server.end = {0: end}
    expired = {"code": "batch_expired", "message": "This request could not be executed before the batch expired."}
    server.answer = lambda body: (describe_ok(body), None, expired)[next(numbers) % 3]
    outcome = describe(config())
    assert (outcome.summary["described"], outcome.summary["failed"]) == (3, 5)
    assert {item.reason.split(" ")[0] for item in outcome.skipped} == {"the", "This"}
    server.answer = describe_ok
    assert describe(config()).summary["described"] == 5
    assert lines_of(server) == [8, 5]


def test_classes_are_asked_for_by_schema_and_each_sample_in_its_own_order(server: BatchServer, config: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        assert body["response_format"]["type"] == "json_schema" and "logprobs" not in body and "n" not in body
        return chat_completion(['{"class": "Squares", "confidence": 0.7}'])

    server.answer = answer
    asked = config(ask="class", classes="square, circle, disc, oval", samples=2, temperature=1.0)
    outcome = describe(asked)
    assert outcome.summary["described"] == 16 and outcome.summary["class_in_list"] == 16 and lines_of(server) == [16]
    assert len({json.dumps(line["body"]["messages"][-1]["content"][-1]) for line in server.inputs[0]}) > 6
    with DescriptionStore(asked.store) as store:
        assert {(one.answer.class_name, one.answer.said, one.sample) for one in store.answers()} == {
            ("square", "Squares", 0),
            ("square", "Squares", 1),
        }
    assert describe(asked).summary["already_described"] == 16 and lines_of(server) == [16]


def test_a_batch_whose_model_has_no_schemas_says_how_to_go_on(server: BatchServer, config: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if body["response_format"] is not None:
            return 400, {"error": {"message": "'response_format' of type 'json_schema' is not supported"}}
        return chat_completion(['{"class": "square"}'])

    server.answer = answer
    options = {"ask": "class", "classes": "square, circle"}
    outcome = describe(config(**options))
    assert outcome.summary["failed"] == 8
    assert all("--extra-body '{\"response_format\": null}'" in item.reason for item in outcome.skipped)
    outcome = describe(config(**options, extra_body={"response_format": None}))
    assert outcome.summary["described"] == 8


def test_bad_lines_cost_only_themselves(server: BatchServer, config: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        return said[next(numbers)]

    numbers = itertools.count()
    filtered = chat_completion(["half of"])
    filtered["choices"][0]["finish_reason"] = "content_filter"
    foreign = json.dumps({"custom_id": "nobody's", "response": {"status_code": 200, "body": chat_completion(["x"])}})
    said = [
        chat_completion(["a good text\u2028with a line separator"]),
        '{"custom_id": "1", "response": {"status_',
        (400, {"message": "Your image was kept back", "code": "content_policy_violation"}),
        (500, {"message": f"broken, as {KEY} is", "code": None}),
        chat_completion([]),
        chat_completion(["good"]) | {"choices": None},
        foreign,
        filtered,
    ]
    server.answer = answer
    outcome = describe(config())
    assert outcome.summary["failed"] == 5
    assert any("broken, as *** is" in item.reason for item in outcome.skipped)
    with DescriptionStore(config().store) as store:
        kept = {(row.text, row.finish_reason) for row in store.descriptions()}
    good = "a good text\u2028with a line separator"
    assert kept == {(good, "stop"), ("half of", "content_filter"), ("", "content_filter")}


def spoil(server: BatchServer, patch: pytest.MonkeyPatch, spoiled: Callable[[bytes], bytes], times: int) -> None:
    """Spoil the files of answers that are downloaded, so many times."""
    real, left = server._file, iter(range(times))

    def file(method: str, name: str, *rest: str) -> tuple[int, Any]:
        status, body = real(method, name, *rest)
        return status, spoiled(body) if rest == ("content",) and next(left, None) is not None else body

    patch.setattr(server, "_file", file)


@pytest.mark.parametrize(
    ("whole", "spoiled"),
    [
        (0, lambda body: b"<html>log in</html>"),
        (4, lambda body: b"".join(body.splitlines(keepends=True)[:4])),
        (7, lambda body: body[:-20]),
    ],
)
def test_answers_that_do_not_come_whole_stay_at_the_server(
    whole: int, spoiled: Callable[[bytes], bytes], server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(server, patch, spoiled, times=1_000)
        with pytest.raises(DescriberError, match=rf"not whole: {whole} of 8 can be read.*give the same command again"):
            describe(config())
    outcome = describe(config())
    assert outcome.summary["already_described"] + outcome.summary["described"] == 8
    assert len(server.batches) == 1 and set(server.paid.values()) == {1}


def test_answers_that_are_cut_within_the_last_line_are_downloaded_again(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(server, monkeypatch, lambda body: body[:-20], times=2)
    assert describe(config()).summary["described"] == 8
    assert server.requests.count("GET /v1/files/file-output-0/content") == 3


def test_the_file_of_answers_may_be_named_a_while_after_the_end(server: BatchServer, config: Any) -> None:
    server.late = 3
    assert describe(config()).summary["described"] == 8
    assert lines_of(server) == [8]


def test_a_file_of_answers_that_is_never_named_is_not_waited_for_without_end(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "PATIENCE_S", 0.05)
    server.late = 1_000_000
    outcome = describe(config())
    assert outcome.summary["failed"] == 8 and server.late < 999_999
    assert {item.reason for item in outcome.skipped} == {"the batch completed without an answer to this request"}


def test_an_image_that_cannot_be_decoded_is_named_and_never_sent(
    server: BatchServer, config: Any, pictures: Path
) -> None:
    (pictures / "bad.png").write_bytes(b"no picture")
    outcome = describe(config())
    assert outcome.summary["described"] == 8 and [item.name for item in outcome.skipped] == ["unlabelled/bad.png"]
    assert lines_of(server) == [8]


@pytest.mark.parametrize(("limit", "value"), [("MAX_LINES", 3), ("MAX_BYTES", 4500)])
def test_requests_are_split_into_parts_of_bounded_size(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(batch_api, limit, value)
    assert describe(config()).summary["described"] == 8
    assert len(server.inputs) >= 3 and sum(lines_of(server)) == 8
    if limit == "MAX_BYTES":
        assert all(len(server.files[batch["input_file_id"]]) <= value for batch in server.batches.values())


def test_few_batches_are_open_at_a_time(server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, "MAX_LINES", 1)
    monkeypatch.setattr(batch_api, "MAX_OPEN", 2)
    server.polls, server.room = 3, 2
    assert describe(config()).summary["described"] == 8
    assert lines_of(server) == [1] * 8


def test_a_run_that_was_stopped_goes_on_and_an_image_that_was_added_meanwhile_is_all_that_is_sent(
    server: BatchServer, config: Any, pictures: Path
) -> None:
    submit_only(server, config())
    assert on_their_way(config()) == {"batches_open": 1, "answers_on_their_way": 8}
    (pictures / "00.png").unlink()
    add_picture(pictures, 8)
    outcome = describe(config())
    assert outcome.summary["described"] == 8 and lines_of(server) == [8, 1]
    # The answer about the image that is gone waits at the server in case it returns.
    assert (outcome.summary["batches_open"], outcome.summary["answers_on_their_way"]) == (1, 1)
    add_picture(pictures, 0)
    outcome = describe(config())
    assert outcome.summary["described"] == 1 and "batches_open" not in outcome.summary
    assert lines_of(server) == [8, 1] and set(server.paid.values()) == {1}


def test_a_limit_leaves_the_other_answers_for_later(server: BatchServer, config: Any) -> None:
    submit_only(server, config())
    assert describe(config(limit=2)).summary["described"] == 2
    assert describe(config()).summary["described"] == 6
    assert lines_of(server) == [8]


@pytest.mark.parametrize("status", [None, 500, 408])
@pytest.mark.parametrize("done", [True, False])
def test_a_batch_whose_creation_was_not_heard_of_is_not_created_again(
    server: BatchServer, config: Any, status: int | None, done: bool
) -> None:
    for _ in range(3):  # older batches of others, over several pages of the list
        server.files["other"] = b""
        server._create(
            {"input_file_id": "other", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {}}
        )
    server.faults = [Fault("POST /v1/batches", status, done=done)]
    assert describe(config()).summary["described"] == 8
    assert set(server.paid.values()) == {1} and len(server.batches) == 4


def test_a_creation_that_takes_effect_late_is_cancelled_again(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = BatchDescriber._find
    looks = iter([lambda *_: None])  # the first look comes before the batch can be seen
    monkeypatch.setattr(BatchDescriber, "_find", lambda *given: next(looks, find)(*given))
    server.faults = [Fault("POST /v1/batches", None, done=True)]
    assert describe(config()).summary["described"] == 8
    assert len(server.batches) == 2 and set(server.paid.values()) == {1}


def test_a_server_that_stays_away_during_creation_leaves_it_to_the_next_run(server: BatchServer, config: Any) -> None:
    server.faults = [Fault("POST /v1/batches", 500, done=True), Fault("GET /v1/batches", 503, times=10_000)]
    with pytest.raises(DescriberError, match="the same command goes on"):
        describe(config())
    server.faults = []
    assert describe(config()).summary["described"] == 8
    assert lines_of(server) == [8]


PAGE = b"<html><body>Bad gateway</body></html>"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /v1/batches/", 500, times=7),
        Fault("GET /v1/batches/", 429, times=2),
        Fault("GET /v1/batches/", 200, times=2, body=PAGE),
        Fault("GET /v1/files/", 503, times=2),
        Fault("POST /v1/files", None, times=1, done=True),
        Fault("POST /v1/batches", 429, times=2),
        Fault("DELETE", 500, times=10),
    ],
    ids=lambda fault: f"{fault.request}-{fault.status}",
)
def test_faults_of_the_moment_are_sat_out(server: BatchServer, config: Any, fault: Fault) -> None:
    server.faults = [fault]
    assert describe(config()).summary["described"] == 8
    assert lines_of(server) == [8] and set(server.paid.values()) == {1}


def test_a_server_that_stays_away_ends_the_run_and_nothing_is_lost(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "PATIENCE_S", 0.05)
    server.faults = [Fault("GET /v1/batches/", 500, times=10_000)]
    with pytest.raises(DescriberError, match="the same command goes on"):
        describe(config())
    server.faults = []
    assert describe(config()).summary["described"] == 8 and lines_of(server) == [8]


def test_requests_that_the_server_finds_wrong_stop_the_run_with_its_reason_and_may_be_sent_again(
    server: BatchServer, config: Any
) -> None:
    server.end = {0: "failed"}
    server.errors = {0: [{"code": "model_not_found", "message": "The model 'tiny' has no batches.", "line": 1}]}
    with pytest.raises(DescriberError, match="The model 'tiny' has no batches"):
        describe(config())
    assert server.deleted == ["file-0"]
    assert describe(config()).summary["described"] == 8


def _error(code: str, message: str = "scripted") -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("POST /v1/files", 401, body=_error("invalid_api_key", f"Incorrect key: {KEY}")), "OPENAI_API_KEY"),
        (Fault("POST /v1/batches", 429, body=_error("insufficient_quota", "no money")), "no money"),
        (Fault("POST /v1/batches", 400, body=_error("billing_hard_limit_reached", "limit")), "limit"),
        (Fault("POST /v1/files", 404, body=_error("not_found", "nothing here")), "nothing here"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_refusal_stops_the_run_leaves_nothing_open_and_never_shows_the_key(
    server: BatchServer, config: Any, fault: Fault, reason: str
) -> None:
    server.faults = [fault]
    with pytest.raises(DescriberError, match=reason) as caught:
        describe(config())
    assert KEY not in str(caught.value) and on_their_way(config()) == {}
    assert describe(config()).summary["described"] == 8 and lines_of(server) == [8]


@pytest.mark.parametrize("room", [3, 1])
def test_where_the_queue_is_full_parts_wait_and_become_as_small_as_they_must(
    server: BatchServer, config: Any, room: int
) -> None:
    server.room, server.polls = room, 3
    assert describe(config()).summary["described"] == 8
    assert set(server.paid.values()) == {1} and max(sum(1 for _ in lines) for lines in server.inputs[-2:]) <= room


def test_a_queue_without_room_for_one_request_is_said(server: BatchServer, config: Any) -> None:
    server.room = 0
    with pytest.raises(DescriberError, match=r"no room for a single request.*Enqueued token limit"):
        describe(config())
    assert on_their_way(config()) == {} and not server.paid


def test_room_is_made_by_batches_of_an_earlier_run(server: BatchServer, config: Any, pictures: Path) -> None:
    submit_only(server, config())
    add_picture(pictures, 9)
    server.room, server.polls = 8, 5
    assert describe(config()).summary["described"] == 9
    assert set(server.paid.values()) == {1}


def test_prompts_of_several_turns_and_other_describers_are_refused_before_anything_is_sent(
    server: BatchServer, config: Any
) -> None:
    with pytest.raises(ConfigError, match="'conversation' has several turns"):
        describe(config(prompt=("paper", "conversation")))
    with pytest.raises(ConfigError, match="--batch goes with openai:MODEL"):
        BatchDescriber(config(describer="transformers:tiny"))
    assert not server.requests


def test_a_batch_of_another_project_is_not_paid_again_and_one_long_gone_is(
    server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_only(server, config())
    server.batches.clear()
    with pytest.raises(DescriberError, match="use the key of the project that submitted it"):
        describe(config())
    monkeypatch.setattr(batch_api, "KEPT_DAYS", 0)
    assert describe(config()).summary["failed"] == 8
    assert describe(config()).summary["described"] == 8


def test_answers_that_the_server_threw_away_are_failures(server: BatchServer, config: Any) -> None:
    server.faults = [Fault("GET /v1/files/", 404, times=1)]
    outcome = describe(config())
    assert {item.reason for item in outcome.skipped} == {"the server no longer has the answer"}
    assert describe(config()).summary["described"] == 8


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
    monkeypatch.setattr(batch_api, "MAX_BODY", 100_000)
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


REFUSAL = "I'm sorry, I can't help with that."


def refuse(body: dict[str, Any]) -> dict[str, Any]:
    return chat_completion([REFUSAL] * (body.get("n") or 1))


def stop_in_batch(number: int, server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once the batch of this number is at the server, which works on it until it is told otherwise."""
    create = server._create

    def create_and_stop(asked: dict[str, Any]) -> Any:
        if len(server.batches) == number:
            server.polls = 1_000_000
            os.kill(os.getpid(), signal.SIGINT)
        return create(asked)

    monkeypatch.setattr(server, "_create", create_and_stop)


@pytest.fixture
def direct() -> Iterator[Stub]:
    """The same model, asked directly."""
    with serve(lambda call: answer("A shape of some kind.")) as stub:
        yield stub


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("second", [describe_ok, refuse])
def test_a_second_try_that_is_on_its_way_is_collected_and_is_the_last_one(
    second: Any, samples: int, server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = refuse
    asked = config(reject=("refusal",), samples=samples, temperature=1.0)
    with monkeypatch.context() as patch:
        stop_in_batch(1, server, patch)
        with pytest.raises(KeyboardInterrupt):
            describe(asked)
    assert on_their_way(asked) == {"batches_open": 1, "answers_on_their_way": 8 * samples}
    server.answer, server.polls = second, 1
    outcome = describe(asked)
    counts = outcome.summary["described"], outcome.summary["rejected"]
    assert counts == ((8 * samples, 0) if second is describe_ok else (0, 8 * samples))
    assert {item.reason for item in outcome.skipped} <= {"the answer is no description: refusal"}
    assert "batches_open" not in outcome.summary and len(server.batches) == 2
    assert describe(asked).summary["already_described"] == counts[0] and len(server.batches) == 2


@pytest.mark.parametrize("options", [{"batch": False}, {"dry_run": True}])
def test_calls_that_would_pay_again_for_what_is_on_its_way_are_refused(
    options: dict[str, Any], server: BatchServer, config: Any
) -> None:
    submit_only(server, config())
    calls = len(server.requests)
    with pytest.raises(ConfigError, match=r"8 requests are pending in 'batch_0' .*--batch, .*cancel"):
        describe(config(**options))
    assert len(server.requests) == calls
    assert describe(config()).summary["described"] == 8 and set(server.paid.values()) == {1}
    assert describe(config(batch=False)).summary["already_described"] == 8


@pytest.mark.parametrize("batch", [False, True])
def test_parts_that_a_batch_with_others_brings_are_not_paid_for(batch: bool, server: BatchServer, config: Any) -> None:
    submit_only(server, config())
    calls = len(server.requests)
    with pytest.raises(ConfigError, match=r"8 images are pending in 'batch_0' .*some of the requested"):
        describe(config(ask="description,tags", batch=batch))
    assert len(server.requests) == calls
    assert describe(config()).summary["described"] == 8


def test_calls_about_what_is_not_on_its_way_are_made(
    server: BatchServer, direct: Stub, config: Any, pictures: Path
) -> None:
    named = {"server_name": "cluster"}
    asked_directly = config(batch=False, base_url=direct.url, **named)
    submit_only(server, config(**named))
    with pytest.raises(ConfigError, match="are pending"):
        describe(asked_directly)
    for number in range(8):
        (pictures / f"{number:02}.png").unlink()
    add_picture(pictures, 8)
    assert describe(asked_directly).summary["described"] == 1 == len(direct.calls)
    assert on_their_way(config(**named)) == {"batches_open": 1, "answers_on_their_way": 8}


def test_a_batch_that_is_cancelled_at_the_server_is_given_up(server: BatchServer, direct: Stub, config: Any) -> None:
    named = {"server_name": "cluster"}
    submit_only(server, config(**named))
    server._batch("POST", "batch_0", "cancel")
    assert describe(config(**named)).summary["failed"] == 8 and lines_of(server) == [8]
    assert describe(config(batch=False, base_url=direct.url, **named)).summary["described"] == 8


@pytest.mark.parametrize("ended", [False, True])
def test_a_batch_whose_answers_all_came_otherwise_is_cancelled(
    ended: bool, server: BatchServer, config: Any, pictures: Path
) -> None:
    submit_only(server, config())
    if ended:
        server._batch("GET", "batch_0")
    server.polls = 9
    with DescriptionStore(config().store, write=True) as store:
        given = {"describer": BatchDescriber(config()).settings, "created": time.time(), "text": "A shape."}
        store.add(Description(digest=asked.digest, prompt=asked.prompt, **given) for asked in requests_of(config()))
    add_picture(pictures, 8)
    assert describe(config()).summary["described"] == 1
    assert server.batches["batch_0"]["status"] == ("completed" if ended else "cancelled")
    assert on_their_way(config()) == {}


SETTINGS = {"kind": "openai", "model": "tiny"}


PROMPT = Prompt("paper", 1, "What is this?", class_conditioned=False)


def request(number: int, **others: Any) -> Request:
    values: dict[str, Any] = {"keys": (f"k{number}",), "prompt": PROMPT, "turns": ("What is this?",), "read": bytes}
    return Request(digest=f"{number:064x}", **{**values, **others})


def description(number: int, **others: Any) -> Description:
    values: dict[str, Any] = {"created": time.time(), "text": "a text", **others}
    return Description(digest=f"{number:064x}", prompt=PROMPT, describer=SETTINGS, **values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([description(1000)])
    return tmp_path / "a.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, SETTINGS) as opened:
        yield opened


def test_a_batch_is_known_again_with_all_that_was_noted(path: Path, ledger: Ledger) -> None:
    first = ledger.add([request(1), request(2, sample=3)])
    second = ledger.add([request(3)])
    ledger.note(first, "input_file", "file-1")
    ledger.note(first, "server_id", "batch-1")
    with Ledger(path, dict(reversed(SETTINGS.items()))) as again:
        assert again.open_batches() == [replace(first, wanted={}), replace(second, wanted={})]
        assert first.input_file == "file-1" and again.open_batches()[0].server_id == "batch-1"
        assert again.place(request(2, sample=3)) == (first.row, 1, 0)
        assert again.place(request(2)) is None is again.place(request(4))
        assert (again.items_left(), again.items_left(first.row)) == (3, 2)


def test_what_is_pending_cannot_be_noted_again_and_nothing_of_that_batch_is(ledger: Ledger) -> None:
    ledger.add([request(1)])
    with pytest.raises(StoreError, match="UNIQUE"):
        ledger.add([request(2), request(1)])
    assert len(ledger.open_batches()) == 1 and not ledger.place(request(2))


def test_an_answer_that_reached_the_store_before_the_ledger_heard_of_it_is_forgotten(
    path: Path, ledger: Ledger
) -> None:
    before = time.time() - 60
    with DescriptionStore(path, write=True) as store:
        store.add([description(5, created=before, text="I cannot help with that.", error="refusal")])
    batch = ledger.add([request(number) for number in range(1, 6)])
    with DescriptionStore(path, write=True) as store:
        rejected = description(2, text="I cannot help with that.", error="refusal")
        failed = description(3, text=None, error="the server was gone")
        store.add([description(1), rejected, failed])
    with Ledger(path, SETTINGS) as again:
        assert [bool(again.place(request(number))) for number in range(1, 6)] == [False, False, True, True, True]
        assert again.open_batches() == [replace(batch, wanted={})]
