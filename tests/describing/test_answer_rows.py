"""Structured answers in files: imported, exported, replayed, counted, checked and shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import DescriptionStore, StoredAnswer
from gpt4image.base.errors import ConfigError
from gpt4image.config import (
    CheckConfig,
    DescribeConfig,
    ExportDescriptionsConfig,
    ImportDescriptionsConfig,
    StatsConfig,
    ViewConfig,
)
from gpt4image.describing.describe import describe
from gpt4image.describing.description_stats import stats
from gpt4image.describing.descriptions import check, export_descriptions, import_descriptions
from gpt4image.describing.gallery import view

BOX = {"label": "cat", "box_2d": [10, 20, 500, 900.5], "truncated": True, "words": "sleeps", "confidence": 0.5}
ROWS: list[dict[str, Any]] = [
    {"key": "cat/0.png", "class": "cat", "second": None, "confidence": 0.98},
    {
        "key": "cat/1.png",
        "class": "Big Dogs",
        "second": "cat",
        "confidence": 1e-5,
        "description": "A cat, =1+1 “große”.",
    },
    {"key": "big_dog/0.png", "class": None, "confidence": 0.3, "tags": ["fur", "a, b", "|"]},
    {"key": "big_dog/1.png", "class": "wolf", "tags": [], "boxes": [BOX, {"label": "dog", "box_2d": [0, 0, 1, 1]}]},
    {"key": "owl/0.png", "description": "An owl."},
]


@pytest.fixture
def pets(tmp_path: Path) -> str:
    for number, name in enumerate(["cat/0", "cat/1", "big_dog/0", "big_dog/1", "owl/0"]):
        path = tmp_path / "pets" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return f"folder:{tmp_path / 'pets'}"


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def bring(tmp_path: Path, file: Path, data: str | None, store: str = "a.db", **options: Any) -> Any:
    return import_descriptions(ImportDescriptionsConfig(store=tmp_path / store, file=file, data=data, **options))


def stored(path: Path) -> list[StoredAnswer]:
    with DescriptionStore(path) as store:
        return list(store.answers())


def by_key(path: Path, data: str) -> dict[str, Answer]:
    from gpt4image.data import load_dataset

    images = load_dataset(data)
    keys = dict(zip(images.digests, images.keys, strict=True))
    return {keys[one.digest]: one.answer for one in stored(path)}


EXPECTED = {
    "cat/0.png": Answer(class_name="cat", confidence=0.98),
    "cat/1.png": Answer(class_name="big_dog", said="Big Dogs", second="cat", confidence=1e-5),
    "big_dog/0.png": Answer(confidence=0.3, tags=("fur", "a, b", "|")),
    "big_dog/1.png": Answer(said="wolf", tags=(), boxes=(BOX, {"label": "dog", "box_2d": [0, 0, 1, 1]})),
}


def test_answers_are_imported_and_a_class_outside_the_list_is_counted(tmp_path: Path, pets: str) -> None:
    file = lines(tmp_path / "in.jsonl", ROWS)
    outcome = bring(tmp_path, file, pets)
    assert outcome.summary["added"] == 5 and outcome.skipped == ()
    assert outcome.summary["boxes"] == 2 and outcome.summary["boxes_outside_list"] == 1
    counts = {kind: outcome.summary[f"class_{kind}"] for kind in ("in_list", "none", "outside_list")}
    assert counts == {"in_list": 2, "none": 1, "outside_list": 1}
    assert by_key(tmp_path / "a.db", pets) == EXPECTED
    one = stored(tmp_path / "a.db")[0]
    assert one.classes == ("big_dog", "cat", "owl") and one.describer == {"name": "imported"}
    again = bring(tmp_path, file, pets)
    assert again.summary["unchanged"] == 5 and again.summary["added"] == 0
    other = lines(tmp_path / "other.jsonl", [{**ROWS[0], "class": "owl"}])
    assert bring(tmp_path, other, pets).summary["conflicting_texts"] == 1


def test_boxes_in_files_are_made_fit_for_use_once(tmp_path: Path, pets: str) -> None:
    boxes = [
        BOX,
        BOX,
        {"label": "Big Dog", "box_2d": [-5, 0, 1004, 300]},
        {"label": "owl", "box_2d": [0, 0, 999, 1000]},
    ]
    file = lines(tmp_path / "in.jsonl", [{"key": "cat/0.png", "boxes": boxes}])
    summary = bring(tmp_path, file, pets).summary
    assert (summary["boxes"], summary["boxes_clipped"], summary["boxes_duplicates"]) == (2, 1, 1)
    assert summary["boxes_whole_image"] == 1
    expected = (BOX, {"label": "big_dog", "box_2d": [0, 0, 1000, 300]})
    assert by_key(tmp_path / "a.db", pets)["cat/0.png"].boxes == expected
    assert bring(tmp_path, file, pets).summary["unchanged"] == 1
    export_descriptions(ExportDescriptionsConfig(store=tmp_path / "a.db", file=tmp_path / "out.jsonl", data=pets))
    assert bring(tmp_path, tmp_path / "out.jsonl", None).summary["unchanged"] == 1
    assert tuple(json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))["boxes"]) == expected


@pytest.mark.parametrize(
    ("box_format", "written"),
    [("xyxy-1000", [250, 500, 750, 750]), ("yxhw-1", [0.5, 0.25, 0.25, 0.5]), ("xywh-original", [10, 10, 20, 5])],
)
def test_boxes_in_files_are_read_as_the_option_says(
    tmp_path: Path, pets: str, box_format: str, written: list[float]
) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "pets/cat/0.png")
    file = lines(tmp_path / "in.jsonl", [{"key": "cat/0.png", "boxes": [{"label": "cat", "box_2d": written}]}])
    bring(tmp_path, file, pets, box_format=box_format)
    expected = ({"label": "cat", "box_2d": [250, 500, 750, 750]},)
    assert by_key(tmp_path / "a.db", pets)["cat/0.png"].boxes == expected
    assert bring(tmp_path, file, pets, box_format=box_format).summary["unchanged"] == 1


def test_boxes_in_pixels_need_their_picture(tmp_path: Path, pets: str) -> None:
    foreign = {"digest": "a" * 64, "boxes": [BOX]}
    file = lines(tmp_path / "in.jsonl", [foreign, {"key": "cat/0.png", "boxes": [BOX]}])
    outcome = bring(tmp_path, file, pets, box_format="xyxy-original")
    assert outcome.summary["added"] == 1 and "picture cannot be read" in outcome.skipped[0].reason
    with pytest.raises(ConfigError, match="needs --data"):
        bring(tmp_path, file, None, box_format="xyxy-original")
    with pytest.raises(ConfigError, match="is not one of: xywh-1,"):
        bring(tmp_path, file, pets, box_format="xyxy-sent")


def test_a_csv_file_by_hand(tmp_path: Path, pets: str) -> None:
    file = tmp_path / "by-hand.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["key", "class", "second", "confidence", "tags"])
        writer.writerow(["cat/0.png", "Cat", "", "97 %", "fur|whiskers"])
        writer.writerow(["cat/1.png", "none of these", "", "very", ""])
        writer.writerow(["big_dog/0.png", "", "", "", ""])
    outcome = bring(tmp_path, file, pets)
    assert (outcome.summary["added"], outcome.summary["bad_rows"]) == (2, 1)
    assert by_key(tmp_path / "a.db", pets) == {
        "cat/0.png": Answer(class_name="cat", said="Cat", confidence=0.97, tags=("fur", "whiskers")),
        "cat/1.png": Answer(),
    }


ALL = "train,val,test"


def test_replay_brings_what_is_asked_for(tmp_path: Path, pets: str) -> None:
    file = lines(tmp_path / "in.jsonl", [*ROWS[:4], {**ROWS[4], "class": "owl", "confidence": 0.5}])

    def replay(ask: str, store: str) -> Any:
        return describe(
            DescribeConfig(data=pets, store=tmp_path / store, describer=f"replay:{file}", ask=ask, splits=ALL)
        )

    outcome = replay("class", "a.db")
    assert outcome.summary["described"] == 5 and outcome.summary["class_outside_list"] == 1
    assert by_key(tmp_path / "a.db", pets)["cat/1.png"] == EXPECTED["cat/1.png"]
    assert replay("class", "a.db").summary["already_described"] == 5
    both = replay("description,class", "b.db")
    assert both.summary["described"] == 2 and both.summary["without_description"] == 3
    boxes = replay("boxes", "c.db")
    assert (
        boxes.summary["described"] == 1 and stored(tmp_path / "c.db")[0].answer.boxes == EXPECTED["big_dog/1.png"].boxes
    )
    assert replay("description", "d.db").summary["described"] == 2


def test_stats_check_and_view_show_answers(tmp_path: Path, pets: str) -> None:
    bring(tmp_path, lines(tmp_path / "in.jsonl", ROWS), pets)
    counted = stats(StatsConfig(store=tmp_path / "a.db", data=pets, splits=ALL))
    assert (counted.summary["answers"], counted.summary["images_answered"], counted.summary["descriptions"]) == (
        4,
        4,
        2,
    )
    assert counted.summary["answer_coverage"] == 0.8 and counted.summary["class_outside_list"] == 1
    assert counted.record["classes"] == {"cat": 1, "big_dog": 1} and counted.record["outside_list"] == {"wolf": 1}
    assert counted.record["confidence_histogram"] == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert "outside the class list" in counted.text and "0.9 to 1.0" in counted.text and "fur" in counted.text
    assert (counted.summary["boxes"], counted.summary["boxes_outside_list"], counted.summary["boxes_clipped"]) == (
        2,
        1,
        0,
    )
    checked = check(CheckConfig(store=tmp_path / "a.db", data=pets, splits=ALL))
    assert checked.summary["answers_outside_list"] == 1 and "big_dog/1.png (wolf)" in checked.text
    assert checked.summary["boxes"] == 2 and checked.summary["boxes_outside_list"] == 1
    assert "boxes outside list: 'big_dog/1.png (dog)'" in checked.text
    view(ViewConfig(store=tmp_path / "a.db", data=pets, out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for part in (
        "cat · confidence 0.98",
        "“wolf” (not in the class list)",
        "none of these · confidence 0.30",
        "2 boxes: cat (“sleeps”), dog",
        '<title>cat · sleeps</title><rect x="1.0%" y="2.0%" width="49.0%" height="88.05%"/>',
    ):
        assert part in page, part


def test_what_boxes_are_called_acts_on_no_page(tmp_path: Path, pets: str) -> None:
    hostile = {"label": "</text></title><script>a()</script>", "box_2d": [0, 0, 9, 9], "words": '"><img src=x>\u202e'}
    bring(tmp_path, lines(tmp_path / "in.jsonl", [{"key": "cat/0.png", "boxes": [hostile, BOX]}]), pets)
    view(ViewConfig(store=tmp_path / "a.db", data=pets, out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<rect ") == 2 and "<script>a" not in page and "<img src=x" not in page and "\u202e" not in page


def test_a_store_with_classes_alone_is_checked_for_them(tmp_path: Path, pets: str) -> None:
    bring(tmp_path, lines(tmp_path / "in.jsonl", ROWS[:1]), pets, classes="cat, zebra")
    bring(tmp_path, lines(tmp_path / "more.jsonl", [{**ROWS[2], "class": "zebra"}]), pets, classes="cat, zebra")
    checked = check(CheckConfig(store=tmp_path / "a.db", data=pets, splits=ALL))
    assert (checked.summary["images_described"], checked.summary["images_without_description"]) == (2, 3)
    assert "big_dog/0.png (zebra)" in checked.text, "a class that the set does not have"
