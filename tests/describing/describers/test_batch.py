"""describe --batch against a Batch API on loopback: nothing is paid twice and nothing lost, whatever happens."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_server import BatchServer, Fault, describe_ok, serving
from gpt4image.artifacts.answers import PROMPTS
from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.data import load_dataset
from gpt4image.describing.describe import describe
from gpt4image.describing.describers import batch as batch_api
from gpt4image.describing.describers.base import Request
from gpt4image.describing.describers.batch import BatchDescriber
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.describers.openai import server as untrusted
from gpt4image.describing.prices import Price
from openai_cases import rows_of
from openai_stub import completion

KEY = "sk-test-51f0c0ffee"
PRICE = Price(10.0, 100.0)  # through batches, an answer costs $0.001


@dataclass
class Api:
    """A Batch API, eight pictures in a folder, and describe --batch between them."""

    server: BatchServer
    folder: Path
    patch: pytest.MonkeyPatch

    @property
    def pictures(self) -> Path:
        return self.folder / "set" / "unlabelled"

    def add_picture(self, number: int) -> None:
        self.pictures.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(noise).save(self.pictures / f"{number:02}.png")

    def config(self, **options: Any) -> DescribeConfig:
        data: Any = {"data": f"folder:{self.folder / 'set'}", "store": self.folder / "a.db", "describer": "openai:tiny"}
        calls: Any = {"base_url": self.server.url, "batch": True, "poll_seconds": 0.01, "retries": 2}
        return DescribeConfig(**{**data, **calls, **options})

    def run(self, expected: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Describe; facts of the summary are as expected."""
        outcome, expected = describe(self.config(**options)), expected or {}
        assert {name: {**outcome.facts, **outcome.details}.get(name, 0) for name in expected} == expected
        return outcome

    def requests(self) -> list[Request]:
        images, prompt = load_dataset(self.config().data), PROMPTS["short"]
        given: Any = {"prompt": prompt, "question": prompt.text, "usd": 0.01}
        return [
            Request(digest=digest, keys=(key,), read=lambda row=row: images.read(row), **given)
            for row, (key, digest, split) in enumerate(zip(images.keys, images.digests, images.splits, strict=True))
            if split == "train"
        ]

    def submit_only(self, count: int = 8, **options: Any) -> None:
        """Break off while so many requests are at the server."""
        config, polls = self.config(**options), self.server.polls
        self.server.polls, known = 1_000_000, len(self.server.batches)
        with DescriptionStore(config.store, write=True) as store:
            asked = [
                request for request in self.requests() if request.digest not in {row.digest for row in store.texts()}
            ]
            groups: Any = BatchDescriber(config).describe(asked[:count])
            while len(self.server.batches) == known:
                assert next(groups) == []
            next(groups)
            groups.close()
        self.server.polls = polls

    def on_their_way(self, **options: Any) -> tuple[Any, ...]:
        """Open batches, and answers that are pending in them."""
        config = self.config(**options)
        return tuple(BatchDescriber(config).report(load_dataset(config.data)).facts.values())

    def rows(self) -> list[Description]:
        return rows_of(self.config().store)

    def require_whole_bill(self) -> None:
        """Require that a run without a call counts all that was paid, and not much more than lost answers may cost."""
        paid = self.server.paid.total()
        most = 0.001 * paid + (paid - 8) * PRICE.of(40_000, 512)
        assert 0.001 * paid - 1e-9 <= self.run({"described": 0}, max_cost=100.0).cost_usd <= most + 1e-9

    @property
    def lines(self) -> list[int]:
        return [len(lines) for lines in self.server.inputs]

    @property
    def all_paid_once(self) -> bool:
        return set(self.server.paid.values()) == {1}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch_api, "SETTLING_S", 0.2)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai_describer, "find_price", lambda *_: PRICE)
    with serving(BatchServer()) as server:
        made = Api(server, tmp_path, monkeypatch)
        for number in range(8):
            made.add_picture(number)
        yield made
    assert server.authorisations <= {f"Bearer {KEY}"}


