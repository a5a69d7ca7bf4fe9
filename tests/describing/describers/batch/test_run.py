"""describe --batch against a Batch API on loopback: nothing is paid twice and nothing lost, whatever happens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_cases import KEY, add_picture, lines_of, on_their_way, submit_only, texts
from batch_server import BatchServer, Fault, chat_completion, describe_ok
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.batch import api as batch_api
from gpt4image.describing.describers.batch import run as batch_run
from gpt4image.describing.describers.batch.api import BusyError
from gpt4image.describing.describers.batch.describer import BatchDescriber


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


def test_several_samples_share_a_line_and_are_told_apart(server: BatchServer, config: Any) -> None:
    assert describe(config(samples=3, temperature=1.0)).summary["described"] == 24
    assert lines_of(server) == [8] and {line["body"]["n"] for line in server.inputs[0]} == {3}
    assert describe(config(samples=5, temperature=1.0)).summary["described"] == 16
    assert lines_of(server) == [8, 8] and {line["body"]["n"] for line in server.inputs[1]} == {2}
    assert {text[-6:] for text in texts(config())} == {f"try {number}." for number in range(3)}


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


def test_boxes_are_asked_for_by_schema_and_another_convention_sends_no_second_batch(
    server: BatchServer, config: Any
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        assert "boxes" in body["response_format"]["json_schema"]["schema"]["properties"] and "n" not in body
        return chat_completion(['{"boxes": [{"label": "square", "box_2d": [3, 0, 9, 6], "words": "small"}]}'])

    server.answer = answer
    asked = config(ask="boxes", classes="square, circle", samples=2, temperature=1.0)
    assert describe(asked).summary["boxes"] == 16 and lines_of(server) == [16]
    outcome = describe(asked.model_copy(update={"box_format": "yxhw-sent"}))
    assert outcome.summary["already_described"] == 16 and lines_of(server) == [16]
    with DescriptionStore(asked.store) as store:
        assert [box["box_2d"] for one in store.answers() for box in one.answer.boxes or ()] == 16 * [
            [0, 250, 500, 1000]
        ]


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
        with pytest.raises(BusyError, match=rf"not whole: {whole} of 8 can be read.*give the same command again"):
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
    monkeypatch.setattr(batch_run, "PATIENCE_S", 0.05)
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
    monkeypatch.setattr(batch_run, limit, value)
    assert describe(config()).summary["described"] == 8
    assert len(server.inputs) >= 3 and sum(lines_of(server)) == 8
    if limit == "MAX_BYTES":
        assert all(len(server.files[batch["input_file_id"]]) <= value for batch in server.batches.values())


def test_few_batches_are_open_at_a_time(server: BatchServer, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "MAX_LINES", 1)
    monkeypatch.setattr(batch_run, "MAX_OPEN", 2)
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
    find = batch_api.BatchApi.find
    looks = iter([lambda *_: None])  # the first look comes before the batch can be seen
    monkeypatch.setattr(batch_api.BatchApi, "find", lambda *given: next(looks, find)(*given))
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
    monkeypatch.setattr(batch_run, "PATIENCE_S", 0.05)
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
    monkeypatch.setattr(batch_run, "KEPT_DAYS", 0)
    assert describe(config()).summary["failed"] == 8
    assert describe(config()).summary["described"] == 8


def test_answers_that_the_server_threw_away_are_failures(server: BatchServer, config: Any) -> None:
    server.faults = [Fault("GET /v1/files/", 404, times=1)]
    outcome = describe(config())
    assert {item.reason for item in outcome.skipped} == {"the server no longer has the answer"}
    assert describe(config()).summary["described"] == 8
