"""Every parser reads some damaged inputs, or refuses them by name; `make fuzz` tries more."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

import fuzz


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", tmp_path / "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about what they read
        seeds, read = fuzz.prepare(name, tmp_path)
        for content in seeds:
            read(content)
        for number, content in fuzz.inputs(name, seeds, range(20)):
            found = fuzz.failure(read, content)
            assert not found, f"input {number} of seed 0: {found}"


def test_what_a_parser_must_not_do_is_told_and_kept_and_the_corpus_is_of_parsers_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def read(path: Path) -> None:
        if path.read_bytes() != (fuzz.VALID / "texts" / "c.txt").read_bytes():
            raise KeyError("x") if path.stat().st_size % 2 else fuzz.Gpt4ImageError("no")

    monkeypatch.setitem(fuzz.TARGETS, "faulty", ("texts/c.txt", read))
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "faulty", "--count", "30", "--out", str(tmp_path)])
    assert fuzz.main() == 1
    told, failed = capfd.readouterr().out.splitlines()
    assert told.startswith("faulty, input ") and told.endswith(": KeyError: 'x'") and failed == "failed: faulty"
    assert len((tmp_path / "faulty").read_bytes()) % 2
    assert {path.name for path in fuzz.CORPUS.iterdir() if path.is_dir()} <= fuzz.TARGETS.keys() | {"valid"}
