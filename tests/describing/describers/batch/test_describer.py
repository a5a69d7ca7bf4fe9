"""What an earlier run left at the server is collected, or given up by the user's own decision, and not paid again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_cases import add_picture, lines_of, on_their_way, requests_of, submit_only
from batch_server import BatchServer, chat_completion, describe_ok
from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.batch.describer import BatchDescriber
from openai_stub import Stub, answer, serve

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
    with pytest.raises(ConfigError, match=r"8 answers .* on their way .*'batch_0'.*Give --batch, .*cancel at the "):
        describe(config(**options))
    assert len(server.requests) == calls
    assert describe(config()).summary["described"] == 8 and set(server.paid.values()) == {1}
    assert describe(config(batch=False)).summary["already_described"] == 8


@pytest.mark.parametrize("batch", [False, True])
def test_parts_that_a_batch_with_others_brings_are_not_paid_for(batch: bool, server: BatchServer, config: Any) -> None:
    submit_only(server, config())
    calls = len(server.requests)
    with pytest.raises(ConfigError, match=r"8 images are with the Batch API, in 'batch_0'.*other parts"):
        describe(config(ask="description,tags", batch=batch))
    assert len(server.requests) == calls
    assert describe(config()).summary["described"] == 8


def test_calls_about_what_is_not_on_its_way_are_made(
    server: BatchServer, direct: Stub, config: Any, pictures: Path
) -> None:
    named = {"server_name": "cluster"}
    asked_directly = config(batch=False, base_url=direct.url, **named)
    submit_only(server, config(**named))
    with pytest.raises(ConfigError, match="on their way"):
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
