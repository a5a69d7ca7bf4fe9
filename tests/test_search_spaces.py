"""Searches of settings: a trial is not run again, nor taken for another, and the spaces are those of the records."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from gpt4image.config import TrainConfig
from gpt4image.config.arms import ARMS

ROOT = Path(__file__).parents[1]
SPACES = ROOT / "benchmarks" / "spaces"
TOOL = runpy.run_path(str(ROOT / "benchmarks" / "search.py"), run_name="search")


def search(space: Path, out: Path, **more: Any) -> Any:
    return TOOL["Search"](space=space, data="unused", embeddings=Path("unused"), out=out, **more)


def test_only_trials_that_are_not_there_are_run_and_a_line_that_was_cut_short_costs_its_own_alone(
    tmp_path: Path,
) -> None:
    out, waiting = tmp_path / "search.jsonl", TOOL["waiting"]
    first = search(SPACES / "fixmatch.toml", out, seeds=1)
    jobs = waiting(first)
    rows = [TOOL["identity"](first, *job) | {"val_top1": 0.5, "seconds": 1.0} for job in jobs]
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows)[:-20])
    assert waiting(first) == jobs[-1:] and waiting(search(first.space, out, seeds=1, labels_per_class=10)) == jobs
    TOOL["mend"](out)
    assert out.read_text(encoding="utf-8") == "".join(f"{json.dumps(row)}\n" for row in rows[:-1])


@pytest.mark.parametrize("space", sorted(SPACES.glob("*.toml")), ids=lambda path: path.stem)
def test_trials_hold_options_of_training_and_arms_that_exist(space: Path, tmp_path: Path) -> None:
    for options in TOOL["trials"](search(space, tmp_path / "search.jsonl")).values():
        own = dict(options)
        assert own.pop("arm", "baseline") in ARMS
        TrainConfig(**{"data": "x", "out": tmp_path, "embeddings": tmp_path} | own)
