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


def write(out: Path, *rows: dict[str, Any]) -> None:
    out.write_text("".join(json.dumps(row | {"val_top1": 0.5, "seconds": 1.0}) + "\n" for row in rows))


def test_only_trials_that_are_not_there_are_run_and_a_line_that_was_cut_short_costs_its_own_alone(
    tmp_path: Path,
) -> None:
    space, out = SPACES / "fixmatch.toml", tmp_path / "search.jsonl"
    first, waiting = search(space, out, seeds=1), TOOL["waiting"]
    jobs = waiting(first)
    assert len(jobs) == 6
    write(out, *(TOOL["identity"](first, *job) for job in jobs[1:]))
    assert waiting(first) == jobs[:1]
    assert [seed for _, _, seed in waiting(search(space, out, seeds=2))] == [0, *[1] * 6]
    with pytest.raises(SystemExit, match="--only typo: "):
        waiting(search(space, out, only=("typo",)))
    assert waiting(search(space, out, seeds=1, labels_per_class=10)) == jobs
    write(out, *(TOOL["identity"](first, *job) for job in jobs))
    whole = out.read_text(encoding="utf-8")
    for left, kept in ((whole[:-20], whole.splitlines()[:-1]), (whole[:-1], whole.splitlines())):
        out.write_text(left, encoding="utf-8")
        assert waiting(first) == jobs[len(kept) :]
        TOOL["mend"](out)
        assert out.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in kept), "the next has its own"


@pytest.mark.parametrize("space", sorted(SPACES.glob("*.toml")), ids=lambda path: path.stem)
def test_trials_hold_options_of_training_and_arms_that_exist(space: Path, tmp_path: Path) -> None:
    for options in TOOL["trials"](search(space, tmp_path / "search.jsonl")).values():
        own = dict(options)
        assert own.pop("arm", "baseline") in ARMS
        TrainConfig(**{"data": "x", "out": tmp_path, "embeddings": tmp_path} | own)
