"""A value that changed in a description store is found by the checksum of its row, whichever it is."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import StoreError

ASKED = Prompt("paper", 1, "Describe it.", False)


def one(number: int, **more: object) -> Description:
    known = {"describer": {"model": "m"}, "created": 1, "text": f"A cat, number {number}.", "cost_usd": 0.25, **more}
    return Description(digest=f"{number:064x}", prompt=ASKED, **known)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(
            [one(1, answer=Answer(class_name="cat", confidence=0.5)), one(2, text=None, error="busy", tokens_in=3)]
        )
        store.add([one(2, tokens_in=4), one(3)])
    return tmp_path / "a.db"


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_a_row_that_took_the_place_of_a_failure_has_its_own_checksum(path: Path) -> None:
    with DescriptionStore(path) as store:
        assert [(row.tokens_in, row.cost_usd) for row in store.descriptions()] == [(None, 0.25), (4, 0.5), (None, 0.25)]


@pytest.mark.parametrize(
    "changed",
    [
        "results SET text = 'A cap, number 2.' WHERE id = 2",
        "results SET answer = replace(answer, '0.5', '0.7') WHERE id = 1",
        f"results SET digest = x'{'07' * 32}' WHERE id = 3",
        "results SET tokens_in = 5 WHERE id = 2",
        "results SET cost_usd = 0.75 WHERE id = 2",
        "results SET status = 'failed' WHERE id = 3",
        "prompts SET text = 'Describe is.'",
        """describers SET settings = '{"model":"n"}'""",
    ],
)
def test_a_value_that_changed_is_named_by_its_row(path: Path, changed: str) -> None:
    change(path, f"UPDATE {changed}")
    for read in (DescriptionStore.texts, DescriptionStore.answers, DescriptionStore.descriptions):
        with DescriptionStore(path) as store, pytest.raises(StoreError, match=r"row [123] of its results") as caught:
            list(read(store))
        assert str(path) in str(caught.value) and "`gpt4image describe`" in str(caught.value)


def test_without_the_named_row_the_others_are_read(path: Path) -> None:
    change(path, "UPDATE results SET text = 'A cap.' WHERE id = 2")
    change(path, "DELETE FROM results WHERE id = 2")
    with DescriptionStore(path, write=True) as store:
        assert [row.row for row in store.texts()] == [1, 3]
        assert store.add([one(2)]) == 1
        assert len(list(store.texts())) == 3
