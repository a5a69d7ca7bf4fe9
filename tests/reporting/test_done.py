from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4image.artifacts.run_records import load_run
from gpt4image.reporting.done import what_was_done
from gpt4image.reporting.extras import Descriptions
from synthetic_records import descriptions, write_run


def test_it_names_describer_cost_and_time_of_training(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    known = Descriptions.model_validate(descriptions())
    assert what_was_done(known, {"baseline": runs, "oracle": runs[:1]}) == {
        "Pictures": "1,549, 1,524 of them described",
        "Described by": "openai:gpt-4.1-mini, prompt paper",
        "Cost of descriptions": "1,600 descriptions; 1,240,000 tokens in, 72,000 out; $0.6115",
        "Text encoder": "minilm: 384 numbers per text; 1.2 % are longer than 256 tokens and pooled from chunks",
        "Training": "3 runs, 2.1 min together, on cpu",
    }


def test_what_is_not_known_is_left_out() -> None:
    def done(record: dict[str, Any]) -> dict[str, str]:
        return what_was_done(Descriptions.model_validate(record), {})

    record = descriptions()
    record["describers"] = [{"prompt": "named", "describer": "imported", "descriptions": 1600}]
    record["prompts"] = [{"name": "named", "class_conditioned": True}]
    found = done(record)
    assert found["Described by"] == "imported, prompt named (class-conditioned)"
    assert found["Cost of descriptions"] == "1,600 descriptions; cost not recorded"
    assert "Training" not in found and "Model" not in found
    record["describers"] += [{"prompt": "named", "describer": "openai:x", "descriptions": 2, "cost_usd": 2.0}]
    assert done(record)["Cost of descriptions"].endswith(
        "$2.00; the cost of 1 of 2 describers; the others recorded none"
    )
    record |= {"described": 1549, "encoding": record["encoding"] | {"truncated": 0.0}}
    assert done({name: record[name] for name in ("images", "described", "encoding")}) == {
        "Pictures": "1,549, all described",
        "Text encoder": "minilm: 384 numbers per text; none longer than 256 tokens",
    }
    assert what_was_done(None, {}) == {}
