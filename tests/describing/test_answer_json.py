"""Answers as models write them: JSON within anything, broken in any way, and hostile; kept, rejected or a failure."""

import json
import math
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from gpt4image.artifacts.answers import PROMPTS, Answer
from gpt4image.artifacts.class_lists import ClassNames, class_list
from gpt4image.config import Flaw
from gpt4image.describing.answer_json import (
    LONGEST_WORD,
    MOST_BOXES,
    MOST_TAGS_KEPT,
    Parsed,
    boxes,
    flaws,
    is_refusal,
    parse_answer,
    share,
)
from gpt4image.describing.describe import Judged, judge
from gpt4image.describing.describers import base
from gpt4image.describing.questions import asking_for

CLASSES = class_list("cat, dog, sport_ball")
ALL = asking_for(PROMPTS["short"], ("description", "class", "tags"), CLASSES)
CLASS, BOXES = (asking_for(PROMPTS["short"], (part,), CLASSES) for part in ("class", "boxes"))
NAMES = ClassNames(ALL.class_names)
GOOD = {"description": "A cat {on} a mat.", "class": "cat", "second": "dog", "confidence": 0.9, "tags": ["fur", "mat"]}
TEXT = json.dumps(GOOD)
WHOLE = Parsed("A cat {on} a mat.", Answer(class_name="cat", second="dog", confidence=0.9, tags=("fur", "mat")))


def parse(text: str, prompt: Any = ALL) -> Parsed | str:
    return parse_answer(text, prompt, NAMES)


def parsed(value: Any, prompt: Any = ALL) -> Parsed:
    found = parse(value if isinstance(value, str) else json.dumps(value), prompt)
    assert isinstance(found, Parsed)
    return found


@pytest.mark.parametrize(
    "text",
    [
        *(TEXT, json.dumps(GOOD, indent=2), TEXT[:-2] + ",],}", TEXT[:-1], TEXT.replace("0.9", '"90 %"')),
        f"Sure! Here it is:\n```json\n{TEXT}\n```\nAnything else?",
        f'<think>Perhaps {{"class": "dog"}}?</think>{TEXT}',
        f'I see {{a cat}}: {TEXT} {{"class": "dog"}}',
        json.dumps({**GOOD, "said": "wolf", "boxes": [1], "probability": 700, "more": {"deep": [[[]]]}}),
        json.dumps({**GOOD, "tags": "fur, mat, , fur"}),
    ],
)
def test_an_answer_is_found_in_what_models_write_around_it(text: str) -> None:
    assert parse(text) == WHOLE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "no JSON object") for text in ("", "A cat on a mat.", "[1, 2]", "{" * 100_000, '{"class": ' * 50_000)),
        ('{"class": "cat"}', "lacks 'description'"),
        ('{"description": " ", "class": "cat"}', "lacks 'description'"),
        ('{"description": "A cat"}', "lacks 'class'"),
        ('{"description": ["A"], "class": {"name": "cat"}}', "lacks 'description' and 'class'"),
        ('{"description": "A ball.", "class": "sport_b', "lacks 'class'"),
    ],
)
def test_what_is_no_answer_says_why(text: str, reason: str) -> None:
    found = parse(text)
    assert isinstance(found, str) and reason in found and "\n" not in found


def test_an_image_may_show_nothing_but_what_says_nothing_about_boxes_is_no_answer() -> None:
    for text in (
        *("", "no boxes here", "{" * 50_000, '{"boxes": "none"}', '{"boxes": [', '{"boxes": [{"label": "cat", "box'),
        *('{"boxes": [{"label": "cat", "box_2d": ["1", "2", "3", "4"]}]}', '{"boxes": [[1, 2, 3, 4]]}'),
        *('{"boxes": null}', '{"class": "cat"}', '[{"label": "cat"}]', '{"boxes": {"cat": [1, 2, 3, 4]}}'),
    ):
        assert isinstance(parse(text, BOXES), str), text
    for text in ('{"boxes": []}', "[]", "```json\n[]\n```"):
        assert parse(text, BOXES) == Parsed(None, Answer(boxes=())), text


def test_a_cut_answer_keeps_what_is_whole() -> None:
    assert parse(TEXT[: TEXT.index('mat"]') + 2]) == WHOLE._replace(answer=replace(WHOLE.answer, tags=("fur",)))
    described = replace(ALL, ask=("description", "tags"))
    assert parse('{"description": "A cat on a', described) == Parsed("A cat on a", Answer())


