"""describe --batch against a Batch API on loopback: nothing is paid twice and nothing lost, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_server import BatchServer, Fault, describe_ok, serving
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, DescriberError, StoreError
from gpt4image.config import DescribeConfig
from gpt4image.data import load_dataset
from gpt4image.describing.describe import describe
from gpt4image.describing.describers import batch as batch_api
from gpt4image.describing.describers.base import Request
from gpt4image.describing.describers.batch import BatchDescriber, Ledger
from gpt4image.describing.describers.openai import server as untrusted
from openai_stub import Stub, answer, completion, serve

KEY = "sk-test-51f0c0ffee"
Config = Callable[..., DescribeConfig]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch_api, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(batch_api, "SETTLING_S", 0.2)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with serving(BatchServer()) as script:
        yield script
    assert script.authorisations <= {f"Bearer {KEY}"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(8):
        add_picture(tmp_path / "set" / "unlabelled", number)
    return tmp_path / "set" / "unlabelled"


def add_picture(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(noise).save(folder / f"{number:02}.png")


@pytest.fixture
def config(server: BatchServer, pictures: Path, tmp_path: Path) -> Config:
    (tmp_path / "prices.json").write_text('{"tiny": {"input": 10.0, "output": 100.0}}')

    def with_options(**options: Any) -> DescribeConfig:
        data: Any = {"data": f"folder:{pictures.parent}", "store": tmp_path / "a.db", "describer": "openai:tiny"}
        calls: Any = {"base_url": server.url, "batch": True, "poll_seconds": 0.01, "retries": 2, "reject": ()}
        return DescribeConfig(**{**data, **calls, **options})

    return with_options


def run(config: DescribeConfig, **counts: Any) -> Any:
    outcome = describe(config)
    assert {name: outcome.summary.get(name, 0) for name in counts} == counts
    return outcome


def requests_of(config: DescribeConfig) -> list[Request]:
    images, prompt = load_dataset(config.data), PROMPTS["short"]
    return [
        Request(digest=digest, keys=(key,), prompt=prompt, turns=(prompt.text,), read=lambda row=row: images.read(row))
        for row, (key, digest) in enumerate(zip(images.keys, images.digests, strict=True))
    ]


def submit_only(server: BatchServer, config: DescribeConfig) -> None:
    """Break off while the requests are at the server."""
    polls, server.polls = server.polls, 1_000_000
    with DescriptionStore(config.store, write=True):
        groups = BatchDescriber(config).describe(requests_of(config))
        while not server.batches:
            assert next(groups) == []
        next(groups)
        groups.close()  # type: ignore[attr-defined]
    server.polls = polls


def on_their_way(config: DescribeConfig) -> tuple[Any, ...]:
    """Open batches, and answers that are pending in them."""
    return tuple(BatchDescriber(config).report(load_dataset(config.data)).facts.values())


def lines_of(server: BatchServer) -> list[int]:
    return [len(lines) for lines in server.inputs]


def paid_once(server: BatchServer) -> bool:
    return set(server.paid.values()) == {1}


def texts(config: DescribeConfig) -> list[str]:
    with DescriptionStore(config.store) as store:
        return sorted(row.text for row in store.texts())


def in_turn(*said: Any, then: Any = describe_ok) -> Callable[[dict[str, Any]], Any]:
    """What the server says of each line; of later ones, what ``then`` does."""
    waiting = iter(said)

    def say(body: dict[str, Any]) -> Any:
        one = next(waiting, then)
        return one(body) if callable(one) else one

    return say


# The way of a batch


def test_every_image_is_described_at_half_the_price_and_a_second_run_sends_nothing(
    server: BatchServer, config: Config, tmp_path: Path
) -> None:
    asked = config(prices=tmp_path / "prices.json")
    outcome = run(asked, described=8, batches_open=0, cost_usd=pytest.approx(8 * (100 * 10 + 10 * 100) / 1e6 / 2))
    assert outcome.skipped == () and paid_once(server) and server.deleted == ["file-0"]
    said = [describe_ok(line["body"])["choices"][0]["message"]["content"] for line in server.inputs[0]]
    assert texts(asked) == sorted(said)
    calls = len(server.requests)
    run(asked, already_described=8)
    run(config(batch=False), already_described=8)
    assert len(server.requests) == calls


def test_classes_are_asked_for_by_schema_and_each_sample_in_its_own_order(server: BatchServer, config: Config) -> None:
    def say(body: dict[str, Any]) -> Any:
        assert body["response_format"]["type"] == "json_schema" and "logprobs" not in body and "n" not in body
        return completion('{"class": "Squares", "confidence": 0.7}')

    server.answer = say
    asked = config(ask="class", classes="square, circle, disc, oval", samples=2, temperature=1.0)
    run(asked, described=16, class_in_list=16)
    assert len({json.dumps(line["body"]["messages"][-1]["content"][-1]) for line in server.inputs[0]}) > 6
    with DescriptionStore(asked.store) as store:
        found = {(one.answer.class_name, one.answer.said, one.sample) for one in store.answers()}
    assert found == {("square", "Squares", 0), ("square", "Squares", 1)}
    run(asked, already_described=16)
    assert lines_of(server) == [16]


def test_a_batch_whose_model_has_no_schemas_says_how_to_go_on(server: BatchServer, config: Config) -> None:
    wrong = 400, {"error": {"message": "'response_format' of type 'json_schema' is not supported"}}
    server.answer = lambda body: wrong if body["response_format"] else completion('{"class": "square"}')
    options = {"ask": "class", "classes": "square, circle"}
    outcome = run(config(**options), failed=8)
    assert all("--extra-body '{\"response_format\": null}'" in item.reason for item in outcome.skipped)
    run(config(**options, extra_body={"response_format": None}), described=8)


def test_prompts_of_several_turns_and_other_describers_are_refused_before_anything_is_sent(
    server: BatchServer, config: Config
) -> None:
    with pytest.raises(ConfigError, match="'conversation' has several turns"):
        describe(config(prompt=("paper", "conversation")))
    with pytest.raises(ConfigError, match="--batch goes with openai:MODEL"):
        BatchDescriber(config(describer="transformers:tiny"))
    assert not server.requests


def test_an_image_that_cannot_be_decoded_is_named_and_never_sent(
    server: BatchServer, config: Config, pictures: Path
) -> None:
    (pictures / "bad.png").write_bytes(b"no picture")
    outcome = run(config(), described=8)
    assert [item.name for item in outcome.skipped] == ["unlabelled/bad.png"] and lines_of(server) == [8]


@pytest.mark.parametrize(("limit", "value"), [("MAX_LINES", 3), ("MAX_BYTES", 4500)])
def test_requests_are_split_into_parts_of_bounded_size(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(batch_api, limit, value)
    run(config(), described=8)
    assert len(server.inputs) >= 3 and sum(lines_of(server)) == 8
    if limit == "MAX_BYTES":
        assert all(len(server.files[batch["input_file_id"]]) <= value for batch in server.batches.values())


def test_few_batches_are_open_at_a_time(server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, "MAX_LINES", 1)
    monkeypatch.setattr(batch_api, "MAX_OPEN", 2)
    server.polls, server.room = 3, 2
    run(config(), described=8)
    assert lines_of(server) == [1] * 8


@pytest.mark.parametrize("room", [3, 1])
def test_where_the_queue_is_full_parts_wait_and_become_as_small_as_they_must(
    server: BatchServer, config: Config, room: int
) -> None:
    server.room, server.polls = room, 3
    run(config(), described=8)
    assert paid_once(server) and max(lines_of(server)[-2:]) <= room


def test_a_queue_without_room_for_one_request_is_said(server: BatchServer, config: Config) -> None:
    server.room = 0
    with pytest.raises(DescriberError, match=r"no room for a single request.*Enqueued token limit"):
        describe(config())
    assert on_their_way(config()) == () and not server.paid


# Runs that were stopped


def test_a_run_that_was_stopped_goes_on_and_an_image_that_was_added_meanwhile_is_all_that_is_sent(
    server: BatchServer, config: Config, pictures: Path
) -> None:
    submit_only(server, config())
    assert on_their_way(config()) == (1, 8)
    run(config(limit=2), described=2)  # the other answers wait
    (pictures / "00.png").unlink()
    add_picture(pictures, 8)
    server.room, server.polls = 8, 5  # room is made by the batch of the earlier run
    described = run(config()).summary["described"]
    assert described in (6, 7) and lines_of(server)[0] == 8 and sum(lines_of(server)) >= 9
    # The answer about the image that is gone waits at the server in case it returns.
    assert on_their_way(config()) == ((1, 1) if described == 6 else ())
    add_picture(pictures, 0)
    run(config(), batches_open=0, without_description=0)
    assert paid_once(server)


@pytest.mark.parametrize("second", [describe_ok, lambda _: completion(REFUSAL)])
def test_a_second_try_that_is_on_its_way_is_collected_and_is_the_last_one(
    second: Any, server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _: completion(REFUSAL)
    asked, create = config(reject=("refusal",), samples=2, temperature=1.0), server.create

    def create_and_stop(asked: dict[str, Any]) -> Any:
        if len(server.batches) == 1:  # press Ctrl-C, and work on it until told otherwise
            server.polls = 1_000_000
            os.kill(os.getpid(), signal.SIGINT)
        return create(asked)

    with monkeypatch.context() as patch:
        patch.setattr(server, "create", create_and_stop)
        with pytest.raises(KeyboardInterrupt):
            describe(asked)
    assert on_their_way(asked) == (1, 16)
    server.answer, server.polls = second, 1
    good = 16 if second is describe_ok else 0
    outcome = run(asked, described=good, rejected=16 - good, batches_open=0)
    assert {item.reason for item in outcome.skipped} <= {"the answer is no description: refusal"}
    run(asked, already_described=good)
    assert len(server.batches) == 2


REFUSAL = "I'm sorry, I can't help with that."


@pytest.fixture
def direct() -> Iterator[Stub]:
    """The same model, asked directly."""
    with serve(lambda call: answer("A shape of some kind.")) as stub:
        yield stub


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": False}, r"8 requests are pending in 'batch_0' .*--batch, .*cancel"),
        ({"dry_run": True}, r"8 requests are pending in 'batch_0'"),
        ({"ask": "description,tags"}, r"8 images are pending in 'batch_0' .*some of the requested"),
        ({"ask": "description,tags", "batch": False}, r"8 images are pending in 'batch_0'"),
    ],
)
def test_calls_that_would_pay_again_for_what_is_on_its_way_are_refused(
    options: dict[str, Any], message: str, server: BatchServer, config: Config
) -> None:
    submit_only(server, config())
    calls = len(server.requests)
    with pytest.raises(ConfigError, match=message):
        describe(config(**options))
    assert len(server.requests) == calls
    run(config(), described=8)
    run(config(batch=False), already_described=8)
    assert paid_once(server)


def test_calls_about_what_is_not_on_its_way_are_made(
    server: BatchServer, direct: Stub, config: Config, pictures: Path
) -> None:
    named = {"server_name": "cluster"}
    submit_only(server, config(**named))
    for number in range(8):
        (pictures / f"{number:02}.png").unlink()
    add_picture(pictures, 8)
    run(config(batch=False, base_url=direct.url, **named), described=1)
    assert direct.count == 1 and on_their_way(config(**named)) == (1, 8)


def test_a_batch_that_is_cancelled_at_the_server_is_given_up(server: BatchServer, config: Config) -> None:
    submit_only(server, config())
    server.batch("POST", "batch_0", "cancel")
    run(config(), failed=8)
    assert lines_of(server) == [8]
    run(config(), described=8)


@pytest.mark.parametrize("ended", [False, True])
def test_a_batch_whose_answers_all_came_otherwise_is_cancelled(
    ended: bool, server: BatchServer, config: Config, pictures: Path
) -> None:
    submit_only(server, config())
    if ended:
        server.batch("GET", "batch_0")
    server.polls = 9
    with DescriptionStore(config().store, write=True) as store:
        given = {"describer": BatchDescriber(config()).settings, "created": time.time(), "text": "A shape."}
        store.add(Description(digest=asked.digest, prompt=asked.prompt, **given) for asked in requests_of(config()))
    add_picture(pictures, 8)
    run(config(), described=1)
    assert server.batches["batch_0"]["status"] == ("completed" if ended else "cancelled")
    assert on_their_way(config()) == ()


# Answers


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_did_before_it_ended_early_is_kept_and_the_rest_asked_by_the_next_run(
    server: BatchServer, config: Config, end: str
) -> None:
    expired = {"code": "batch_expired", "message": "This request could not be executed before the batch expired."}
    server.end, server.answer = {0: end}, in_turn(*([describe_ok, lambda _: None, expired] * 3)[:8])
    outcome = run(config(), described=3, failed=5)
    assert {item.reason.split(" ")[0] for item in outcome.skipped} == {"the", "This"}
    run(config(), described=5)
    assert lines_of(server) == [8, 5]


GOOD = "a good text\u2028with a line separator"
OK_BODY = json.dumps({"status_code": 200, "body": completion("x")})
FILTERED = completion("half of", finish="content_filter")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            [
                completion(GOOD),
                '{"custom_id": "1", "response": {"status_',
                (400, {"message": "Your image was kept back", "code": "content_policy_violation"}),
                (500, {"message": f"broken, as {KEY} is", "code": None}),
                completion(),
                completion("good") | {"choices": None},
                f'{{"custom_id": "nobody\'s", "response": {OK_BODY}}}',
                FILTERED,
            ],
            {(GOOD, "stop"), ("half of", "content_filter"), ("", "content_filter")},
        ),
        (
            [
                f'{{"custom_id": 1e999, "response": {OK_BODY}}}',
                f'{{"custom_id": "{"9" * 5000}", "response": {OK_BODY}}}',
                '{"custom_id": "5", "response": ' + "[" * 1200 + "]" * 1200 + "}",
                f'{{"custom_id": "4", "response": {{"status_code": {"9" * 5000}, "body": {{}}}}}}',
                '{"custom_id": "\\ud800", "response": {"status_code": 200, "body": {}}}',
                completion("x") | {"padding": "x" * 300_000},
                completion(f"A cat, says {KEY}."),
                completion(f"A cat, says {KEY}."),
            ],
            {("A cat, says ***.", "stop")},
        ),
    ],
)
def test_bad_lines_cost_only_themselves_and_lock_nothing(
    said: list[Any], kept: set[Any], server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MAX_BODY", 100_000)
    server.answer = in_turn(*said)
    outcome = describe(config())
    failed = outcome.summary["failed"]
    assert outcome.summary["described"] == 8 - failed and not any(KEY in item.reason for item in outcome.skipped)
    with DescriptionStore(config().store) as store:
        assert {(row.text, row.finish_reason) for row in store.descriptions()} == kept
    assert on_their_way(config()) == ()
    run(config(), described=failed)


@pytest.mark.parametrize(
    ("whole", "spoil"),
    [
        (0, lambda body: b"<html>log in</html>"),
        (4, lambda body: b"".join(body.splitlines(keepends=True)[:4])),
        (7, lambda body: body[:-20]),
    ],
)
def test_answers_that_do_not_come_whole_stay_at_the_server(
    whole: int, spoil: Callable[[bytes], bytes], server: BatchServer, config: Config
) -> None:
    server.spoil = spoil
    with pytest.raises(DescriberError, match=rf"not whole: {whole} of 8 can be read.*give the same command again"):
        describe(config())
    server.spoil = bytes
    run(config(), without_description=0)
    assert len(server.batches) == 1 and paid_once(server)


def test_answers_that_are_cut_within_the_last_line_are_downloaded_again(server: BatchServer, config: Config) -> None:
    cuts = iter([20, 20])
    server.spoil = lambda body: body[: len(body) - next(cuts, 0)]
    run(config(), described=8)
    assert server.requests.count("GET /v1/files/file-output-0/content") == 3


def test_a_file_without_end_is_read_up_to_a_limit(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MAX_FILE", 100_000)
    server.spoil = lambda body: body + b"{}\n" * 1_000_000
    outcome = describe(config())
    assert outcome.summary["described"] + outcome.summary["failed"] == 8 and on_their_way(config()) == ()


@pytest.mark.parametrize(("late", "described"), [(3, 8), (1_000_000, 0)])
def test_the_file_of_answers_may_be_named_a_while_after_the_end_and_is_not_waited_for_without_end(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch, late: int, described: int
) -> None:
    if not described:
        monkeypatch.setattr(batch_api, "PATIENCE_S", 0.05)
    server.late = late
    outcome = run(config(), described=described, failed=8 - described)
    assert lines_of(server) == [8] and server.late < 999_999
    assert {item.reason for item in outcome.skipped} <= {"the batch completed without an answer to this request"}


# Faults


@pytest.mark.parametrize(("status", "done"), [(None, True), (500, True), (408, True), (None, False), (500, False)])
def test_a_batch_whose_creation_was_not_heard_of_is_not_created_again(
    server: BatchServer, config: Config, status: int | None, done: bool
) -> None:
    server.files["other"] = b""
    others = {"input_file_id": "other", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {}}
    for _ in range(3):  # older batches, over several pages of the list
        server.create(others)
    server.faults = [Fault("POST /v1/batches", status, done=done)]
    run(config(), described=8)
    assert paid_once(server) and len(server.batches) == 4


def test_a_creation_that_takes_effect_late_is_cancelled_again(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = BatchDescriber._find
    looks = iter([lambda *_: None])  # the first look comes before the batch can be seen
    monkeypatch.setattr(BatchDescriber, "_find", lambda *given: next(looks, find)(*given))
    server.faults = [Fault("POST /v1/batches", None, done=True)]
    run(config(), described=8)
    assert len(server.batches) == 2 and paid_once(server)


AWAY = 10_000


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("POST /v1/batches", 500, done=True), Fault("GET /v1/batches", 503, times=AWAY)],
        [Fault("GET /v1/batches/", 500, times=AWAY)],
    ],
)
def test_a_server_that_stays_away_ends_the_run_and_the_next_one_goes_on(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]
) -> None:
    monkeypatch.setattr(batch_api, "PATIENCE_S", 0.05)
    server.faults = faults
    with pytest.raises(DescriberError, match="the same command goes on"):
        describe(config())
    server.faults = []
    run(config(), described=8)
    assert lines_of(server) == [8]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("GET /v1/batches/", 500, times=7), Fault("GET /v1/files/", 503, times=2)],
        [Fault("GET /v1/batches/", 429, times=2), Fault("POST /v1/batches", 429, times=2)],
        [Fault("GET /v1/batches/", 200, times=2, body=b"<html><body>Bad gateway</body></html>")],
        [Fault("POST /v1/files", None, done=True), Fault("DELETE", 500, times=AWAY)],
        [
            Fault("GET /v1/batches/", 200, body=body)  # of another shape than any batch
            for body in (
                {"id": 7, "object": "batch", "status": "completed"},
                {"id": "batch_0", "status": ["completed"]},
                {"id": "batch_0", "status": "completed", "request_counts": "all"},
                {"id": "batch_0", "status": "completed", "output_file_id": "x" * 10_000},
                {"id": "batch_0", "status": "failed", "errors": {"data": 7}},
                b'{"id": "\xff"}',
            )
        ],
    ],
)
def test_faults_of_the_moment_are_sat_out(server: BatchServer, config: Config, faults: list[Fault]) -> None:
    server.faults = [replace(fault) for fault in faults]
    run(config(), described=8)
    assert lines_of(server) == [8] and paid_once(server) and not any(f.times for f in server.faults if f.times < 100)


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("POST /v1/files", 401, body=_error("invalid_api_key", f"Incorrect key: {KEY}")), "OPENAI_API_KEY"),
        (Fault("POST /v1/batches", 429, body=_error("insufficient_quota", "no money")), "no money"),
        (Fault("POST /v1/batches", 400, body=_error("billing_hard_limit_reached", "limit")), "limit"),
        (Fault("POST /v1/files", 404, body=_error("not_found", "nothing here")), "nothing here"),
        (Fault("POST /v1/files", 200, body={"id": "f", "padding": "x" * 200_000}), "uploaded: the answer is longer"),
        *(
            (Fault(what, 307, headers={"location": f"http://else.test:81/?key={KEY}"}), r"redirected to else\.test:81;")
            for what in ("POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/file-output")
        ),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_refusal_stops_the_run_and_never_shows_the_key(
    server: BatchServer, config: Config, fault: Fault, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MAX_BODY", 100_000)
    fault = replace(fault, body=fault.body if fault.status != 307 else b"")
    server.faults = [fault]
    with pytest.raises(DescriberError, match=reason) as caught:
        describe(config())
    assert KEY not in str(caught.value) and (on_their_way(config()) == () or fault.request.startswith("GET"))
    run(config(), described=8)
    assert lines_of(server) == [8]


def test_requests_that_the_server_finds_wrong_stop_the_run_with_its_reason_and_may_be_sent_again(
    server: BatchServer, config: Config
) -> None:
    server.end = {0: "failed"}
    server.errors = {0: [{"code": "model_not_found", "message": "The model 'tiny' has no batches.", "line": 1}]}
    with pytest.raises(DescriberError, match="The model 'tiny' has no batches"):
        describe(config())
    assert server.deleted == ["file-0"]
    run(config(), described=8)


def test_a_batch_of_another_project_is_not_paid_again_and_one_long_gone_is(
    server: BatchServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_only(server, config())
    server.batches.clear()
    with pytest.raises(DescriberError, match="use the key of the project that submitted it"):
        describe(config())
    monkeypatch.setattr(batch_api, "KEPT_DAYS", 0)
    run(config(), failed=8)
    server.faults = [Fault("GET /v1/files/", 404)]
    outcome = run(config(), failed=8)
    assert {item.reason for item in outcome.skipped} == {"the server no longer has the answer"}
    run(config(), described=8)


# Money


def test_an_answer_that_cannot_be_read_counts_at_its_dearest(
    server: BatchServer, config: Config, tmp_path: Path
) -> None:
    server.answer = in_turn(describe_ok, then=completion() | {"usage": None})
    outcome = describe(config(prices=tmp_path / "prices.json", max_cost=0.01, max_tokens=20))
    call, dearest, unreadable = 0.002 / 2, 0.00325 / 2, outcome.summary["failed"]
    assert unreadable and outcome.summary["cost_usd"] == pytest.approx(call + unreadable * dearest)
    assert outcome.summary["cost_usd"] <= 0.01
    with DescriptionStore(config().store) as store:
        assert sum(row.cost_usd or 0.0 for row in store.descriptions()) == pytest.approx(call)


def test_answers_of_earlier_runs_let_the_first_batch_hold_what_fits(
    server: BatchServer, config: Config, tmp_path: Path
) -> None:
    limits = {"prices": tmp_path / "prices.json", "max_cost": 1.0, "max_tokens": 20}
    describe(config(limit=2, **limits))
    assert lines_of(server) == [1, 1], "nothing is known of the first"
    run(config(**limits), described=6)
    assert lines_of(server) == [1, 1, 6]


def test_what_is_in_a_batch_counts_in_the_limit_of_the_next_run(
    server: BatchServer, config: Config, tmp_path: Path
) -> None:
    limits = {"prices": tmp_path / "prices.json", "max_tokens": 20}
    describe(config(limit=1, max_cost=1.0, **limits))
    submit_only(server, config(limit=3, max_cost=1.0, **limits))
    # A call costs 0.001, and may cost 0.001625.
    run(config(max_cost=0.0056, **limits), cost_usd=pytest.approx(0.004), stopped_by="--max-cost 0.0056")
    assert sum(lines_of(server)) == 4
    run(config(max_cost=0.0057, **limits), described=1)


# The ledger

SETTINGS = {"kind": "openai", "model": "tiny"}
PROMPT = Prompt("paper", 1, "What is this?", class_conditioned=False)


def request(number: int, sample: int = 0) -> Request:
    return Request(digest=f"{number:064x}", keys=("k",), prompt=PROMPT, turns=("?",), read=bytes, sample=sample)


def description(number: int, **others: Any) -> Description:
    values: dict[str, Any] = {"created": time.time(), "text": "a text", **others}
    return Description(digest=f"{number:064x}", prompt=PROMPT, describer=SETTINGS, **values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([description(1000)])
    return tmp_path / "a.db"


def test_a_batch_is_known_again_with_all_that_was_noted_and_nothing_pending_is_noted_twice(path: Path) -> None:
    with Ledger(path, SETTINGS) as ledger:
        first, second = ledger.add([request(1), request(2, sample=3)]), ledger.add([request(3)])
        ledger.note(first, "input_file", "file-1")
        ledger.note(first, "server_id", "batch-1")
        with pytest.raises(StoreError, match="UNIQUE"):
            ledger.add([request(4), request(1)])
    with Ledger(path, dict(reversed(SETTINGS.items()))) as again:
        assert again.open_batches() == [replace(first, wanted={}), replace(second, wanted={})]
        assert first.input_file == "file-1" and again.open_batches()[0].server_id == "batch-1"
        assert again.place(request(2, sample=3)) == (first.row, 1, 0)
        assert again.place(request(2)) is None is again.place(request(4))
        assert (again.items_left(), again.items_left(first.row)) == (3, 2)


def test_an_answer_that_reached_the_store_before_the_ledger_heard_of_it_is_forgotten(path: Path) -> None:
    refused = {"text": "I cannot help with that.", "error": "refusal"}
    with DescriptionStore(path, write=True) as store:
        store.add([description(5, created=time.time() - 60, **refused)])
    with Ledger(path, SETTINGS) as ledger:
        batch = ledger.add([request(number) for number in range(1, 6)])
    with DescriptionStore(path, write=True) as store:
        store.add([description(1), description(2, **refused), description(3, text=None, error="the server was gone")])
    with Ledger(path, SETTINGS) as again:
        places = [again.place(request(number)) for number in range(1, 6)]
        assert list(map(bool, places)) == [False, False, True, True, True]
        assert again.open_batches() == [replace(batch, wanted={})]
