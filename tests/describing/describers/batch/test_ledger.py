"""The batch ledger: what is on its way is known after a crash, and nothing is on its way twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import StoreError
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.batch.ledger import BatchLedger, Place, on_their_way

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
def ledger(path: Path) -> Iterator[BatchLedger]:
    with BatchLedger(path, SETTINGS) as opened:
        yield opened


def test_a_batch_is_known_again_with_all_that_was_noted(path: Path, ledger: BatchLedger) -> None:
    first = ledger.add("token 1", [request(1), request(2, samples=(0, 3))])
    second = ledger.add("token 2", [request(3)])
    assert ledger.note_file(first, "file-1").input_file == "file-1"
    ledger.note_batch(first.row, "batch-1")
    with BatchLedger(path, dict(reversed(SETTINGS.items()))) as again:
        expected = [replace(first, input_file="file-1", server_id="batch-1"), second]
        assert again.open_batches() == expected
        assert again.places(request(2, samples=(0, 1, 3))) == {0: Place(first.row, 1, 0), 3: Place(first.row, 1, 1)}
        assert again.places(request(2, samples=(1,))) == {} == again.places(request(4))
        assert (again.items_left(), again.items_left(first.row)) == (4, 3)


def test_batches_of_other_describers_and_other_prompts_are_not_seen(path: Path, ledger: BatchLedger) -> None:
    ledger.add("token", [request(1)])
    assert not ledger.places(request(1, prompt=replace(PROMPT, version=2)))
    with BatchLedger(path, {**SETTINGS, "model": "other"}) as other:
        assert (other.open_batches(), other.places(request(1)), other.items_left()) == ([], {}, 0)
        other.add("other token", [request(1)])
    assert len(ledger.open_batches()) == 1


def test_what_is_on_its_way_cannot_be_noted_again_and_nothing_of_that_batch_is(ledger: BatchLedger) -> None:
    ledger.add("token", [request(1)])
    with pytest.raises(StoreError, match="UNIQUE"):
        ledger.add("again", [request(2), request(1)])
    assert len(ledger.open_batches()) == 1 and not ledger.places(request(2))


def test_items_are_forgotten_one_by_one_and_a_closed_batch_frees_the_rest(ledger: BatchLedger) -> None:
    batch = ledger.add("token", [request(1, samples=(0, 1)), request(2)])
    ledger.forget([Answer(request=request(1, samples=(0, 1)), sample=1, text="a text")])
    assert set(ledger.places(request(1, samples=(0, 1)))) == {0}
    ledger.close_batch(batch.row)
    assert ledger.open_batches() == [] and ledger.items_left() == 0
    ledger.add("again", [request(1), request(2)])


def test_an_answer_that_reached_the_store_before_the_ledger_heard_of_it_is_forgotten(
    path: Path, ledger: BatchLedger
) -> None:
    before = time.time() - 60
    with DescriptionStore(path, write=True) as store:
        store.add([description(5, created=before, text="I cannot help with that.", error="refusal")])
    batch = ledger.add("token", [request(number) for number in range(1, 6)])
    with DescriptionStore(path, write=True) as store:
        rejected = description(2, text="I cannot help with that.", error="refusal")
        failed = description(3, text=None, error="the server was gone")
        store.add([description(1), rejected, failed])
    with BatchLedger(path, SETTINGS) as again:
        assert [bool(again.places(request(number))) for number in range(1, 6)] == [False, False, True, True, True]
        assert again.open_batches() == [batch]


def test_a_store_that_never_saw_a_batch_is_looked_at_and_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    assert on_their_way(path, SETTINGS, [PROMPT]) == ([{}], [])
    assert path.read_bytes() == before


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("no store")
    with pytest.raises(StoreError, match="not a description store"):
        BatchLedger(tmp_path / "b.db", SETTINGS)
