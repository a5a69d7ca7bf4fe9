"""descriptions stats: every count is of what is in the store, and says what it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpt4image.describing.missing
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.errors import StoreError
from gpt4image.config import StatsConfig
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.describing.description_stats import describer_names, stats, stored_flaws
from loaded_sets import in_memory

PAPER = Prompt("paper", 1, "Describe this image in detail.", class_conditioned=False)
TOLD = Prompt("told", 1, "This is a {class_name}. Describe it.", class_conditioned=True)
MODEL: dict[str, Any] = {"kind": "openai", "model": "m", "temperature": 0.5}


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Five images, the last one without a label, known as any SPEC."""
    contents = [f"image {number}".encode() for number in range(5)]
    five = in_memory(contents, [0, 1, 0, 1, NO_LABEL], classes=("cat", "big_dog"))
    monkeypatch.setattr(gpt4image.describing.missing, "load_with_splits", lambda _spec, **_: five)
    return five


def result(digest: str, text: str | None, **values: Any) -> Description:
    return Description(
        **{"digest": digest, "prompt": PAPER, "describer": MODEL, "created": 0.0, "text": text, **values}
    )


def store_of(folder: Path, rows: list[Description]) -> Path:
    with DescriptionStore(folder / "a.db", write=True) as store:
        store.add(rows)
    return folder / "a.db"


def test_stats_count_what_is_there(tmp_path: Path, images: Dataset) -> None:
    imported = Prompt("imported", 1, "", class_conditioned=False)
    told = Prompt("class-conditioned", 1, "", class_conditioned=True)
    path = store_of(
        tmp_path,
        [
            result(images.digests[0], "A Cat here", prompt=imported, describer={"name": "imported"}),
            result(images.digests[1], "five words are in this", prompt=imported, describer={"name": "imported"}),
            result(images.digests[3], "big dog", prompt=told, describer={"name": "imported"}),
            result("0" * 64, None, describer={}, error="x"),
        ],
    )
    outcome = stats(StatsConfig(store=path, data="memory"))
    summary, record = outcome.summary, outcome.record
    assert summary["descriptions"] == summary["images"] == 3 and summary["failures"] == 1
    assert record["words"] == {"min": 2, "median": 3.0, "mean": 3.3, "p95": 4.8, "p99": 4.96, "max": 5}
    assert record["words_histogram"] == {"edges": [2, 3, 4, 5, 6], "counts": [1, 1, 0, 1]}
    assert {p["name"]: (p["descriptions"], p["class_conditioned"]) for p in record["prompts"]} == {
        "class-conditioned": (1, True),
        "imported": (2, False),
        "paper": (0, False),
    }
    assert summary["coverage"] == 0.6 and summary["class_named"] == round(2 / 3, 6)
    assert not {"cost_usd", "tokens_in", "truncated_share"} & summary.keys()
    echo = result(images.digests[1], "This is a big dog. Describe it.", prompt=TOLD)
    assert stored_flaws(echo, "big_dog") == ["echo"], "the class in a prompt is filled in before an answer is judged"
    json.dumps([summary, record])


def test_money_tokens_flaws_and_reasons_are_counted_by_describer(tmp_path: Path, images: Dataset) -> None:
    other = {**MODEL, "temperature": 1.0}
    refusal = "I'm sorry, but I can't assist with that."
    paid: dict[str, Any] = {"tokens_in": 100, "cost_usd": 0.25, "finish_reason": "stop"}
    path = store_of(
        tmp_path,
        [
            result(images.digests[0], "The image shows a cat.", **paid, tokens_out=10, latency_s=1.0),
            result(
                images.digests[1], "A dog on a", **{**paid, "finish_reason": "length"}, tokens_out=30, latency_s=3.0
            ),
            result(images.digests[2], "A cat", describer=other),
            result(images.digests[3], refusal, error="refusal", **paid, tokens_out=20, latency_s=2.0),
            result(images.digests[4], None, error="429: request req-a1b2c3d4e5 came too soon", cost_usd=0.5),
            result(images.digests[4], None, error="429: request req-f6a7b8c9d0 came too soon", describer=other),
        ],
    )
    outcome = stats(StatsConfig(store=path))
    summary, record = outcome.summary, outcome.record
    facts = {"failures": 3, "rejected": 1, "no_answer": 2, "flawed": 2, "truncated_share": 0.5}
    assert {name: summary[name] for name in facts} == facts
    assert (summary["tokens_in"], summary["tokens_out"], summary["cost_usd"]) == (300, 60, 1.25)
    assert record["flaws"] == {
        "refusal": {"descriptions": 0, "rejected": 1},
        "truncated": {"descriptions": 1, "rejected": 0},
        "boilerplate": {"descriptions": 1, "rejected": 0},
    }
    assert record["rejected_reasons"] == {"refusal": 1}
    assert record["no_answer_reasons"] == {"429: request … came too soon": 2}
    assert record["answer_tokens"]["median"] == 20 and record["latency_s"]["max"] == 3.0
    assert [
        (row["describer"], row["descriptions"], row["rejected"], row["no_answer"], row["tokens_out"], row["cost_usd"])
        for row in record["describers"]
    ] == [("openai:m (temperature=0.5)", 2, 1, 1, 60, 1.25), ("openai:m (temperature=1.0)", 1, 0, 1, None, None)]
    for shown in ["openai:m (temperature=1.0)", "429: request … came too soon", "refusal", "1.25", "latency s"]:
        assert shown in outcome.text


def test_describers_have_short_names_that_tell_them_apart() -> None:
    expected: list[tuple[dict[str, Any], str]] = [
        (MODEL, "openai:m (temperature=0.5)"),
        ({**MODEL, "temperature": 1.0}, "openai:m (temperature=1.0)"),
        ({"kind": "replay", "file": "f"}, "replay:f"),
        ({"name": "Claude"}, "Claude"),
        ({}, "{}"),
        ({"x": 1}, '{"x":1}'),
    ]
    names = describer_names(describer for describer, _ in expected)
    assert [names[canonical_json(describer)] for describer, _ in expected] == [name for _, name in expected]


def test_texts_from_outside_do_not_act_on_the_terminal(tmp_path: Path, images: Dataset) -> None:
    nasty = "\x1b[2J\x1b]0;x\x07 [bold]A cat[/bold]\u202e"
    rows = [result(digest, nasty, describer={"name": nasty}) for digest in images.digests[:2]]
    outcome = stats(StatsConfig(store=store_of(tmp_path, [*rows, result(images.digests[2], None, error=nasty)])))
    assert "\x1b" not in outcome.text and "\u202e" not in outcome.text and "[bold]A cat[/bold]" in outcome.text


def test_an_empty_store_is_counted_and_a_missing_one_refused(tmp_path: Path) -> None:
    outcome = stats(StatsConfig(store=store_of(tmp_path, []), data="memory"))
    assert outcome.summary["descriptions"] == 0 and outcome.record["words"] is None and outcome.text == ""
    with pytest.raises(StoreError, match="no description store"):
        stats(StatsConfig(store=tmp_path / "none.db"))
