"""Files of rows: each kind holds what was written, and a write that fails leaves what was there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.store import Description, Prompt
from gpt4image.base.errors import ConfigError, StoreError
from gpt4image.describing.row_files import write_rows
from gpt4image.describing.rows import to_fields

TEXTS = ("plain", "=1+1", 'two\nlines, "quoted"', "ü \U0001f408")


def fields() -> list[dict[str, Any]]:
    prompt = Prompt("paper", 1, "Describe it.", False)
    return [
        to_fields(
            Description(digest=f"{n:064x}", prompt=prompt, describer={"n": n}, created=0.0, text=text), f"{n}.png"
        )
        for n, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_write_that_fails_leaves_the_old_file_alone(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, fields())
    before = (tmp_path / name).read_bytes()

    def failing() -> Iterator[dict[str, Any]]:
        yield fields()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); no half of it is left"):
        write_rows(tmp_path / name, failing())
    assert (tmp_path / name).read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [name]


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of file '\.txt'"):
        write_rows(tmp_path / "a.txt", fields())
