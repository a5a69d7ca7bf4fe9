"""Prompts: named or from a file, filled in once for the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.artifacts.prompts import PROMPTS, fill, find_prompt, load_prompt, text_for
from gpt4image.base.errors import ConfigError

CLASSES = ("tabby_cat", "beagle")


def asked(name: str, class_name: str = "beagle") -> str:
    return text_for(fill(load_prompt(name), CLASSES), class_name)


def test_a_slip_does_not_lose_the_mark_of_a_told_class() -> None:
    assert find_prompt("paper").text == "Describe this image in detail."
    assert find_prompt("class-conditioned").class_conditioned
    assert find_prompt("my captions") == find_prompt("my captions")
    for slip in ("class_conditioned", "Class-Conditioned", "papr", ""):
        with pytest.raises(ConfigError):
            find_prompt(slip)
    assert "{evil} tabby" in text_for(PROMPTS["class-conditioned"], "{evil} tabby")


def test_places_are_filled_and_class_names_read_as_words() -> None:
    assert asked("paper") == "Describe this image in detail."
    attributes = asked("attributes")
    assert "at most 100 words" in attributes and "{" not in attributes
    contrastive = asked("contrastive", "tabby_cat")
    assert "tells this tabby cat from the other classes (tabby cat, beagle)" in contrastive
    told = {name for name, prompt in PROMPTS.items() if prompt.class_conditioned}
    assert told == {"class-conditioned", "contrastive"}, "they tell the class of the image"
    with pytest.raises(ConfigError, match="the dataset has none"):
        fill(PROMPTS["contrastive"], ())


def test_a_file_is_a_prompt_whose_text_is_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "birds.txt"
    path.write_text('Which of {class_list} is it? Answer as {"text": ...}.\nIs it a {class_name}?\n')
    prompt = load_prompt(str(path))
    assert prompt.name == "birds" and prompt.class_conditioned
    filled = fill(prompt, CLASSES)
    assert "{class_name}" in filled.text and filled != fill(prompt, CLASSES[:1])
    asked = 'Which of tabby cat, beagle is it? Answer as {"text": ...}.\nIs it a wren?'
    assert text_for(filled, "wren") == asked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Describe {colour}.", "nothing fills '{colour}'"),
        (b"", "it is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "give a text file"),
    ],
)
def test_templates_that_cannot_be_sent_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    (tmp_path / "p.txt").write_text("Describe it.", encoding="utf-8-sig")
    assert load_prompt(str(tmp_path / "p.txt")).text == "Describe it.", "without the mark that Windows puts first"
    (tmp_path / "p.txt").unlink() if content is None else (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_prompt(str(tmp_path / "p.txt"))