def in_turn(*said: Any, then: Any = describe_ok) -> Callable[[dict[str, Any]], Any]:
    """What the server says of each line; of later ones, what ``then`` does."""
    waiting = iter(said)

    def say(body: dict[str, Any]) -> Any:
        one = next(waiting, then)
        return one(body) if callable(one) else one

    return say


# The way of a batch


def test_every_image_is_described_at_half_the_price_and_a_second_run_sends_nothing(api: Api) -> None:
    (api.pictures / "bad.png").write_bytes(b"no picture")
    cost = pytest.approx(8 * (100 * 10 + 10 * 100) / 1e6 / 2)
    outcome = api.run({"described": 8, "batches_open": 0, "cost_usd": cost})
    assert [item.name for item in outcome.skipped] == ["unlabelled/bad.png"] and api.lines == [8]
    assert api.all_paid_once and api.server.deleted == ["file-0"]
    said = [describe_ok(line["body"])["choices"][0]["message"]["content"] for line in api.server.inputs[0]]
    assert sorted(row.text or "" for row in api.rows()) == sorted(said)
    calls = len(api.server.requests)
    api.run({"already_described": 8})
    api.run({"already_described": 8}, batch=False)
    assert len(api.server.requests) == calls


@pytest.mark.parametrize(("limit", "value"), [("MAX_LINES", 3), ("MAX_BYTES", 4500)])
def test_requests_are_split_into_parts_of_bounded_size(limit: str, value: int, api: Api) -> None:
    api.patch.setattr(batch_api, limit, value)
    api.run({"described": 8})
    assert len(api.server.inputs) >= 3 and sum(api.lines) == 8
    if limit == "MAX_BYTES":
        assert all(len(api.server.files[batch["input_file_id"]]) <= value for batch in api.server.batches.values())


@pytest.mark.parametrize("room", [4, 1])
def test_where_the_queue_is_full_parts_wait_and_become_as_small_as_they_must(room: int, api: Api) -> None:
    api.server.room, api.server.polls = room, 3
    if room == 4:  # some servers say so at once
        api.server.faults = [Fault("POST /v1/batches", 429, body=_error("token_limit_exceeded", "the queue is full"))]
    api.run({"described": 8})
    assert api.all_paid_once and max(api.lines[-2:]) <= room


# Runs that were stopped


def test_a_run_that_was_stopped_goes_on_and_an_image_that_was_added_meanwhile_is_all_that_is_sent(api: Api) -> None:
    api.submit_only()
    assert api.on_their_way() == (1, 8)
    api.run({"described": 2}, limit=2)  # the other answers wait
    (api.pictures / "00.png").unlink()
    api.add_picture(8)
    api.server.room, api.server.polls = 8, 5  # room is made by the batch of the earlier run
    described = api.run().described
    assert described in (6, 7) and api.lines[0] == 8 and sum(api.lines) >= 9
    # The answer about the image that is gone waits at the server in case it returns.
    assert api.on_their_way() == ((1, 1) if described == 6 else ())
    api.add_picture(0)
    api.run({"batches_open": 0, "without_description": 0})
    assert api.all_paid_once


def test_a_second_try_that_is_on_its_way_is_collected_and_is_the_last_one(api: Api) -> None:
    api.server.answer = lambda _: completion(REFUSAL)
    create = api.server.create

    def create_and_stop(asked: dict[str, Any]) -> Any:
        if len(api.server.batches) == 1:  # press Ctrl-C, and work on it until told otherwise
            api.server.polls = 1_000_000
            os.kill(os.getpid(), signal.SIGINT)
        return create(asked)

    with api.patch.context() as patch:
        patch.setattr(api.server, "create", create_and_stop)
        with pytest.raises(KeyboardInterrupt):
            api.run()
    assert api.on_their_way() == (1, 8)
    api.server.polls = 1
    outcome = api.run({"described": 0, "rejected": 8, "batches_open": 0})
    assert {item.reason for item in outcome.skipped} == {"the answer is no description: refusal"}
    api.run({"already_described": 0})
    assert len(api.server.batches) == 2