INJECTED = '<script>alert(1)</script>", "class": "dog'


@pytest.mark.parametrize(
    ("said", "class_name", "own", "kind"),
    [
        ("Sport Ball", "sport_ball", "Sport Ball", "in_list"),
        ("sport ball", "sport_ball", None, "in_list"),
        ("a dog", "dog", "a dog", "in_list"),
        ("CATS.", "cat", "CATS.", "in_list"),
        *((none, None, None, "none") for none in ("none of these", "None", None)),
        *((word, None, word, "outside_list") for word in ("wolf", "cat or dog", INJECTED)),
        ("x" * 5000, None, "x" * LONGEST_WORD, "outside_list"),
    ],
)
def test_a_class_is_of_the_list_or_kept_as_it_was_said(
    said: str | None, class_name: str | None, own: str | None, kind: str
) -> None:
    found = parsed({"class": said}, CLASS)
    assert (found.answer.class_name, found.answer.said, found.answer.kind) == (class_name, own, kind)
    assert found.description is None


def test_texts_within_an_answer_choose_nothing_and_halves_of_characters_are_replaced() -> None:
    injected = {"description": 'The sign says: {"class": "dog", "confidence": 1}', "class": "cat"}
    assert parsed(injected).answer == Answer(class_name="cat")
    found = parsed('{"description": "a \\ud83d b", "class": "w\\udc00lf"}')
    assert (found.description, found.answer.said) == ("a � b", "w�lf")


def test_a_confidence_is_a_share_or_unknown() -> None:
    known = [(0.5, 0.5), (1, 1.0), (0, 0.0), ("0.97", 0.97), ("97 %", 0.97), (97, 0.97), ("97", 0.97), (".5", 0.5)]
    known += [("95 percent", 0.95), ("95/100", 0.95)]
    unknown = ["very", 1e99, -0.1, True, [1], {}, None, "1e99", "-1", 101, "9" * 10_000, math.nan, math.inf]
    for stated, confidence in [*known, *((value, None) for value in unknown)]:
        assert share(stated) == confidence
        assert parsed({"class": "cat", "confidence": stated}, CLASS).answer.class_name == "cat"
    assert share(10**400) is None


def test_tags_and_boxes_are_bounded() -> None:
    many = [*(f"tag {number}" for number in range(20_000)), "x" * 10**6, 3, None]
    assert len(parsed({**GOOD, "tags": many}).answer.tags or ()) == MOST_TAGS_KEPT
    box = {"label": "cat", "box_2d": [1, 2, 3, 4], "truncated": True}
    bad = [{"label": "cat"}, {"label": 3, "box_2d": [1, 2, 3, 4]}, {"label": "a", "box_2d": [1, 2, 3, math.nan]}, 7]
    assert boxes([box, *bad]) == (box,)
    assert len(boxes([box] * 5000) or ()) == MOST_BOXES and boxes("cat") is None


# What becomes of an answer


CAT = Answer(class_name="cat")
REFUSAL = "I'm sorry, but I can't help with that."
CUT, NO_JSON = '{"boxes": [{"label": "cat", "box', "the answer is not the JSON that was asked for"
AT_LIMIT = "; it ends at the limit of tokens (--max-tokens)"


@pytest.mark.parametrize(
    ("text", "ask", "values", "expected"),
    [
        ('{"description": "A cat.", "class": "cat"}', (), {}, Judged("A cat.", CAT)),
        ('{"class": "cat"}', ("class",), {}, Judged(None, CAT)),
        ("A cat sits.", ("description",), {}, Judged("A cat sits.")),
        ("<think>Is it a dog?</think>\n A cat sits.", ("description",), {}, Judged("A cat sits.")),
        ("It may be a dog.\n</think>\nA cat sits.", ("description",), {}, Judged("A cat sits.")),
        ("<think>Is it a dog?</think>", ("description",), {}, Judged("", None, "empty")),
        ('{"class": "dog"}? No. </think> {"class": "cat"}', ("class",), {}, Judged(None, CAT)),
        ("A cat \ud83d sits.", ("description",), {}, Judged("A cat � sits.")),
        (None, (), {"error": "HTTP 500"}, Judged(error="HTTP 500")),
        ("", ("class",), {"finish_reason": "content_filter"}, Judged("", None, "refusal")),
        (REFUSAL, (), {}, Judged(REFUSAL, None, "refusal")),
        (CUT, ("boxes",), {"finish_reason": "length"}, Judged(CUT, None, f"{NO_JSON}: it lacks 'boxes'{AT_LIMIT}")),
    ],
)
def test_answers_are_kept_or_rejected(
    text: str | None, ask: tuple[str, ...], values: dict[str, Any], expected: Judged
) -> None:
    prompt = asking_for(PROMPTS["short"], ask or ("description", "class"), CLASSES)
    request = base.Request(digest="a" * 64, keys=("a",), prompt=prompt, question="What is it?", read=bytes)
    assert judge(base.Answer(request=request, text=text, **values), last_try=False) == expected


