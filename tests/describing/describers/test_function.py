"""Describers by name, and a function as one: what it says is an answer, what it raises is the error of that image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gpt4image
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import ConfigError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.registry import DESCRIBERS, load_describer
from gpt4image.reporting import doctor


def by_colour(image: Image.Image, question: str) -> str | dict[str, Any]:
    red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    if "class" not in question:
        return f"A picture of {image.width} pixels."
    if green > 150:
        raise RuntimeError("no words\nfor green")
    return {"class": "red" if red > blue else "blue", "confidence": 0.9}


def test_a_function_answers_and_its_errors_cost_no_other_answer(colour_folder: Path, tmp_path: Path) -> None:
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


def test_a_function_has_a_name_to_record_or_is_given_one(colour_folder: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"data": colour_folder, "store": tmp_path / "a.db"}
    with pytest.raises(ConfigError, match=r"no name to record; give a pair \(name, function\)"):
        gpt4image.describe(**asked, describer=lambda image, question: "a")
    with pytest.raises(ConfigError, match=r"describer= is a int; give a SPEC"):
        gpt4image.describe(**asked, describer=3)


def test_the_command_line_imports_a_function_from_the_working_folder(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_words.py").write_text("def say(image, question):\n    return 'Some words of it.'\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {"data": colour_folder, "store": tmp_path / "a.db", "limit": 2}
    assert gpt4image.describe(**asked, describer="python:my_words:say").described == 2
    for name in ("my_words:tell", "absent_words:say", "gone"):
        with pytest.raises(ConfigError, match=re.escape(f"describer=python:{name}: ")):
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
