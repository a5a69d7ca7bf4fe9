"""Lists that others released: read in their order, and no code in them runs."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.base.errors import DataError
from gpt4image.base.outcome import Skipped
from gpt4image.describing.rows import read_rows
from gpt4image.describing.text_lists import read_texts

TEXTS = ["A red bus.", "Zwei Äpfel.\tUnter \u2028 Bäumen", "x" * 70_000]


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def write(path: Path, value: Any) -> Path:
    if path.suffix in (".pt", ".pth"):
        torch.save(value, path, _use_new_zipfile_serialization=path.suffix == ".pth")
    elif path.suffix == ".json":
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        path.write_text("\n".join(value) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [".json", ".pt", ".pth", ".txt"])
def test_a_list_of_texts_is_read_in_its_order(kind: str, tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path / f"list{kind}", TEXTS))) == TEXTS


@pytest.mark.parametrize("kind", [".json", ".pth"])
def test_a_dictionary_gives_rows_with_keys(kind: str, tmp_path: Path) -> None:
    rows = list(read_texts(write(tmp_path / f"by-name{kind}", {"a/1.jpg": "A cat.", "a/2.jpg": "A dog."})))
    assert rows == [{"key": "a/1.jpg", "description": "A cat."}, {"key": "a/2.jpg", "description": "A dog."}]


def test_lines_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"A cat.\r\n" * 3000 + "Zwei Äpfel.\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.txt: not UTF-8 .* at byte 24005"):
        list(read_texts(tmp_path / "list.txt"))


def test_an_empty_line_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"first\r\n\nthird")
    rows = list(read_rows(tmp_path / "list.txt"))
    assert [isinstance(row, Skipped) for row in rows] == [False, True, False]


@pytest.mark.parametrize("kind", [".pt", ".pth"])
def test_code_in_a_pickle_is_refused_and_does_not_run(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    path = write(tmp_path / f"list{kind}", [*TEXTS, Harmful(marker)])
    with pytest.raises(DataError, match="could run code, so it is refused"):
        read_texts(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Harmful(marker)))  # noqa: S301  (our own: it does harm where it is loaded)
    assert marker.exists()


@pytest.mark.parametrize("kind", [".json", ".pt", ".pth"])
def test_damaged_files_are_named(kind: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole{kind}", TEXTS).read_bytes()
    for number, damaged in enumerate((b"", b"nothing of the kind", whole[: len(whole) // 2], b"\0" * 2000)):
        path = tmp_path / f"{number}{kind}"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{number}\{kind}"):
            read_texts(path)


def test_nested_data_costs_its_row_alone(tmp_path: Path) -> None:
    bomb: Any = "ha"
    for _ in range(60):
        bomb = [bomb] * 10
    rows = list(read_rows(write(tmp_path / "list.pt", ["fine", bomb, {"key": bomb, "description": "x"}, 7])))
    assert [isinstance(row, Skipped) for row in rows] == [False, True, True, True]
    assert all(len(row.reason) < 20_000 for row in rows if isinstance(row, Skipped))


@pytest.mark.parametrize("value", [torch.zeros(3), 7, "a text"])
def test_what_is_no_list_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"a list of texts.*found a {type(value).__name__}"):
        read_texts(write(tmp_path / "m.pth", value))