REFUSAL = "I'm sorry, I can't help with that."


@pytest.mark.parametrize(
    "options", [{"batch": False}, {"ask": "description,tags"}, {"ask": "description,tags", "batch": False}]
)
def test_calls_that_would_pay_again_for_what_is_on_its_way_are_refused(options: dict[str, Any], api: Api) -> None:
    api.submit_only()
    calls = len(api.server.requests)
    with pytest.raises(ConfigError, match=r"8 images are pending in 'batch_0' .*--batch .*cancel"):
        api.run(**options)
    assert len(api.server.requests) == calls
    api.run({"described": 8})
    api.run({"already_described": 8}, batch=False)
    assert api.all_paid_once


# Answers


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_did_before_it_ended_early_is_kept_and_the_rest_asked_by_the_next_run(end: str, api: Api) -> None:
    expired = {"code": "batch_expired", "message": "This request could not be executed before the batch expired."}
    api.server.end, api.server.answer = {0: end}, in_turn(*([describe_ok, lambda _: None, expired] * 3)[:8])
    outcome = api.run({"described": 3, "failed": 5})
    assert {item.reason.split(" ")[0] for item in outcome.skipped} == {"the", "This"}
    api.run({"described": 5})
    assert api.lines == [8, 5]


def test_bad_lines_cost_only_themselves_and_lock_nothing(api: Api) -> None:
    body = json.dumps({"status_code": 200, "body": completion("x")})
    api.patch.setattr(batch_api, "MAX_BODY", 100_000)
    api.server.answer = in_turn(
        completion(f"a cat, says {KEY},\u2028with a line separator"),
        '{"custom_id": "1", "response": {"status_',
        (400, {"message": "Your image was kept back", "code": "content_policy_violation"}),
        (500, {"message": f"broken, as {KEY} is", "code": None}),
        completion("good") | {"choices": None},
        f'{{"custom_id": "{"9" * 5000}", "response": {body}}}\n{{"custom_id": 1e999, "response": {body}}}',
        '{"custom_id": "5", "response": ' + "[" * 1200 + "]" * 1200 + "}",
        completion("x") | {"padding": "x" * 300_000},
    )
    outcome = api.run({"described": 3})  # what was kept back or had no choices is asked for once more
    assert not any(KEY in item.reason for item in outcome.skipped) and api.on_their_way() == ()
    assert "a cat, says ***,\u2028with a line separator" in {row.text for row in api.rows()}
    api.run({"described": 5})


def test_lines_that_never_come_cost_only_themselves_and_a_good_line_counts_whatever_else_there_is(api: Api) -> None:
    def shuffled(body: bytes) -> bytes:
        lines = [json.loads(line) for line in body.splitlines()][:5] if body.count(b"\n") == 8 else []
        bad = [{**line, "response": {"status_code": 500, "body": {"error": "later"}}} for line in lines]
        return b"".join(json.dumps(line).encode() + b"\n" for line in [*bad, *lines, *bad[:2]]) or body

    api.server.spoil = shuffled
    api.run({"described": 5, "failed": 3})
    api.run({"described": 3})
    assert api.lines == [8, 3]
    api.require_whole_bill()


