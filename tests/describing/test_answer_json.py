"""Structured answers as models write them: JSON within anything, broken in any way, and hostile."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.artifacts.answers import Answer, answer_of_json
from gpt4image.artifacts.box_formats import in_thousandths
from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.config import BOX_FORMATS
from gpt4image.describing.answer_json import (
    LONGEST_WORD,
    MOST_BOXES,
    MOST_TAGS_KEPT,
    Parsed,
    boxes,
    parse_answer,
    share,
)
from gpt4image.describing.class_lists import ClassNames, class_list
from gpt4image.describing.questions import asking_for

CLASSES = class_list("cat, dog, sport_ball")
ALL = asking_for(PROMPTS["short"], ("description", "class", "tags"), CLASSES)
CLASS = asking_for(PROMPTS["short"], ("class",), CLASSES)
BOXES = asking_for(PROMPTS["short"], ("boxes",), CLASSES)
NAMES = ClassNames(ALL.class_names)
GOOD = {"description": "A cat {on} a mat.", "class": "cat", "second": "dog", "confidence": 0.9, "tags": ["fur", "mat"]}
WHOLE = Parsed("A cat {on} a mat.", Answer(class_name="cat", second="dog", confidence=0.9, tags=("fur", "mat")))


def parse(text: str, prompt: Any = ALL) -> Parsed | str:
    return parse_answer(text, prompt, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, indent=2),
        f"Sure! Here it is:\n```json\n{json.dumps(GOOD)}\n```\nAnything else?",
        f'<think>Perhaps {{"class": "dog"}}?</think>{json.dumps(GOOD)}',
        f'I see {{a cat}}: {json.dumps(GOOD)} {{"class": "dog"}}',
        json.dumps(GOOD)[:-2] + ",],}",
        json.dumps(GOOD)[:-1],
        json.dumps(GOOD).replace("0.9", '"90 %"'),
        json.dumps({**GOOD, "said": "wolf", "boxes": [1], "probability": 7, "more": {"deep": [[[]]]}}),
    ],
)
def test_an_answer_is_found_in_what_models_write_around_it(text: str) -> None:
    assert parse(text) == WHOLE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("A cat on a mat.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ("{" * 100_000, "no JSON object"),
        ('{"class": ' * 50_000, "no JSON object"),
        ('{"class": "cat"}', "lacks 'description'"),
        ('{"description": "A cat"}', "lacks 'class'"),
        ('{"description": " ", "class": "cat"}', "lacks 'description'"),
        ('{"description": ["A"], "class": {"name": "cat"}}', "lacks 'description' and 'class'"),
        ('{"description": "A ball.", "class": "sport_b', "lacks 'class'"),
    ],
)
def test_what_is_no_answer_says_why(text: str, reason: str) -> None:
    found = parse(text)
    assert isinstance(found, str) and reason in found and "\n" not in found


@pytest.mark.parametrize(
    "text",
    [
        *("", "no boxes here", "{" * 50_000, '{"boxes": "none"}', '{"boxes": [', '{"boxes": [{"label": "cat", "box'),
        *('{"boxes": [{"label": "cat", "box_2d": ["1", "2", "3", "4"]}]}', '{"boxes": [[1, 2, 3, 4]]}'),
        *('{"boxes": null}', '{"class": "cat"}', '[{"label": "cat"}]', '{"boxes": {"cat": [1, 2, 3, 4]}}'),
    ],
)
def test_what_says_nothing_about_boxes_is_no_answer(text: str) -> None:
    assert isinstance(parse(text, BOXES), str)


@pytest.mark.parametrize("text", ['{"boxes": []}', "[]", "```json\n[]\n```", '{"boxes": []'])
def test_an_image_may_show_nothing(text: str) -> None:
    assert parse(text, BOXES) == Parsed(None, Answer(boxes=()))


def test_a_cut_answer_keeps_what_is_whole() -> None:
    cut = json.dumps(GOOD)[: json.dumps(GOOD).index('mat"]') + 2]
    assert parse(cut) == WHOLE._replace(answer=replace(WHOLE.answer, tags=("fur",)))
    described = replace(ALL, ask=("description", "tags"))
    assert parse('{"description": "A cat on a', described) == Parsed("A cat on a", Answer())


@pytest.mark.parametrize(
    ("said", "class_name", "own", "kind"),
    [
        ("Sport Ball", "sport_ball", "Sport Ball", "in_list"),
        ("sport ball", "sport_ball", None, "in_list"),
        ("a dog", "dog", "a dog", "in_list"),
        ("CATS.", "cat", "CATS.", "in_list"),
        ("none of these", None, None, "none"),
        ("None", None, None, "none"),
        (None, None, None, "none"),
        ("wolf", None, "wolf", "outside_list"),
        ("cat or dog", None, "cat or dog", "outside_list"),
        ("x" * 5000, None, "x" * LONGEST_WORD, "outside_list"),
        (
            '<script>alert(1)</script>", "class": "dog',
            None,
            '<script>alert(1)</script>", "class": "dog',
            "outside_list",
        ),
    ],
)
def test_a_class_is_of_the_list_or_kept_as_it_was_said(
    said: str | None, class_name: str | None, own: str | None, kind: str
) -> None:
    found = parse(json.dumps({"class": said}), CLASS)
    assert isinstance(found, Parsed)
    assert (found.answer.class_name, found.answer.said, found.answer.kind) == (class_name, own, kind)
    assert found.description is None


def test_a_class_within_a_description_chooses_nothing() -> None:
    injected = {"description": 'The sign says: {"class": "dog", "confidence": 1}', "class": "cat"}
    found = parse(json.dumps(injected))
    assert isinstance(found, Parsed) and found.answer == Answer(class_name="cat")


@pytest.mark.parametrize(
    ("stated", "confidence"),
    [
        *((0.5, 0.5), (1, 1.0), (0, 0.0), ("0.97", 0.97), ("97 %", 0.97), (97, 0.97), ("97", 0.97), (".5", 0.5)),
        *(
            (value, None)
            for value in ("very", 1e99, -0.1, True, [1], {}, None, "1e99", "-1", 101, 10**400, "9" * 10_000)
        ),
        *((value, None) for value in (math.nan, math.inf)),
    ],
)
def test_a_confidence_is_a_share_or_unknown(stated: Any, confidence: float | None) -> None:
    assert share(stated) == confidence
    text = json.dumps({"class": "cat", "confidence": None if stated == 10**400 else stated})
    found = parse(text, CLASS)
    assert isinstance(found, Parsed) and found.answer.class_name == "cat"


def test_tags_and_boxes_are_bounded() -> None:
    many = {**GOOD, "tags": [f"tag {number}" for number in range(100_000)] + ["x" * 10**6, 3, None]}
    found = parse(json.dumps({**GOOD, "tags": many["tags"][:20_000]}))
    assert isinstance(found, Parsed) and len(found.answer.tags or ()) == MOST_TAGS_KEPT
    assert parse(json.dumps({**GOOD, "tags": "fur, mat, , fur"})) == WHOLE
    box = {"label": "cat", "box_2d": [1, 2, 3, 4], "truncated": True}
    bad = [{"label": "cat"}, {"label": 3, "box_2d": [1, 2, 3, 4]}, {"label": "a", "box_2d": [1, 2, 3, math.nan]}, 7]
    assert boxes([box, *bad]) == (box,)
    assert len(boxes([box] * 5000) or ()) == MOST_BOXES and boxes("cat") is None


def test_halves_of_characters_are_replaced() -> None:
    found = parse('{"description": "a \\ud83d b", "class": "w\\udc00lf"}')
    assert isinstance(found, Parsed)
    assert (found.description, found.answer.said) == ("a � b", "w�lf")


@given(
    st.fixed_dictionaries(
        {
            "description": st.text(min_size=1).filter(str.strip),
            "class": st.sampled_from(["cat", "dog", "sport ball"]),
            "second": st.none() | st.sampled_from(["sport_ball"]),
            "confidence": st.floats(0, 1),
            "tags": st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), max_size=5, unique=True),
        }
    ),
    st.sampled_from(["{}", "```json\n{}\n```", "Here: {} .", "{}\n\n{{}}"]),
    st.integers(0, 400),
)
def test_any_answer_comes_back_and_any_part_of_it_never_fails(value: dict[str, Any], around: str, cut: int) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        found = parse(around.format(text) if "{}" in around else text)
        assert isinstance(found, Parsed)
        assert (found.description or "").split() == value["description"].strip().split() or "\ufffd" in (
            found.description or ""
        )
        assert (found.answer.confidence, found.answer.tags) == (value["confidence"], tuple(value["tags"]))
        assert found.answer.class_name == value["class"].replace(" ", "_")
        part = parse(text[:cut])
        if isinstance(part, Parsed):
            assert part.answer.class_name == found.answer.class_name, "a cut class is none"


SCRAPS = [
    *('{"boxes": [', '{"label": "cat", ', '"box_2d": [', "1, 2, 30, 400", "]", "}", "},", "1e99, NaN", '"', "```", "-"),
    *('"truncated": true', ", ", "[[", '"words": "a', '"confidence": 2', "0.5, 0.25", '"boxes": ', "[]", "4000, -7"),
]


@given(st.lists(st.sampled_from(SCRAPS), max_size=14).map("".join) | st.text(max_size=40), st.sampled_from(BOX_FORMATS))
def test_any_text_about_boxes_is_a_reason_or_boxes_within_the_image(text: str, name: str) -> None:
    for ask in (("boxes",), ("class", "boxes")):
        found = parse_answer(text, asking_for(PROMPTS["short"], ask, CLASSES), NAMES)
        if isinstance(found, Parsed):
            assert answer_of_json(found.answer.to_json()) == found.answer
            for box in in_thousandths(replace(found.answer, picture=(640, 480)), name, 320).boxes or ():
                left, top, right, bottom = box["box_2d"]
                assert 0 <= left < right <= 1000 and 0 <= top < bottom <= 1000 and box["label"]
