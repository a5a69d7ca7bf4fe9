"""--per-call: several numbered images in one call, an answer about each of them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpt4image.artifacts.store import Description
from gpt4image.data import load_dataset
from gpt4image.describing.answer_json import items_of_sheet
from gpt4image.describing.describers.openai import describer as openai_describer
from gpt4image.describing.prices import Price
from openai_cases import KEY, PROMPT, describe_by, rows_of
from openai_stub import Call, Reply, Stub, answer, failure


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 20 pictures of 2 classes: the grey of each is its number."""
    for number in range(20):
        folder = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 10 * number).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


def numbers(call: Call) -> list[int]:
    """The numbers of the pictures of a call, from their greys."""
    return [round(shown.getpixel((8, 8))[0] / 10) for shown in call.pictures]  # type: ignore[index]


def names(call: Call) -> list[str]:
    """What stands before each picture of a call: its number and mark."""
    return re.findall(r'"Image ([^":]+):"', call.content.decode())


def item(name: Any, shown: int) -> dict[str, Any]:
    return {"image": name, "description": f"a picture of the grey {shown}", "class": "cat" if shown % 2 else "dog"}


def told(call: Call, items: Sequence[dict[str, Any]] | None = None, **how: Any) -> Reply:
    """The answer to a call: about every picture in it, 100 tokens for each and 300 for the question."""
    shown = numbers(call)
    found = [*map(item, names(call) or [0], shown)] if items is None else items
    alone = not names(call)
    text = json.dumps({name: v for name, v in found[0].items() if name != "image"} if alone else {"answers": found})
    return answer(text, tokens=(300 + 100 * len(shown), 10 * len(shown)), **how)


def described(photos: Path, handler: Callable[[Call], Reply], **options: Any) -> tuple[Any, Stub]:
    own = {"per_call": 8, "ask": "description,class", "splits": "train,val,test", **options}
    return describe_by(handler, f"folder:{photos}", photos.parent / "a.db", **own)


def rows(photos: Path) -> list[Description]:
    return rows_of(photos.parent / "a.db")


def right(photos: Path) -> bool:
    """Whether each answer in the store is about its own picture."""
    images = load_dataset(f"folder:{photos}")
    key_of = dict(zip(images.digests, images.keys, strict=True))
    return all(int(key_of[row.digest][-6:-4]) == int((row.text or "").rpartition(" ")[2]) for row in rows(photos))


def test_images_share_calls_and_each_answer_is_kept_by_itself(photos: Path) -> None:
    outcome, stub = described(photos, told)
    assert outcome.described == 20 and sorted(len(numbers(call)) for call in stub.calls) == [4, 8, 8]
    assert right(photos) and {row.finish_reason for row in rows(photos)} == {"stop"}
    # Neighbours of a folder do not sit together, and the question has the form of a list.
    shown = [numbers(call) for call in stub.calls]
    assert all(sorted(sheet) != sheet and len({one % 2 for one in sheet}) == 2 for sheet in shown if len(sheet) == 8)
    body = stub.calls[0].body
    assert [name.split()[0] for name in names(stub.calls[0])] == [*"12345678"]
    marks = {name.split()[1]: one for call in stub.calls for name, one in zip(names(call), numbers(call), strict=True)}
    assert len(marks) == 20 and all(len(mark) == 4 for mark in marks)
    item_schema = body["response_format"]["json_schema"]["schema"]["properties"]["answers"]["items"]
    assert [*item_schema["properties"]] == ["image", "description", "class", "second", "confidence"]
    assert body["max_tokens"] == 8 * 512 and KEY not in stub.calls[0].content.decode()
    # All tokens of a call are paid for by its images, and the next run asks nothing.
    assert sum(row.tokens_in or 0 for row in rows(photos)) == 3 * 300 + 20 * 100
    assert all(row.describer["per_call"] == 8 and row.answer is not None for row in rows(photos))
    assert len(rows(photos)[0].describer["sheet_sha256"]) == 64  # other words are another describer
    again, stub = described(photos, told)
    assert again.already_described == 20 and not stub.calls


def test_a_missing_item_costs_only_itself_and_is_asked_again(photos: Path) -> None:
    asked = Counter[int]()

    def forgets(call: Call) -> Reply:
        shown = numbers(call)
        asked.update(shown)
        items = [item(name, one) for name, one in zip(names(call) or [0], shown, strict=True)]
        items = items if len(shown) == 1 else [one for one in items if "grey 7" not in one["description"]]
        return told(call, items)

    outcome, stub = described(photos, forgets)
    assert outcome.described == 20 and right(photos) and asked.pop(7) == 2 and set(asked.values()) == {1}
    assert len(stub.calls) == 4 and outcome.details["unassigned_in_sheets"] == 1