@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize(("whole", "spoil"), [(0, lambda body: b"<html>log in</html>"), (7, lambda body: body[:-20])])
def test_answers_that_do_not_come_whole_stay_at_the_server_and_hinder_no_others(
    whole: int, spoil: Callable[[bytes], bytes], given_up: bool, api: Api
) -> None:
    api.submit_only()
    api.add_picture(8)
    api.server.spoil = lambda body: spoil(body) if body.count(b"\n") > 1 else body
    outcome = api.run({"described": whole + 1})
    reason = f"file-output-0 is not whole, {whole} of its lines can be read; the same command.*--retry-rejected"
    assert len(outcome.skipped) == 8 - whole and all(re.search(reason, item.reason) for item in outcome.skipped)
    api.server.spoil = bytes
    if given_up:
        api.server.spoil = spoil
        api.run({"failed": 8 - whole, "described": 0}, retry_rejected=True)
        api.server.spoil = bytes
    api.run({"without_description": 0, "described": 8 - whole})
    assert len(api.server.batches) == 2 + given_up and api.all_paid_once == (not given_up)
    api.require_whole_bill()


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(("late", "described"), [(3, 8), (10**6, 0)])
def test_a_file_of_answers_is_waited_for_and_not_for_ever(counts: bool, late: int, described: int, api: Api) -> None:
    api.server.late, api.server.counts = late, counts
    api.run({"described": described, "failed": 8 - described})
    api.server.late = 0
    api.run({"without_description": 0})
    assert len(api.server.batches) == 1 + (not described)
    api.require_whole_bill()


# Faults


NOT_LISTED = Fault("GET /v1/batches", 200, body={"object": "list", "data": [], "has_more": False})


@pytest.mark.parametrize(
    ("status", "done", "then"),
    [*((s, d, []) for s, d in [(None, True), (500, True), (408, True), (None, False), (500, False)]),
     (None, True, [NOT_LISTED])],  # it takes effect late
)  # fmt: skip
def test_a_batch_whose_creation_was_not_heard_of_is_not_created_again(
    status: int | None, done: bool, then: Sequence[Fault], api: Api
) -> None:
    api.server.files["other"] = b""
    others = {"input_file_id": "other", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {}}
    for _ in range(3):  # older batches, over several pages of the list
        api.server.create(others)
    api.server.faults = [Fault("POST /v1/batches", status, done=done), *map(replace, then)]
    api.run({"described": 8})
    assert api.all_paid_once and len(api.server.batches) == 4


AWAY = 10_000


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("POST /v1/batches", 500, done=True), Fault("GET /v1/batches", 503, times=AWAY)],
        [Fault("GET /v1/batches/", 500, times=AWAY)],
    ],
)
def test_a_server_that_stays_away_ends_the_run_and_the_next_one_goes_on(faults: list[Fault], api: Api) -> None:
    api.patch.setattr(batch_api, "PATIENCE_S", 0.05)
    api.server.faults = faults
    with pytest.raises(DescriberError, match="the same command goes on"):
        api.run()
    api.server.faults = []
    api.run({"described": 8})
    assert api.lines == [8]


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
                {"id": "batch_0", "status": "failed", "errors": {"data": 7}},
                b'{"id": "\xff"}',
            )
        ],
    ],
)
def test_faults_of_the_moment_are_sat_out(faults: list[Fault], api: Api) -> None:
    api.server.faults = [replace(fault) for fault in faults]
    api.run({"described": 8})
    assert api.lines == [8] and api.all_paid_once and not any(f.times for f in api.server.faults if f.times < 100)


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("POST /v1/files", 401, body=_error("invalid_api_key", f"Incorrect key: {KEY}")), "Incorrect key"),
        (Fault("POST /v1/batches", 429, body=_error("insufficient_quota", "no money")), "no money"),
        (Fault("POST /v1/batches", 400, body=_error("billing_hard_limit_reached", "limit")), "limit"),
        (Fault("POST /v1/files", 404, body=_error("not_found", "nothing here")), "nothing here"),
        (Fault("POST /v1/files", 200, body={"id": "f", "padding": "x" * 200_000}), "uploaded: the answer is too long"),
        *(
            (Fault(what, 307, headers={"location": f"http://else.test:81/?key={KEY}"}), "it redirects")
            for what in ("POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/file-output")
        ),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_refusal_stops_the_run_and_never_shows_the_key(fault: Fault, reason: str, api: Api) -> None:
    api.patch.setattr(untrusted, "MAX_BODY", 100_000)
    fault = replace(fault, body=fault.body if fault.status != 307 else b"")
    api.server.faults = [fault]
    with pytest.raises(DescriberError, match=reason) as caught:
        api.run()
    assert KEY not in str(caught.value) and (api.on_their_way() == () or fault.request.startswith("GET"))
    api.run({"described": 8})
    assert api.lines == [8]


