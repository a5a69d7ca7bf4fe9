"""How runs were made: what they share and how they differ, as text, with mean costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4image.artifacts.run_records import Run
from gpt4image.base.outcome import Skipped
from gpt4image.reporting.background import background, distinct


def run(config: dict[str, Any], facts: dict[str, Any], device: str = "cpu") -> Run:
    return Run(folder=Path("run"), config=config, environment={"device": device}, metrics=(), run=facts)


def test_options_that_differ_stand_by_arm_and_the_others_once() -> None:
    shared = {"lr": 0.1, "out": "a", "seed": 0, "arm": "x", "chosen": {"batch_size": 64}}
    skipped = {"name": "a.png", "reason": "damaged"}
    found = background(
        {
            "baseline": [
                run({**shared, "seed": seed, "model": "r"}, {"seconds": 10 + seed, "set_aside": [skipped]})
                for seed in (0, 2)
            ],
            "aligned": [run({**shared, "model": "r", "head": "mlp"}, {"steps": 5, "data": {"train": 3}}, "cuda")],
            "unfinished": [],
        }
    )
    assert found["shared"] == {"lr": "0.1", "model": "r"}
    assert found["differing"] == {"head": {"baseline": "–", "aligned": "mlp"}}
    assert found["chosen"] == {"batch_size": "64"} and found["data"] == {"train": "3"}
    assert found["environment"] == {"device": "cpu · cuda"}
    assert found["costs"]["baseline"]["seconds"] == 11 and found["costs"]["aligned"]["seconds"] is None
    assert found["skipped"] == [Skipped(name="a.png", reason="damaged")], "each item once"


def test_values_are_told_in_the_order_in_which_they_appear() -> None:
    assert distinct([{"a": 2}, {"a": 1, "b": None}, {"a": 2, "b": "é"}]) == {"a": "2 · 1", "b": "null · é"}