# Flaws

ASKED = "Describe this image in detail."
LONG = "A black dog lies on green grass and looks into the camera; behind it stands a low wooden fence."


def found(text: str, *, finish_reason: str | None = "stop", question: str = ASKED) -> set[Flaw]:
    return set(flaws(text, finish_reason=finish_reason, question=question))


NONE = [
    *(LONG, "cat", f"{LONG}\n\n{LONG}", f"{LONG}\n----------------", "no no no", "A cat.\n\nA cat."),
    "Describe this image in detail: a red car drives on snow.",
    "Surely a cat on a poster with the image of a dog, of course.",
    "A red square, a red circle, a red triangle and a red star.",
    "one dog, two dogs, three dogs, four dogs",
    "\n".join(f"- A {colour} cup" for colour in ("red", "blue", "green", "yellow", "white", "black", "grey")),
    "Top row: red, blue, red, blue. Bottom row: blue, red, blue, red.",
    "the cat is on the left, the dog is on the right, the bird is on the top, the fish is on the bottom",
]
EMPTY = ["", " \n", "…", "42", "\u200b\u202e", "-----"]
ECHOES = [
    "Describe this image in detail.",
    "describe this image in detail",
    "Describe this image in detail. Describe this image in detail.",
]
LOOPS = [
    *("The cat is black and sits on a mat. " * 8, "a red car " * 6, "no " * 50, "ha" * 100, f"{LONG} {'!' * 80}"),
    *("A face " + "😀" * 60, "黑色的猫坐在垫子上。" * 5),
    "\n".join(f"{number}. A tall tree." for number in range(9)),
]


def test_every_flaw_is_found_where_it_is_and_in_no_packaged_description() -> None:
    assert [text for text in NONE if found(text)] == [] and flaws("cat", finish_reason=None, question="") == []
    for flaw, texts in (("empty", EMPTY), ("echo", ECHOES)):
        assert [text for text in texts if found(text) != {flaw}] == []
    assert [text for text in LOOPS if "loop" not in found(text)] == []
    assert found(LONG, finish_reason="length") == {"truncated"}
    for reason in ("content_filter", "refusal"):  # what the server kept back
        assert found("", finish_reason=reason) == found(LONG, finish_reason=reason) == {"refusal"}
    file = files("gpt4image") / "packaged" / "openmoji" / "descriptions-plain.jsonl"
    texts = [json.loads(line)["description"] for line in file.read_text("utf-8").splitlines()]
    assert len(texts) > 1500 and [text for text in texts if found(text)] == []


REFUSALS = """\
I'm sorry, but I can't assist with that request.
As an AI language model, I am unable to view images.
I apologize, but I cannot describe this image as it may violate our content policy. Please try another image.
Unfortunately, I am unable to view the image you are referring to. Please upload the image again.
It looks like no image was provided.
I must respectfully decline to describe this.
N/A
**None**
[image]
The image could not be processed.
Error: Failed to open the image file. File not found.
I refuse."""


NO_REFUSALS = """\
A yellow sign reads Sorry, We're Closed and hangs on a glass door.
A dog whose tail cannot be seen lies on grass.
I cannot identify the person, but the image shows a man in a blue suit at a lectern, in front of two flags.
No image is visible on the screen of a black phone that lies on a table.
Unfortunately blurred, a small bird sits on a branch that cannot be made out.
No image. The screen is black, with a small white cursor at the top.
The image cannot be seen clearly through the fog, but a tower rises on the left.
I refuse to sink is written on a T-shirt."""


def test_refusals_are_found_and_what_sounds_like_one_is_none() -> None:
    assert [text for text in REFUSALS.splitlines() if not is_refusal(text)] == []
    assert [text for text in NO_REFUSALS.splitlines() if is_refusal(text)] == []
