"""Every parser reads some damaged inputs, or refuses them by name; `make fuzz` tries more."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import fuzz
from fuzz import TARGETS
from gpt4image.base.errors import DataError


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", tmp_path / "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about what they read
        seeds, read = TARGETS[name](tmp_path)
        for content in seeds:
            read(content)
        for number, content in fuzz.inputs(name, seeds, range(20)):
            found = fuzz.failure(read, content)
            assert not found, f"input {number} of seed 0: {found}"


def test_what_a_parser_must_not_do_is_told_and_kept_and_the_corpus_is_of_parsers_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: bytes) -> None:
        if content != b"valid":
            raise DataError("no") if len(content) % 2 else KeyError("x")

    assert fuzz.failure(read, b"refused") == ""
    monkeypatch.setitem(TARGETS, "faulty", lambda _: ([b"valid"], read))
    told = fuzz.fuzz("faulty", 30, 0, tmp_path)
    assert 0 < told["failures"] == len(list(tmp_path.iterdir()))
    assert {path.name for path in fuzz.CORPUS.iterdir() if path.is_dir()} <= TARGETS.keys()
