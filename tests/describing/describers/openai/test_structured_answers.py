"""Descriptions, classes and tags in one call, from servers that have JSON schemas, refuse them, and lie."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gpt4image
from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import DescriptionStore, StoredAnswer
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai.chat import class_probability
from openai_cases import openai_settings
from openai_stub import Call, Handler, Reply, answer, json_reply, serve

__all__ = ["openai_settings"]
pytestmark = pytest.mark.usefixtures("openai_settings")
COLOURS = {"blue": (30, 40, 230), "green": (20, 170, 40), "red": (230, 30, 20), "white": (245, 245, 245)}
ASK = "description,class,tags"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures of each colour."""
    for name, colour in COLOURS.items():
        for number in range(2):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + number, 30), colour).save(path)
    return tmp_path / "photos"


def colour_of(call: Call) -> str:
    red, green, blue = Image.open(io.BytesIO(call.image)).convert("RGB").getpixel((20, 15))  # type: ignore[misc]
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], (red, green, blue)))


def good(call: Call, **changes: Any) -> dict[str, Any]:
    colour = colour_of(call)
    fields = {"description": f"A {colour} sheet.", "class": colour, "second": None, "confidence": 0.9, "tags": [colour]}
    return {**fields, **changes}


def says(**changes: Any) -> Handler:
    return lambda call: answer(json.dumps(good(call, **changes)))


def question(call: Call) -> str:
    return call.body["messages"][-1]["content"][-1]["text"]


def run(photos: Path, handler: Handler, **options: Any) -> tuple[Any, list[Call]]:
    with serve(handler) as stub:
        base_url = options.pop("base_url", stub.url)
        options = {"ask": ASK, "server_name": "stub", "data": f"folder:{photos}", "splits": "train,val,test", **options}
        config = DescribeConfig(store=photos.parent / "a.db", describer="openai:tiny", base_url=base_url, **options)
        return describe(config), stub.calls


def stored(photos: Path) -> list[StoredAnswer]:
    with DescriptionStore(photos.parent / "a.db") as store:
        return list(store.answers())


def rows(photos: Path, status: Any = "ok") -> list[Any]:
    with DescriptionStore(photos.parent / "a.db") as store:
        return list(store.descriptions(status=status))


def test_one_call_brings_everything_and_asking_again_costs_nothing(photos: Path) -> None:
    outcome, calls = run(photos, says())
    assert len(calls) == 8 and outcome.skipped == ()
    summary = {name: value for name, value in outcome.summary.items() if name.startswith("class_")}
    assert summary == {"class_in_list": 8, "class_none": 0, "class_outside_list": 0}
    form = calls[0].body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"]["class"]["enum"] == [*COLOURS, "none of these"]
    answers = stored(photos)
    assert len(answers) == 8 and answers[0].classes == tuple(COLOURS)
    with DescriptionStore(photos.parent / "a.db") as store:
        described = {row.digest: row.text for row in store.texts()}
    for one in answers:
        assert described[one.digest] == f"A {one.answer.class_name} sheet."
        assert one.answer == Answer(
            class_name=one.answer.class_name, confidence=0.9, tags=(one.answer.class_name or "",)
        )
    for ask in (ASK, "class", "description", "tags,class"):
        again, calls = run(photos, says(), ask=ask)
        assert not calls and again.summary["already_described"] == 8, ask


def test_what_is_missing_is_asked_for_and_nothing_else(photos: Path) -> None:
    run(photos, says(), ask="description", limit=3)
    outcome, calls = run(photos, says())
    assert Counter("Describe" in question(call) for call in calls) == {True: 5, False: 3}
    assert outcome.summary["already_described"] == 0 and outcome.summary["described"] == 8
    redefined = "blue: like the sky\ngreen\nred\nwhite\n"
    outcome, calls = run(photos, says(), classes=redefined)
    assert len(calls) == 8 and all(
        "Describe" not in question(call) and "like the sky" in question(call) for call in calls
    )
    assert {one.prompt.classes[0].definition for one in stored(photos)} == {"", "like the sky"}
    assert len(rows(photos)) == 8 + 3 + 8


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            400,
            {"message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."},
        ),
        (400, {"message": "no", "param": "response_format"}),
        (422, {"message": "This response_format type is unavailable now"}),
        (403, {"message": "You are not allowed to request logprobs from this model"}),
        (400, {"message": "Unsupported parameter: 'logprobs' is not supported with this model.", "param": "logprobs"}),
    ],
)
def test_a_server_that_refuses_a_field_is_asked_without_it_from_then_on(
    photos: Path, code: int, error: dict[str, Any]
) -> None:
    field = "logprobs" if "logprobs" in error["message"] else "response_format"

    def handler(call: Call) -> Reply:
        if field in call.body:
            return json_reply({"error": {"type": "invalid_request_error", **error}}, code)
        return answer(f"Here you are:\n```json\n{json.dumps(good(call))}\n```")

    outcome, calls = run(photos, handler, concurrency=1)
    assert outcome.summary["described"] == 8 and outcome.summary["class_in_list"] == 8
    assert [field in call.body for call in calls] == [True] + [False] * 8


