"""Lists and matrices that others released: read in their order, and no code in them runs."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.outcome import SetAside
from gpt4image.describing.rows import read_rows
from gpt4image.encoding.released import read_matrix, read_texts

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
    elif path.suffix in (".pkl", ".pickle"):
        path.write_bytes(pickle.dumps(value, protocol=2 if path.suffix == ".pkl" else 5))
    elif path.suffix == ".json":
        path.write_text(json.dumps(value), encoding="utf-8")
    elif path.suffix == ".npy":
        np.save(path, np.asarray(value))
    else:
        path.write_text("\n".join(value) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [".json", ".pt", ".pth", ".pkl", ".pickle", ".npy", ".txt"])
def test_a_list_of_texts_is_read_in_its_order(kind: str, tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path / f"list{kind}", TEXTS))) == TEXTS


@pytest.mark.parametrize("kind", [".json", ".pth", ".pkl"])
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
    assert [isinstance(row, SetAside) for row in rows] == [False, True, False]


@pytest.mark.parametrize("kind", [".pt", ".pth", ".pkl", ".pickle"])
@pytest.mark.parametrize("read", [lambda path: list(read_texts(path)), read_matrix])
def test_code_in_a_pickle_is_refused_and_does_not_run(kind: str, read: Any, tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    np.save(tmp_path / "list.npy", np.array([Harmful(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged, or not what its name says"):
        read_texts(tmp_path / "list.npy")
    path = write(tmp_path / f"list{kind}", [*TEXTS, Harmful(marker)])
    with pytest.raises((DataError, ConfigError)) as caught:
        read(path)
    if not isinstance(caught.value, ConfigError):
        assert "could run code, so it is refused" in str(caught.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Harmful(marker)))  # noqa: S301  (our own: it does harm where it is loaded)
    assert marker.exists()


@pytest.mark.parametrize("kind", [".json", ".pt", ".pth", ".pkl", ".npy"])
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
    rows = list(read_rows(write(tmp_path / "list.pkl", ["fine", bomb, {"key": bomb, "description": "x"}, 7])))
    assert [isinstance(row, SetAside) for row in rows] == [False, True, True, True]
    assert all(len(row.reason) < 20_000 for row in rows if isinstance(row, SetAside))


@pytest.mark.parametrize("kind", [".pt", ".pth", ".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_matrix_is_read_as_it_is(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    matrix = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    path = tmp_path / f"m{kind}"
    if kind == ".safetensors":
        save_file({"emb": matrix}, path)
    else:
        write(path, matrix.numpy() if kind == ".npy" else matrix)
    assert torch.equal(read_matrix(path), matrix)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(0, 4), r"shape \(0, 4\)"),
        (torch.zeros(2, 3, dtype=torch.int64), "torch.int64"),
        (TEXTS, "list of 3 items"),
        ({"a": torch.zeros(2, 3)}, "dict of 1 items"),
    ],
)
def test_what_is_no_matrix_or_list_is_named(value: Any, found: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.pth", value)
    with pytest.raises(DataError, match=found):
        read_matrix(path)
    if isinstance(value, torch.Tensor):
        with pytest.raises(DataError, match=f"a list of texts.*{found}"):
            read_texts(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_matrix(tmp_path / "none.pth")
    (tmp_path / "m.csv").touch()
    with pytest.raises(ConfigError, match=r"unknown kind of file '.csv'.*\.safetensors"):
        read_matrix(tmp_path / "m.csv")
