"""--per-call: several numbered images in one call, an answer about each of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
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


def item(number: int, shown: int) -> dict[str, Any]:
    return {"image": number, "description": f"a picture of the grey {shown}", "class": "cat" if shown % 2 else "dog"}


def told(call: Call, items: Sequence[dict[str, Any]] | None = None, **how: Any) -> Reply:
    """The answer to a call: about every picture in it, 100 tokens for each and 300 for the question."""
    shown = numbers(call)
    found = [item(place, one) for place, one in enumerate(shown, 1)] if items is None else items
    alone = "Above are several" not in call.content.decode()
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
    assert [part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text"][:2] == [
        "Image 1:",
        "Image 2:",
    ]
    item_schema = body["response_format"]["json_schema"]["schema"]["properties"]["answers"]["items"]
    assert [*item_schema["properties"]] == ["image", "description", "class", "second", "confidence"]
    assert body["max_tokens"] == 8 * 512 and KEY not in stub.calls[0].content.decode()
    # All tokens of a call are paid for by its images, and the next run asks nothing.
    assert sum(row.tokens_in or 0 for row in rows(photos)) == 3 * 300 + 20 * 100
    assert all(row.describer["per_call"] == 8 and row.answer is not None for row in rows(photos))
    again, stub = described(photos, told)
    assert again.already_described == 20 and not stub.calls


def test_a_missing_item_costs_only_itself_and_is_asked_again(photos: Path) -> None:
    asked = Counter[int]()

    def forgets(call: Call) -> Reply:
        shown = numbers(call)
        asked.update(shown)
        items = [item(place, one) for place, one in enumerate(shown, 1) if len(shown) == 1 or one != 7]
        return told(call, items)

    outcome, stub = described(photos, forgets)
    assert outcome.described == 20 and right(photos) and asked.pop(7) == 2 and set(asked.values()) == {1}
    assert len(stub.calls) == 4


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


def test_an_unreadable_image_costs_only_itself(photos: Path) -> None:
    (photos / "cat" / "07.png").write_bytes(b"no picture")
    outcome, stub = described(photos, told)
    assert outcome.described == 19 and right(photos) and len(stub.calls) <= 9
    assert "cannot be decoded" in outcome.skipped[0].reason and outcome.skipped[0].name == "cat/07.png"


def test_the_cost_is_kept_within_its_limit_and_shared_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_describer, "find_price", lambda *_: Price(1000, 1000))
    most = {"max_tokens": 10}
    outcome, stub = described(photos, told, max_cost=2.0, **most)
    paid = sum(300 + 110 * len(numbers(call)) for call in stub.calls) / 1000
    assert outcome.cost_usd == pytest.approx(paid) and 1.2 < paid <= 2.0 and outcome.stopped_by == "--max-cost 2"
    outcome, more = described(photos, told, max_cost=10.0, **most)
    assert outcome.without_description == 0 and right(photos)
    assert sum(row.cost_usd or 0 for row in rows(photos)) == pytest.approx(
        sum(300 + 110 * len(numbers(call)) for call in [*stub.calls, *more.calls]) / 1000
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"answers": [{"image": 1, "description": "a"}, {"image": 2, "description": "b"}]}', {1: "a", 2: "b"}),
        ('```json\n[{"image": 2, "description": "b"}, {"image": "1", "description": "a"},]\n```', {1: "a", 2: "b"}),
        ('{"answers": [{"description": "a"}, {"description": "b"}]}', {1: "a", 2: "b"}),
        ('{"answers": [{"image": 0, "description": "a"}, {"image": 1, "description": "b"}]}', {1: "a", 2: "b"}),
        ('{"answers": [{"image": 0, "description": "a"}]}', {}),
        ('{"answers": [{"description": "a"}]}', {}),
        ('{"answers": [{"image": 1, "description": "a"}, {"image": 1, "description": "b"}]}', {}),
        ('{"answers": [{"image": 3, "description": "a"}, {"image": 2, "description": "b"}]}', {2: "b"}),
        ('{"answers": [{"image": 1, "description": "a"}, {"image": 2, "descrip', {1: "a"}),
        ('{"answers": [{"image": 1, "description": ""}, "b", null, {"image": true}]}', {}),
        ("no", {}),
        ("[" * 100_000, {}),
    ],
)
def test_items_belong_to_the_image_whose_number_they_have(text: str, found: dict[int, str]) -> None:
    assert items_of_sheet(text, PROMPT, 2) == found