def test_a_class_outside_the_list_is_asked_for_once_more_and_then_kept(photos: Path) -> None:
    asked = Counter[str]()

    def handler(call: Call) -> Reply:
        colour = colour_of(call)
        asked[colour] += 1
        again = "not in the list" in question(call)
        if colour == "red":
            return answer(json.dumps(good(call, **{"class": "red" if again else "crimson"})))
        said = {"blue": "navy", "green": "none of these", "white": " WHITES"}[colour]
        return answer(json.dumps(good(call, **{"class": said})))

    outcome, _ = run(photos, handler)
    assert asked == {"red": 4, "blue": 4, "green": 2, "white": 2}
    assert {name: outcome.summary[f"class_{name}"] for name in ("in_list", "none", "outside_list")} == {
        "in_list": 4,
        "none": 2,
        "outside_list": 2,
    }
    assert Counter((one.answer.class_name, one.answer.said) for one in stored(photos)) == {
        ("red", None): 2,
        (None, "navy"): 2,
        (None, None): 2,
        ("white", "WHITES"): 2,
    }
    assert outcome.summary["rejected"] == 0 and not rows(photos, "failed")


HOSTILE: dict[str, Callable[[Call], Any]] = {
    "cut": lambda call: json.dumps(good(call))[:30],
    "prose": lambda call: "It is red, I think.",
    "refusal": lambda call: "I'm sorry, but I can't assist with that request.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_broken_answers_are_failures_with_a_reason_and_asked_once_more(photos: Path, kind: str) -> None:
    def handler(call: Call) -> Reply:
        return answer(HOSTILE[kind](call) if colour_of(call) == "red" else json.dumps(good(call)))

    outcome, calls = run(photos, handler)
    assert outcome.summary["described"] == 6 and outcome.summary["rejected"] == 2
    assert len(calls) == 6 + 2 * 2
    reasons = {item.reason for item in outcome.skipped}
    assert len(reasons) == 1
    assert ("refusal" if kind == "refusal" else "JSON") in reasons.pop()
    failed = rows(photos, "failed")
    assert len(failed) == 2 and all(row.text and row.answer is None and row.error for row in failed)
    again, calls = run(photos, handler)
    assert not calls and again.summary["without_description"] == 2
    _, calls = run(photos, says(), retry_rejected=True)
    assert len(calls) == 2 and len(stored(photos)) == 8


def tokens(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"content": [{"token": token, "logprob": value} for token, value in pairs]}


@pytest.mark.parametrize(
    ("logprobs", "probability"),
    [
        (
            tokens(('{"', -9), ("class", -9), ('":"', -9), ("sport", -0.5), (" ball", -0.25), ('"}', -9)),
            math.exp(-0.75),
        ),
        (tokens(('{"class": "', -0.1), ("red", 0.0), ('"}', -1)), 1.0),
        (tokens(('{"class": ', -1), ('"red"', -0.5), ("}", -1)), math.exp(-0.5)),
        (tokens(('{"a": "\\"class\\": \\"', -1), ("red", -1), ('"}', -1)), None),
        (tokens(('{"class": "', -1), ("red", None), ('"}', -1)), None),
        (tokens(('{"class": "', -1), ("red", math.nan), ('"}', -1)), None),
        (tokens(('{"class": "', -1), ("red", 5.0), ('"}', -1)), None),
        (tokens(('{"class": "', -1), (7, -1), ('"}', -1)), None),
        *((value, None) for value in (None, {}, [], "x", {"content": "x"}, {"content": [3]})),
    ],
)
def test_the_probability_of_the_class_is_that_of_its_tokens(logprobs: Any, probability: float | None) -> None:
    assert class_probability(logprobs) == (None if probability is None else pytest.approx(probability))


def test_the_probability_is_stored_where_the_server_tells(photos: Path) -> None:
    def handler(call: Call) -> Reply:
        assert call.body["logprobs"] is True
        message = {"role": "assistant", "content": json.dumps(good(call))}
        pairs = tokens(('{"class": "', -1), (colour_of(call), math.log(0.25)), ('"}', -1))
        return json_reply({"choices": [{"message": message, "finish_reason": "stop", "logprobs": pairs}]})

    run(photos, handler, ask="class")
    assert {round(one.answer.probability or 0, 6) for one in stored(photos)} == {0.25}


def test_very_many_classes_are_all_offered_without_a_schema_of_their_names(photos: Path) -> None:
    classes = "\n".join([*(f"kind {number}" for number in range(300)), *COLOURS, ""])

    def handler(call: Call) -> Reply:
        assert len(re.findall("^- ", question(call), re.MULTILINE)) == 305
        assert "enum" not in json.dumps(call.body["response_format"])
        return answer(json.dumps(good(call)))

    outcome, calls = run(photos, handler, classes=classes)
    assert len(calls) == 8 and outcome.summary["class_in_list"] == 8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ask": "description", "classes": "a,b"}, "--classes belongs to --ask class"),
        ({"ask": "class", "classes": " "}, "0 classes"),
        ({"prompt": ("short", "paper")}, "goes with one --prompt"),
        ({"prompt": "conversation"}, "several turns"),
        ({"prompt": "class-conditioned"}, "tells the class"),
        ({"ask": "clas"}, "class"),
        ({"ask": ""}, "nothing is asked for"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    photos: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(photos, says(), **options)


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_tags_of_images_that_may_have_several_classes_are_chosen_from_their_list(photos: Path, kind: str) -> None:
    pictures = sorted(photos.rglob("*.png"))
    if kind == "labels":
        lines = (f"{picture.relative_to(photos.parent)},big_dog|cat" for picture in pictures)
        (photos.parent / "set.csv").write_text("\n".join(["path,labels", *lines]) + "\n")
        data = f"manifest:{photos.parent / 'set.csv'}"
    else:
        (photos.parent / "classes.txt").write_text("background\nbig_dog\ncat\n")
        for picture in pictures:
            mask = photos.parent / "masks" / picture.relative_to(photos)
            mask.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(picture) as opened:
                Image.new("L", opened.size, 1).save(mask)
        data = f"masks:{photos},{photos.parent / 'masks'}"
    told = {"description": "A plain sheet of one colour.", "tags": ["Big dogs", "cat", "moon"]}
    _, calls = run(photos, lambda _: answer(json.dumps(told)), data=data, ask="description,tags")
    assert all(sorted(question(call).split("Classes:")[1].split("\n")[1:]) == ["- big dog", "- cat"] for call in calls)
    assert {row.answer.tags for row in stored(photos)} == {("big_dog", "cat", "moon")}
    given = "background, cat" if kind == "masks" else "cat"
    _, calls = run(photos, lambda _: answer(json.dumps({"tags": []})), data=data, ask="tags", classes=given)
    assert len(calls) == len(pictures) and all(question(call).endswith("Classes:\n- cat") for call in calls)


def test_without_classes_a_list_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "unlabelled"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30), COLOURS["red"]).save(folder / "a.png")
    with pytest.raises(ConfigError, match="has no classes; give a list or a file as --classes"):
        run(tmp_path / "set", says())
    outcome, _ = run(tmp_path / "set", says(), classes="red, blue")
    assert outcome.summary["class_in_list"] == 1


