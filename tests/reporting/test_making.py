"""How runs were made, as a report tells it: options and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4image.artifacts.run_records import Run, load_run
from gpt4image.base.outcome import Skipped
from gpt4image.reporting.extras import Descriptions
from gpt4image.reporting.report import background, what_was_done
from synthetic_records import descriptions, write_run


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


def test_it_names_describer_cost_and_time_of_training(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    known = Descriptions.model_validate(descriptions())
    assert what_was_done(known, {"baseline": runs, "oracle": runs[:1]}) == {
        "Pictures": "1,549, 1,524 of them described",
        "Described by": "openai:gpt-4.1-mini, prompt paper",
        "Cost of descriptions": "1,600 descriptions; 1,240,000 tokens in, 72,000 out; $0.61",
        "Text encoder": "minilm: 384 numbers per text; 1.2 % are longer than 256 tokens and pooled from chunks",
        "Training": "3 runs, 2.1 min together, on cpu",
    }
