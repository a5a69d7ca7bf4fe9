"""Every parser reads some damaged inputs, or refuses them by name; `make fuzz` tries more."""

from __future__ import annotations

from pathlib import Path

import pytest

import fuzz


@pytest.mark.filterwarnings("ignore")  # of libraries about what they read
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_damaged_inputs_are_read_or_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {path.name for path in fuzz.CORPUS.iterdir() if path.is_dir()} <= fuzz.TARGETS.keys() | {"valid"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("datasets.config", "datasets.builder.config"):
        monkeypatch.setattr(f"{module}.HF_DATASETS_CACHE", tmp_path / "hf")
    paths = fuzz.prepare(name, tmp_path)
    for number, content in enumerate(fuzz.inputs(name, paths, 20)):
        found = fuzz.failure(name, paths[0], content)
        assert not found, f"input {number} of seed 0: {found}"
