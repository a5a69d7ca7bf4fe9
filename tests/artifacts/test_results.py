"""Prompts and results as values: what identifies them, and when a result is good."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.results import ClassOption, Description, Prompt, canonical_json

PLAIN = Prompt("short", 1, "Describe it.", class_conditioned=False)
ASKED = replace(PLAIN, ask=("description", "class"), classes=(ClassOption("cat", "a pet"), ClassOption("dog")))


def test_a_prompt_comes_back_from_json_with_its_class_list() -> None:
    for prompt in (PLAIN, ASKED):
        back = Prompt(**json.loads(json.dumps(asdict(prompt))))
        assert back == prompt and hash(back) == hash(prompt) and back.row == prompt.row
    assert ASKED.class_names == ("cat", "dog") and PLAIN.row[-1] == ""


def test_a_class_list_and_its_definitions_tell_prompts_apart() -> None:
    others = [PLAIN, replace(ASKED, classes=(("cat", "a pet"), ("dog", "a friend"))), replace(ASKED, ask=("class",))]
    assert len({prompt.row for prompt in (ASKED, *others)}) == len({ASKED, *others}) == 4
    assert sorted([ASKED, *others])[0].name == "short", "prompts have an order"


@pytest.mark.parametrize(
    ("text", "answer", "error", "status"),
    [
        ("A cat.", None, None, "ok"),
        (None, Answer(class_name="cat"), None, "ok"),
        ("A cat.", Answer(), None, "ok"),
        (None, None, None, "failed"),
        ("No.", None, "refusal", "failed"),
        (None, Answer(class_name="cat"), "loop", "failed"),
    ],
)
def test_a_result_is_good_with_a_text_or_an_answer_and_no_error(
    text: str | None, answer: Answer | None, error: str | None, status: str
) -> None:
    row = Description(
        digest="a" * 64, prompt=ASKED, describer={"kind": "x"}, created=0.0, text=text, answer=answer, error=error
    )
    assert row.status == status and isinstance(hash(row), int)


def test_equal_settings_are_equal_text() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})