@pytest.mark.parametrize("how", ["refusal", "filter", "server error"])
def test_the_images_of_a_sheet_that_is_refused_are_asked_alone(photos: Path, how: str) -> None:
    def refuses(call: Call) -> Reply:
        if 7 not in numbers(call):
            return told(call)
        if how == "filter":
            return failure(400, "flagged", "content_policy_violation")
        if how == "server error":
            return failure(400, "this image is not accepted")
        return answer("I'm sorry, but I can't assist with that.", finish="refusal" if how == "refusal" else "stop")

    outcome, stub = described(photos, refuses)
    assert outcome.described == 19 and right(photos) and [s.name for s in outcome.skipped] == ["cat/07.png"]
    sizes = sorted(len(numbers(call)) for call in stub.calls if 7 in numbers(call))
    assert sizes in ([1, 8], [1, 4])
    assert outcome.failed + outcome.rejected == 1


def test_the_cost_is_kept_within_its_limit_and_shared_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_describer, "find_price", lambda *_: Price(1000, 1000))
    most = {"max_tokens": 10}
    outcome, stub = described(photos, told, max_cost=2.0, **most)
    paid = sum(300 + 110 * len(numbers(call)) for call in stub.calls) / 1000
    assert outcome.cost_usd == pytest.approx(paid) and 1.2 < paid <= 2.0 and outcome.stopped_by == "max_cost"
    outcome, more = described(photos, told, max_cost=10.0, **most)
    assert outcome.without_description == 0 and right(photos)
    assert sum(row.cost_usd or 0 for row in rows(photos)) == pytest.approx(
        sum(300 + 110 * len(numbers(call)) for call in [*stub.calls, *more.calls]) / 1000
    )


MARKS = ["bcdf", "ghjk", "mnpq", "rstv"]
NAMED: dict[str, Callable[[int, int], Any]] = {  # by the place of a picture, and the place of its item
    "as shown": lambda place, _: f"{place} {MARKS[place - 1]}",
    "mark": lambda place, _: f"({MARKS[place - 1].upper()})",
    "in words": lambda place, _: f"Image {place}, mark {MARKS[place - 1]}.",
    "contradiction": lambda place, _: f"{place - 1} {MARKS[place - 1]}",
    "number": lambda place, _: place,
    "wrong mark": lambda place, _: f"{place} bcdg",
    "nothing": lambda *_: None,
    "from 0": lambda place, _: place - 1,
    "from 2": lambda place, _: f"Image {place + 1}",
    "float": lambda place, _: float(place),
    "by item": lambda _, row: f"{row}.",
}
EACH, COMPLETE = [*NAMED][:7], [1, 2, 3, 4]
SOME = st.lists(st.integers(1, 4), max_size=6)
WAYS = st.one_of(
    st.tuples(SOME, st.lists(st.sampled_from(EACH), min_size=6, max_size=6)),  # another for each item
    st.tuples(SOME, st.sampled_from([*NAMED][:-1]).map(lambda name: [name] * 6)),
    # Of four items that are numbered as they stand, nobody can tell that they are about other pictures.
    st.tuples(st.just(COMPLETE), st.sampled_from([*NAMED]).map(lambda name: [name] * 6)),
)


@settings(max_examples=300)
@given(WAYS)
def test_no_answer_is_ever_taken_for_one_about_another_picture(way: tuple[list[int], list[str]]) -> None:
    """Whatever pictures a model answers about, in whatever order, and whatever it calls them."""
    places, names = way
    called = [NAMED[name](place, row) for row, (name, place) in enumerate(zip(names, places, strict=False), 1)]
    items = [{"image": name, "description": f"about {place}"} for name, place in zip(called, places, strict=True)]
    found = items_of_sheet(json.dumps({"answers": items}), PROMPT, MARKS)
    assert found == {place: f"about {place}" for place in found}
    if places == COMPLETE and len({*names}) == 1:
        assert (
            len(found) == (names[0] in ("as shown", "mark", "in words", "number", "float", "by item", "wrong mark")) * 4
        )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"answers": [{"image": 1, "description": "a"}, {"image": 2, "description": "b"}]}', {1: "a", 2: "b"}),
        ('```json\n[{"image": "1", "description": "a"}, {"image": "2", "description": "b"},]\n```', {1: "a", 2: "b"}),
        ('{"answers": [{"image": 1, "description": "a"}]}', {}),
        ('{"answers": [{"image": "2 ghjk", "description": "b"}, {"image": 1, "description": "a"}]}', {2: "b"}),
        ('{"answers": [{"image": "bcdf ghjk", "description": "a"}, {"image": "1", "description": "b"}]}', {}),
        ('{"answers": [{"image": "1 bcdf", "description": "a"}, {"image": "2 ghjk", "descrip', {1: "a"}),
        ('{"answers": [{"image": "1 bcdf", "description": ""}, "b", null, {"image": true}]}', {}),
        ("no", {}),
        ("[" * 100_000, {}),
    ],
)
def test_items_belong_to_the_image_whose_name_they_have(text: str, found: dict[int, str]) -> None:
    assert items_of_sheet(text, PROMPT, MARKS[:2]) == found
