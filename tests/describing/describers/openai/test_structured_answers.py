"""Descriptions, classes and tags in one call, from servers that have JSON schemas, refuse them, and lie."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import StoredAnswer
from openai_cases import answers_of, describe_by, rows_of
from openai_stub import Call, Handler, Reply, answer, json_reply

COLOURS = {"blue": (30, 40, 230), "green": (20, 170, 40), "red": (230, 30, 20), "white": (245, 245, 245)}
ASK = "description,class,tags"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures of each colour."""
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40 + number, 30), colour).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def colour_of(call: Call) -> str:
    colour: Any = call.pictures[0].getpixel((20, 15))
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], colour))


def good(call: Call, **changes: Any) -> str:
    colour = colour_of(call)
    fields = {"description": f"A {colour} sheet.", "class": colour, "second": None, "confidence": 0.9, "tags": [colour]}
    return json.dumps({**fields, **changes})


def question(call: Call) -> str:
    return call.body["messages"][-1]["content"][-1]["text"]


def run(photos: Path, handler: Handler | None = None, **options: Any) -> tuple[dict[str, Any], list[Call]]:
    handler = handler or (lambda call: answer(good(call)))
    given: Any = {"data": f"folder:{photos}", "ask": ASK, "splits": "train,val,test", **options}
    outcome, stub = describe_by(handler, given.pop("data"), photos.parent / "a.db", **given)
    return {**outcome.facts, **outcome.details, "skipped": outcome.skipped}, stub.calls


def stored(photos: Path) -> list[StoredAnswer]:
    return answers_of(photos.parent / "a.db")


def classes(summary: dict[str, Any]) -> list[int]:
    return [summary[f"class_{kind}"] for kind in ("in_list", "none", "outside_list")]


def test_one_call_brings_everything_and_asking_again_costs_nothing(photos: Path) -> None:
    summary, calls = run(photos)
    assert len(calls) == 8 and summary["skipped"] == () and classes(summary) == [8, 0, 0]
    form = calls[0].body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"]["class"]["enum"] == [*COLOURS, "none of these"]
    texts = {row.digest: row.text for row in rows_of(photos.parent / "a.db")}
    for one in stored(photos):
        name = one.answer.class_name or ""
        assert one.classes == tuple(COLOURS) and texts[one.digest] == f"A {name} sheet."
        assert one.answer == Answer(class_name=name, confidence=0.9, tags=(name,))
    for ask in (ASK, "class", "description", "tags,class"):
        again, calls = run(photos, ask=ask)
        assert not calls and again["already_described"] == 8, ask


def test_what_is_missing_is_asked_for_and_nothing_else(photos: Path) -> None:
    run(photos, ask="description", limit=3)
    summary, calls = run(photos)
    assert Counter("Describe" in question(call) for call in calls) == {True: 5, False: 3}
    assert summary["already_described"] == 0 and summary["described"] == 8
    _, calls = run(photos, classes="blue: like the sky\ngreen\nred\nwhite\n")
    asked = [question(call) for call in calls]
    assert len(asked) == 8 and all("Describe" not in text and "like the sky" in text for text in asked)
    assert {one.prompt.classes[0].definition for one in stored(photos)} == {"", "like the sky"}
    assert len(rows_of(photos.parent / "a.db")) == 8 + 3 + 8


NO_SCHEMA = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."


@pytest.mark.parametrize(
    ("field", "code", "error"),
    [
        ("response_format", 400, {"message": NO_SCHEMA}),
        ("response_format", 400, {"message": "no", "param": "response_format"}),
        ("response_format", 422, {"message": "This response_format type is unavailable now"}),
        ("max_tokens", 400, {"message": "Unsupported parameter: 'max_tokens' is not supported with this model."}),
    ],
)
def test_a_server_that_refuses_a_field_is_asked_without_it_from_then_on(
    photos: Path, field: str, code: int, error: dict[str, Any]
) -> None:
    def handler(call: Call) -> Reply:
        if field in call.body:
            return json_reply({"error": {"type": "invalid_request_error", **error}}, code)
        return answer(f"Here you are:\n```json\n{good(call)}\n```")

    summary, calls = run(photos, handler, concurrency=1)
    assert summary["described"] == summary["class_in_list"] == 8
    assert [field in call.body for call in calls] == [True] + [False] * 8


def test_a_class_outside_the_list_is_asked_for_once_more_and_then_kept(photos: Path) -> None:
    asked = Counter[str]()

    def handler(call: Call) -> Reply:
        colour = colour_of(call)
        asked[colour] += 1
        red = "red" if "not in the list" in question(call) else "crimson"
        said = {"blue": "navy", "green": "none of these", "white": " WHITES", "red": red}[colour]
        return answer(good(call, **{"class": said}))

    summary, _ = run(photos, handler)
    assert asked == {"red": 4, "blue": 4, "green": 2, "white": 2} and classes(summary) == [4, 2, 2]
    kept = {("red", None): 2, (None, "navy"): 2, (None, None): 2, ("white", "WHITES"): 2}
    assert Counter((one.answer.class_name, one.answer.said) for one in stored(photos)) == kept
    assert summary["rejected"] == 0 and not rows_of(photos.parent / "a.db", "failed")


def test_tags_of_images_that_may_have_several_classes_are_chosen_from_their_list(photos: Path) -> None:
    root = photos.parent
    (root / "classes.txt").write_text("background\nbig_dog\ncat\n")
    for picture in photos.rglob("*.png"):
        mask = root / "masks" / picture.relative_to(photos)
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(picture) as opened:
            Image.new("L", opened.size, 1).save(mask)
    data = f"masks:{root},images=photos"
    told = json.dumps({"description": "A plain sheet of one colour.", "tags": ["Big dogs", "cat", "moon"]})
    _, calls = run(photos, lambda _: answer(told), data=data, ask="description,tags")
    assert all(sorted(question(call).split("Classes:")[1].split("\n")[1:]) == ["- big dog", "- cat"] for call in calls)
    assert {row.answer.tags for row in stored(photos)} == {("big_dog", "cat", "moon")}
    _, calls = run(photos, lambda _: answer('{"tags": []}'), data=data, ask="tags", classes="background, cat")
    assert len(calls) == 8 and all(question(call).endswith("Classes:\n- cat") for call in calls)
