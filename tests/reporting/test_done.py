from __future__ import annotations

from pathlib import Path

from gpt4image.reporting.done import what_was_done
from gpt4image.reporting.extras import Descriptions
from gpt4image.reporting.records import load_run
from synthetic_records import descriptions, write_run


def test_it_says_who_described_at_what_cost_and_how_long_training_took(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    known = Descriptions.model_validate(descriptions())
    done = what_was_done(known, {"baseline": runs, "oracle": runs[:1]})
    assert done == {
        "Pictures": "1,549, 1,524 of them described",
        "Described by": "openai:gpt-4.1-mini, prompt paper",
        "Price of the texts": "1,600 descriptions; 1,240,000 tokens in, 72,000 out; $0.6115",
        "Text encoder": "minilm: 384 numbers a text; 1.2 % are longer than 256 tokens and pooled from chunks",
        "Training": "3 runs, 2.1 min together, on cpu",
    }


def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    record = descriptions()
    record["describers"] = [{"prompt": "told", "describer": "imported", "descriptions": 1600}]
    record["prompts"] = [{"name": "told", "class_conditioned": True}]
    done = what_was_done(Descriptions.model_validate(record), {})
    assert done["Described by"] == "imported, prompt told (told the class)"
    assert done["Price of the texts"] == "1,600 descriptions; dollars not recorded"
    record["describers"] += [{"prompt": "told", "describer": "openai:x", "descriptions": 2, "cost_usd": 2.0}]
    price = what_was_done(Descriptions.model_validate(record), {})["Price of the texts"]
    assert price.endswith("$2.00; that of 1 of 2 describers; the others recorded none")
    assert "Training" not in done and "Model" not in done
    record |= {"described": 1549, "encoding": record["encoding"] | {"truncated": 0.0}}
    gone = {name: record[name] for name in ("images", "described", "encoding")}
    assert what_was_done(Descriptions.model_validate(gone), {}) == {
        "Pictures": "1,549, all described",
        "Text encoder": "minilm: 384 numbers a text; none longer than 256 tokens",
    }
    assert what_was_done(None, {}) == {}
