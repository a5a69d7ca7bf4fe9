"""Prompts and describers by id: made once, and forgotten where their transaction is undone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.store_file import References


def test_ids_are_those_of_the_rows_and_are_made_again_after_a_failure(tmp_path: Path) -> None:
    DescriptionStore(tmp_path / "a.db", write=True).close()
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as connection:
        found = References(connection)
        first = found.prompt(PROMPTS["paper"]), found.describer({"kind": "test"})
        assert (found.prompt(PROMPTS["paper"]), References(connection).describer({"kind": "test"})) == first
        assert found.prompt(PROMPTS["short"]) != first[0] and found.describer({"kind": "other"}) != first[1]
        connection.execute("BEGIN")
        with pytest.raises(OSError), found.kept_on_success():
            undone = found.prompt(PROMPTS["motion"])
            raise OSError
        connection.execute("ROLLBACK")
        assert found.prompt(PROMPTS["motion"]) == undone
        assert connection.execute("SELECT name FROM prompts WHERE id = ?", (undone,)).fetchone() == ("motion",)
    connection.close()
