"""What becomes of an answer: kept, rejected or a failure."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4image.artifacts import answers
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.artifacts.store import ClassOption
from gpt4image.describing.describe import Judged, judge
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.questions import asking_for

REJECT: Any = ("empty", "refusal", "echo", "loop")
CLASSES = (ClassOption("cat"), ClassOption("dog"))


def judged(text: str | None, ask: tuple[str, ...] = ("description", "class"), **values: Any) -> Judged:
    prompt = asking_for(PROMPTS["short"], ask, CLASSES)
    request = Request(digest="a" * 64, keys=("a",), prompt=prompt, turns=("What is it?",), read=lambda: b"")
    last_try = values.pop("last_try", False)
    return judge(Answer(request=request, text=text, **values), REJECT, last_try=last_try)


CAT = answers.Answer(class_name="cat", probability=0.25)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ('{"description": "A cat.", "class": "cat"}', {"probability": 0.25}, Judged("A cat.", CAT)),
        ('{"class": "cat"}', {"ask": ("class",), "probability": 0.25}, Judged(None, CAT)),
        ("A cat sits.", {"ask": ("description",)}, Judged("A cat sits.")),
        ("<think>Is it a dog?</think>\n A cat sits.", {"ask": ("description",)}, Judged("A cat sits.")),
        ("It may be a dog.\n</think>\nA cat sits.", {"ask": ("description",)}, Judged("A cat sits.")),
        ("<think>Is it a dog?</think>", {"ask": ("description",)}, Judged("", None, "empty")),
        (
            '{"class": "dog"}? No. </think> {"class": "cat"}',
            {"ask": ("class",), "probability": 0.25},
            Judged(None, CAT),
        ),
        ("A cat \ud83d sits.", {"ask": ("description",)}, Judged("A cat � sits.")),
        (None, {"error": "HTTP 500"}, Judged(error="HTTP 500")),
        ("", {"ask": ("class",), "finish_reason": "content_filter"}, Judged("", None, "refusal")),
        (
            "I'm sorry, but I can't help with that.",
            {},
            Judged("I'm sorry, but I can't help with that.", None, "refusal"),
        ),
    ],
)
def test_answers_are_kept_or_rejected(text: str | None, values: dict[str, Any], expected: Judged) -> None:
    assert judged(text, **values) == expected


def test_json_that_was_cut_names_the_limit_of_tokens() -> None:
    found = judged('{"boxes": [{"label": "cat", "box', ask=("boxes",), finish_reason="length")
    assert found.error is not None and found.error.endswith("'boxes'; it ends at the limit of tokens (--max-tokens)")


def test_a_class_outside_the_list_is_kept_only_at_the_last_try() -> None:
    first, last = (judged('{"class": "wolf"}', ask=("class",), last_try=last) for last in (False, True))
    assert (
        first.outside_list and first.error == "the class is not in the list: wolf" and first.text == '{"class": "wolf"}'
    )
    assert last == Judged(None, answers.Answer(said="wolf"))