def test_the_money_of_structured_answers_is_counted(photos: Path) -> None:
    prices = photos.parent / "prices.json"
    prices.write_text('{"tiny": {"input": 10, "output": 100}}')

    def handler(call: Call) -> Reply:
        return answer(json.dumps(good(call)), tokens=(100, 60))

    dry, calls = run(photos, handler, prices=prices, dry_run=True, ask="description")
    assert len(calls) == 8 and dry.summary["estimate_requests"] == 0
    outcome, calls = run(photos, handler, prices=prices, max_cost=0.2, max_tokens=100)
    each = (100 * 10 + 60 * 100) / 1e6
    assert outcome.cost_usd - outcome.cost_usd_earlier == pytest.approx(each * 8) and len(calls) == 8
    with pytest.raises(DescriberError, match="--max-cost cannot be kept"):
        run(photos, lambda call: json_reply({"choices": [{"message": {"content": json.dumps(good(call))}}]}),
            prices=prices, max_cost=0.3, classes="red, blue, green, white, black")  # fmt: skip


def test_the_estimate_of_a_sample_counts_classes_and_samples(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / "photos" / "red" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30), COLOURS["red"]).save(path)
    prices = tmp_path / "prices.json"
    prices.write_text('{"tiny": {"input": 10, "output": 100}}')
    handler: Handler = lambda call: answer(json.dumps(good(call)), tokens=(100, 60))  # noqa: E731
    outcome, calls = run(
        tmp_path / "photos",
        handler,
        prices=prices,
        dry_run=True,
        ask="class",
        samples=3,
        temperature=1.0,
        classes="red",
    )
    assert len(calls) == 24
    assert outcome.summary["estimate_requests"] == 66 and outcome.summary["estimate_tokens_out"] == 66 * 60
    assert outcome.summary["estimate_usd"] == pytest.approx(66 * (100 * 10 + 60 * 100) / 1e6, abs=1e-4)


def test_the_function_takes_lists(photos: Path) -> None:
    with serve(says()) as stub:
        outcome = gpt4image.describe(
            data=f"folder:{photos}",
            store=photos.parent / "a.db",
            describer="openai:tiny",
            base_url=stub.url,
            ask=("description", "class"),
            splits=("train", "val", "test"),
            classes=["red: the colour of blood, roses and fire", "blue", "green", "white"],
        )
    assert outcome.summary["class_in_list"] == 8
    assert stored(photos)[0].prompt.classes[0] == ("red", "the colour of blood, roses and fire")
