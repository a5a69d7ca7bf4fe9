"""What is still wanted of an image: only the parts that no answer in the store brings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore, Prompt
from gpt4image.describing.questions import asking_for
from gpt4image.describing.wanted import Wanted, brings, find_wanted, steps_of

SHORT, PAPER = PROMPTS["short"], PROMPTS["paper"]
CLASSES = (ClassOption("cat"), ClassOption("dog", "a friend"))
ME = {"kind": "test"}
BOTH = ("description", "class")
A, B, C = (letter * 64 for letter in "abc")


def row(digest: str, prompt: Prompt, **values: Any) -> Description:
    content = {"text": "A cat." if "description" in prompt.ask else None}
    content["answer"] = None if prompt.ask == ("description",) else Answer(class_name="cat")  # type: ignore[assignment]
    fields = {"digest": digest, "prompt": prompt, "describer": ME, "created": 0.0, **content, **values}
    return Description(**fields)  # type: ignore[arg-type]


def wanted(path: Path, rows: list[Description], **options: Any) -> tuple[Wanted, dict[tuple[str, ...], set[str]]]:
    """What is wanted, and the images that each set of parts is asked of."""
    values = {
        "bases": [SHORT],
        "ask": BOTH,
        "classes": CLASSES,
        "digests": {A, B, C},
        "samples": frozenset({0}),
        "retry_rejected": False,
        **options,
    }
    with DescriptionStore(path / "a.db", write=True) as store:
        store.add(rows)
        found = find_wanted(store, ME, **values)  # type: ignore[arg-type]
    asked = {
        prompt.ask: {digest for digest in (A, B, C) if values["samples"] - settled.get(digest, frozenset())}
        for prompt, settled in zip(found.prompts, found.settled, strict=True)
    }
    return found, asked


def test_a_fresh_image_is_asked_for_everything(tmp_path: Path) -> None:
    found, asked = wanted(tmp_path, [])
    assert asked == {BOTH: {A, B, C}} and found.done == 0
    assert found.prompts == [asking_for(SHORT, BOTH, CLASSES)]


def test_parts_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    rows = [row(A, SHORT), row(B, asking_for(SHORT, ("class",), CLASSES)), row(C, asking_for(SHORT, BOTH, CLASSES))]
    found, asked = wanted(tmp_path, rows)
    assert {parts: images for parts, images in asked.items() if images} == {("class",): {A}, ("description",): {B}}
    assert found.done == 1
    assert wanted(tmp_path, [], ask=("description",))[1] == {("description",): {B}}
    assert wanted(tmp_path, [], ask=("class",))[1] == {("class",): {A}}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"classes": (ClassOption("cat"), ClassOption("dog", "a foe"))}, ("class",)),
        ({"classes": CLASSES[:1]}, ("class",)),
        ({"bases": [PAPER]}, ("description",)),
        ({"bases": [replace(SHORT, text="Other words.")]}, ("description",)),
    ],
)
def test_another_class_list_or_prompt_is_another_question(
    tmp_path: Path, options: dict[str, Any], parts: tuple[str, ...]
) -> None:
    rows = [row(digest, asking_for(SHORT, BOTH, CLASSES)) for digest in (A, B, C)]
    _, asked = wanted(tmp_path, rows, **options)
    assert {own: images for own, images in asked.items() if images} == {parts: {A, B, C}}


def test_rejected_answers_are_let_be_unless_they_are_asked_for_again(tmp_path: Path) -> None:
    rows = [row(A, asking_for(SHORT, BOTH, CLASSES), text="no json", answer=None, error="broken")]
    found, asked = wanted(tmp_path, rows)
    assert asked == {BOTH: {B, C}} and found.done == 0
    assert wanted(tmp_path, [], retry_rejected=True)[1] == {BOTH: {A, B, C}}


def test_answers_of_others_and_failures_do_not_count(tmp_path: Path) -> None:
    both = asking_for(SHORT, BOTH, CLASSES)
    rows = [row(A, both, describer={"kind": "other"}), row(B, both, text=None, answer=None, error="HTTP 500")]
    assert wanted(tmp_path, rows)[1] == {BOTH: {A, B, C}}


def test_only_the_samples_that_are_missing_are_wanted(tmp_path: Path) -> None:
    both = asking_for(SHORT, BOTH, CLASSES)
    found, _ = wanted(tmp_path, [row(A, both, sample=1), row(A, both, sample=7)], samples=frozenset({0, 1, 2}))
    assert found.done == 1 and found.settled[0][A] == {1} and found.settled[0].get(B) == frozenset()


def test_of_very_many_classes_the_description_comes_first() -> None:
    many = [ClassOption(f"class {number}") for number in range(101)]
    assert steps_of(("class",), many) == [("description",), ("class",)]
    assert steps_of(("description", "class", "tags"), many) == [("description", "tags"), ("class",)]
    assert steps_of(("description", "class", "tags"), many[:100]) == [("description", "class", "tags")]
    assert steps_of(("tags",), many) == [("tags",)]


def test_tags_of_a_list_and_tags_in_words_do_not_stand_for_each_other(tmp_path: Path) -> None:
    ask = ("description", "tags")
    listed, words = asking_for(SHORT, ask, CLASSES), asking_for(SHORT, ask, ())
    beside = asking_for(SHORT, ("description", "class", "tags"), CLASSES)
    assert [brings(listed, "tags", SHORT, ask, given) for given in (CLASSES, CLASSES[:1], ())] == [True, False, False]
    assert [brings(words, "tags", SHORT, ask, given) for given in (CLASSES, ())] == [False, True]
    assert brings(words, "tags", SHORT, beside.ask, CLASSES) and not brings(listed, "tags", SHORT, beside.ask, CLASSES)
    assert brings(listed, "description", SHORT, ask, ()) and brings(words, "description", SHORT, ask, CLASSES)
    kept = asking_for(SHORT, ("description", "class"), CLASSES)
    found, _ = wanted(tmp_path, [row(A, kept)], ask=beside.ask)
    assert asking_for(SHORT, ("tags",), ()) in found.prompts  # what lacks its tags gets words too