def test_requests_that_the_server_finds_wrong_stop_the_run_with_its_reason_and_may_be_sent_again(api: Api) -> None:
    api.server.end = {0: "failed"}
    api.server.errors = {0: [{"code": "model_not_found", "message": "The model 'tiny' has no batches.", "line": 1}]}
    with pytest.raises(DescriberError, match="The model 'tiny' has no batches"):
        api.run()
    assert api.server.deleted == ["file-0"]
    api.run({"described": 8})


def test_a_batch_of_another_project_hinders_no_others_and_is_paid_again_only_when_given_up(api: Api) -> None:
    api.submit_only()
    api.server.batches.clear()
    api.add_picture(8)
    outcome = api.run({"described": 1})
    assert len(outcome.skipped) == 8 and "use the key of the project" in outcome.skipped[0].reason
    api.run({"failed": 8}, retry_rejected=True)
    api.server.faults = [Fault("GET /v1/files/", 404)]
    outcome = api.run({"failed": 8})
    assert {item.reason for item in outcome.skipped} == {"the server no longer has the answer"}
    api.run({"described": 8})


# Money


def test_what_is_in_a_batch_counts_in_the_limit_of_the_next_run(api: Api) -> None:
    limits = {"max_tokens": 20}
    api.run(limit=1, max_cost=1.0, **limits)
    api.submit_only(count=3, **limits)
    # A call costs 0.001, and may cost 0.001625.
    api.run({"cost_usd": pytest.approx(0.004), "stopped_by": "max_cost"}, max_cost=0.0056, **limits)
    assert sum(api.lines) == 4
    api.run({"described": 1}, max_cost=0.0057, **limits)


@pytest.mark.parametrize(
    "other", [{"prompt": "paper"}, {"max_side": 64}, {"splits": "test"}, {"max_side": 64, "batch": False}]
)
def test_what_is_in_a_batch_counts_in_the_limit_of_other_questions(other: dict[str, Any], api: Api) -> None:
    for name, place in {"05.png": "train/x", "06.png": "train/x", "07.png": "test/x"}.items():
        (folder := api.folder / "set" / place).mkdir(parents=True, exist_ok=True)
        (api.pictures / name).rename(folder / name)
    api.pictures.rename(api.folder / "set" / "train" / "unlabelled")
    api.run(limit=1, max_cost=1.0)
    api.submit_only(count=6)  # all others of train, for up to $0.06
    paid = api.server.paid.total()
    outcome = api.run({"described": 0}, max_cost=0.07, **other)
    assert outcome.stopped_by == "max_cost" and "pending in batches cost up to $0.06" in outcome.text
    assert api.server.paid.total() == paid
    api.run(max_cost=10.0, **other)
    assert api.server.paid.total() > paid


@pytest.mark.parametrize("changed", ["server_name", "base_url"])
def test_the_same_model_under_another_name_of_its_server_is_asked_anew_with_a_warning(
    changed: str, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.run({"described": 3}, limit=3)
    api.submit_only()
    assert "anew" not in capsys.readouterr().err
    other = {"server_name": "mine", "base_url": api.server.url.replace("127.0.0.1", "localhost")}[changed]
    api.run({"described": 8}, **{changed: other})
    warning = " ".join(capsys.readouterr().err.split())
    assert f"8 images have an answer of tiny from {api.server.url}, or one pending" in warning
    api.run({"described": 5, "already_described": 3}, server_name=api.server.url)
