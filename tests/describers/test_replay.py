"""Replayed descriptions: bad lines are named, places are found by key and digest, nothing is held in memory twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.describers import Request, load_describer
from gpt4image.describers.prompts import PROMPTS, find_prompt, render
from gpt4image.errors import ConfigError


def image_set(images: list[bytes]) -> ImageSet:
    return ImageSet(
        spec="memory",
        classes=("a",),
        keys=tuple(f"k{number}" for number in range(len(images))),
        labels=np.zeros(len(images), dtype=np.int64),
        splits=np.full(len(images), "train"),
        source=MemorySource(images),
        rows=np.arange(len(images)),
    )


def requests(images: ImageSet) -> list[Request]:
    return [
        Request(digest=digest, keys=(key,), prompt="?", read=lambda: b"")
        for key, digest in zip(images.keys, images.digests, strict=True)
    ]


def write_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_are_found_by_key_or_digest_and_digest_wins(tmp_path: Path) -> None:
    images = image_set([b"one", b"two", b"three"])
    rows = [
        {"key": "k1", "description": "by key"},
        {"digest": images.digests[0].upper(), "description": "by digest, größer"},
        {"key": "k0", "description": "not used"},
        {"key": "elsewhere", "description": "unused"},
    ]
    describer = load_describer(f"replay:{write_lines(tmp_path / 'd.jsonl', rows)}")
    answers = list(describer.describe(requests(images)))
    assert [answer.text for answer in answers] == ["by digest, größer", "by key", None]
    assert answers[2].error is None
    assert describer.report(images).facts["replay_rows_unused"] == 1
    assert not describer.report(images).set_aside


def test_bad_lines_are_named_and_cost_no_other(tmp_path: Path) -> None:
    rows: list[object] = [
        "\ufeff" + json.dumps({"key": "k0", "description": "good"}) + "\n",
        "\n",
        "{broken\n",
        {"key": "k1"},
        {"key": "k1", "description": "  "},
        {"description": "whose?"},
        {"digest": "abc", "description": "short digest"},
        '{"key": "k1", "description": "\\ud800"}\n',
        {"key": "k1", "description": 5},
        [1],
        "[" * 100_000 + "\n",
        {"key": "k0", "description": "good"},
        {"key": "k0", "description": "contradicts"},
        json.dumps({"key": "k2", "description": "no newline at the end"}),
    ]
    describer = load_describer(f"replay:{write_lines(tmp_path / 'd.jsonl', rows)}")
    images = image_set([b"one", b"two", b"three"])
    assert [a.text for a in describer.describe(requests(images))] == ["good", None, "no newline at the end"]
    report = describer.report(images)
    assert [item.name for item in report.set_aside] == [f"d.jsonl, line {n}" for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 13)]
    assert report.facts["replay_rows_twice"] == 1


def test_identity_is_the_name_of_the_file_so_that_it_may_grow(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [{"key": "k0", "description": "x"}])
    before = load_describer(f"replay:{path}").settings
    with path.open("a") as file:
        file.write('{"key": "k1", "description": "y"}\n')
    assert load_describer(f"replay:{path}").settings == before


def test_requests_are_pulled_one_at_a_time(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [{"key": "k0", "description": "x"}])
    pulled: list[str] = []

    def lazily():
        for request in requests(image_set([b"one", b"two"])):
            pulled.append(request.keys[0])
            yield request

    next(load_describer(f"replay:{path}").describe(lazily()))
    assert pulled == ["k0"]


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'replay'"):
        load_describer("reply:x")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_describer(f"replay:{tmp_path / 'none.jsonl'}")
    with pytest.raises(ConfigError, match="line 1: not a line of JSON"):
        load_describer(f"replay:{write_lines(tmp_path / 'd.jsonl', ['key,description'])}")


def test_prompts_are_named_and_a_slip_does_not_lose_the_mark_of_a_told_class() -> None:
    assert find_prompt("paper").text == "Describe this image in detail."
    assert find_prompt("class-conditioned").class_conditioned
    assert find_prompt("my captions") == find_prompt("my captions")
    for slip in ("class_conditioned", "Class-Conditioned", "papr", ""):
        with pytest.raises(ConfigError):
            find_prompt(slip)
    assert "{evil} tabby" in render(PROMPTS["class-conditioned"], "{evil} tabby")
