"""Describers by name: answers replayed from a file, and functions; what they cannot use is named."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gpt4image
from gpt4image.artifacts.answers import PROMPTS
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.config import DescriberOptions
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, Describer, Request
from gpt4image.describing.describers.registry import DESCRIBERS, load_describer
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.reporting import doctor
from tables import write_lines
from worlds import in_memory


def requests(images: Dataset) -> list[Request]:
    return [
        Request(digest=digest, keys=(key,), prompt=PROMPTS["paper"], question="?", read=lambda: b"")
        for key, digest in zip(images.keys, images.digests, strict=True)
    ]


def load(path: Path | str) -> Describer:
    return load_describer(DescriberOptions(describer=f"replay:{path}"))


def answers_of(describer: Describer, images: Dataset) -> list[Answer]:
    return [answer for group in describer.describe(requests(images)) for answer in group]


def test_rows_are_found_by_key_or_digest_and_digest_wins(tmp_path: Path) -> None:
    images = in_memory([b"one", b"two", b"three"])
    rows = [
        {"key": "k1", "description": "by key"},
        {"digest": images.digests[0].upper(), "description": "by digest, größer"},
        {"key": "k0", "description": "not used"},
        {"key": "elsewhere", "description": "unused"},
    ]
    describer = load(write_lines(tmp_path / "d.jsonl", rows))
    answers = answers_of(describer, images)
    assert [answer.text for answer in answers] == ["by digest, größer", "by key", None]
    assert answers[2].error is None
    assert describer.report(images).facts["replay_rows_unused"] == 1
    assert not describer.report(images).skipped


def test_a_text_of_a_writer_that_was_told_the_class_answers_only_a_prompt_that_tells_it(tmp_path: Path) -> None:
    images = in_memory([b"one", b"two"])
    rows = [{"key": "k0", "description": "told", "prompt": "class-conditioned"}, {"key": "k1", "description": "free"}]
    describer = load(write_lines(tmp_path / "d.jsonl", rows))
    answers = answers_of(describer, images)
    assert [answer.text for answer in answers] == [None, "free"]
    assert answers[0].error is not None and "--prompt class-conditioned" in answers[0].error
    told = [replace(request, prompt=PROMPTS["class-conditioned"]) for request in requests(images)]
    assert [answer.text for group in describer.describe(told) for answer in group] == ["told", "free"]


def test_a_table_is_replayed_and_twice_the_same_row_is_one(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("key,description\nk0,one\nk1,two\nk1,two\nk0,other\n,none\n", encoding="utf-8")
    images, describer = in_memory([b"0", b"1"]), load(path)
    assert [answer.text for answer in answers_of(describer, images)] == ["one", "two"]
    report = describer.report(images)
    assert [item.name for item in report.skipped] == ["texts.csv, row 4", "texts.csv, row 5"]


def test_files_without_a_row_for_the_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="line 1: not a line of JSON"):
        (tmp_path / "d.jsonl").write_text("key,description")
        load(tmp_path / "d.jsonl")
    describer = load(write_lines(tmp_path / "texts.jsonl", [{"key": "photos/1.jpg", "description": "one"}]))
    assert isinstance(describer, ReplayDescriber)
    with pytest.raises(ConfigError, match=r"none of its 1 rows belongs.*'photos/1.jpg'.*look like 'k0', 'k1'"):
        describer.require_answers(in_memory([b"0", b"1"]), ("description",))


# Functions and names


def by_colour(image: Image.Image, question: str) -> str | dict[str, Any]:
    red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    if "class" not in question:
        return f"A picture of {image.width} pixels."
    if green > 150:
        raise RuntimeError("no words\nfor green")
    return {"class": "red" if red > blue else "blue", "confidence": 0.9}


def test_a_function_with_a_name_answers_and_its_errors_cost_no_other_answer(
    colour_folder: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"data": colour_folder, "store": tmp_path / "a.db", "splits": "train,val,test"}
    asked["ask"] = "class"
    done = gpt4image.describe(**asked, describer=("by-colour", by_colour))
    assert (done.described, done.failed, done.already_described) == (32, 16, 0)
    assert {item.reason for item in done.skipped} == {"RuntimeError: no words"}
    with DescriptionStore(tmp_path / "a.db") as store:
        answers = list(store.answers())
        assert {row.describer["function"] for row in store.descriptions()} == {"by-colour"}
    assert {stored.answer.class_name for stored in answers} == {"red", "blue"}
    again = gpt4image.describe(**asked, describer=("by-colour", by_colour))
    assert again.already_described == 32
    with pytest.raises(ConfigError, match=r"no name to record; give a pair \(name, function\)"):
        gpt4image.describe(**asked, describer=lambda image, question: "a")
    with pytest.raises(ConfigError, match=r"--describer is a int; give a SPEC"):
        gpt4image.describe(**asked, describer=3)


def test_the_command_line_imports_a_function_from_the_working_folder(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_words.py").write_text("def say(image, question):\n    return 'Some words of it.'\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {"data": colour_folder, "store": tmp_path / "a.db", "limit": 2}
    assert gpt4image.describe(**asked, describer="python:my_words:say").described == 2
    for name in ("my_words:tell", "absent_words:say", "gone"):
        with pytest.raises(ConfigError, match=re.escape(f"--describer python:{name} ")):
            gpt4image.describe(**asked, describer=f"python:{name}")


def test_the_describers_that_extras_are_for_are_there_and_a_mistyped_one_is_guessed() -> None:
    told = [brings for brings in doctor.EXTRAS.values() if brings.startswith("describer")]
    named = {name for brings in told for name in re.findall(r"([\w-]+):", brings)}
    assert named and named <= DESCRIBERS.keys()
    for spec, message in (
        ("reply:x", "Did you mean 'replay'"),
        ("gpt-4.1-mini", r"Did you mean 'openai:gpt-4\.1-mini'\?"),
        ("claude:sonnet", r"'claude' is not one of: anthropic.*openai:MODEL --base-url ADDRESS\.$"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_describer(DescriberOptions(describer=spec))
