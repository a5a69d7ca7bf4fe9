"""Every parser reads some damaged inputs, or refuses them by name; `make fuzz` tries more."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import fuzz
from fuzz_targets import CORPUS, TARGETS, input_of
from gpt4image.base.errors import DataError

COUNT, SLOW_COUNT = 40, 8


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", tmp_path / "hf")
    target = TARGETS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about what they read
        seeds, read = target.prepare(tmp_path)
        for content in seeds:
            read(content)
        for number in range(SLOW_COUNT if target.slow else COUNT):
            found = fuzz.failure(read, input_of(name, seeds, number, 0), target.allowed)
            assert not found, f"input {number} of seed 0: {found}"


def test_the_corpus_is_of_parsers_that_there_are() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= TARGETS.keys()


def read_and_fail(content: bytes) -> None:
    if content == b"slow":
        while True:
            pass
    if content == b"refused":
        raise DataError("no")
    if content == b"bug":
        raise KeyError("x")


def test_what_a_parser_must_not_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    found = [fuzz.failure(read_and_fail, content, (DataError,)) for content in (b"", b"refused", b"bug", b"slow")]
    assert found[:2] == ["", ""] and "KeyError: 'x'" in found[2] and "more than 0.05 seconds" in found[3]
