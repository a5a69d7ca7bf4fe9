"""How runs were made, as a report tells it: options, cost, and the commands to do it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.run_records import Run, load_run
from gpt4image.base.outcome import Skipped
from gpt4image.data.regions import Boxes
from gpt4image.reporting.extras import Descriptions
from gpt4image.reporting.report import background, commands, what_was_done
from synthetic_records import descriptions, write_run
from tables import labels_of_one_image


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


LABELS = labels_of_one_image()


def known(*describers: str, long: str = "pool") -> Descriptions:
    rows = [{"prompt": "paper", "describer": name} for name in describers]
    found = Descriptions.model_validate(descriptions() | {"store": "my texts.db", "describers": rows})
    return found.model_copy(update={"encoding": found.encoding.model_copy(update={"length_policy": long})})


def run_of(**config: Any) -> Run:
    return Run.model_construct(config={name: str(value) for name, value in config.items()})


def test_a_command_that_goes_through_all_stages_stands_alone() -> None:
    for last in ("gpt4image demo --out demo-out", "gpt4image distill photos --describer openai:m"):
        assert commands(known("openai:m"), [], [last, last]) == [last]


def test_texts_that_no_describer_wrote_are_imported_and_nothing_is_made_up() -> None:
    assert commands(known("somebody", "openai:m (seed=1)"), [], ["gpt4image compare --out cmp"]) == [
        "gpt4image descriptions import FILE --store 'my texts.db'",
        "gpt4image describe --data '' --store 'my texts.db' --describer openai:m --prompt paper",
        "gpt4image compare --out cmp",
    ]
    assert commands(None, [], []) == []


@pytest.mark.parametrize(
    ("facts", "given"),
    [
        ({"evidence": "texts", "embeddings": ("{}/p.emb",)}, "--embeddings p.emb --evidence texts"),
        ({"evidence": "fused", "embeddings": ("/o.emb",), "answers": "/a.db"}, "--answers /a.db --embeddings /o.emb"),
        ({"evidence": "answers", "answers": "/a.db", "seed": 2}, "--answers /a.db --evidence answers --seed 2"),
        ({"evidence": "fused", "answers": "/a.db", "task": "multilabel"}, "--answers /a.db --task multilabel"),
    ],
)
def test_labels_are_made_again_by_what_they_were_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "embeddings" in facts:
        facts = facts | {"embeddings": tuple(path.format(tmp_path) for path in facts["embeddings"])}
    replace(LABELS, facts=replace(LABELS.facts, **facts)).save(tmp_path / "t.parquet")
    runs = [run_of(data="folder:photos", embeddings="p.emb", targets="t.parquet")]
    assert commands(None, runs, []) == [f"gpt4image label --data folder:photos {given} --out t.parquet"]


def test_boxes_are_made_again_and_lost_labels_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = {"evidence": "answers", "answers": "/a.db", "embeddings": "", "seed": 0}
    boxes = BoxLabels(keys=(), digests=(), boxes=Boxes.of_images([]), classes=("a",), facts=facts)
    boxes.save(tmp_path / "t.parquet")
    runs = [run_of(data="coco:b.json", targets="t.parquet")]
    (command,) = commands(None, runs, [])
    assert command == (
        "gpt4image label --data coco:b.json --answers /a.db --task detection --evidence answers --out t.parquet"
    )
    (tmp_path / "t.parquet").unlink()
    assert commands(None, runs, []) == []


def test_texts_that_were_cut_are_cut_again() -> None:
    runs = [run_of(data="folder:photos", embeddings="p.emb")]
    cut, pooled = (commands(known("openai:m", long=long), runs, [])[1] for long in ("cut", "pool"))
    assert " --long cut --out p.emb" in cut and "--long" not in pooled
