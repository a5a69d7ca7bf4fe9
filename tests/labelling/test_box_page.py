"""Suspected errors of boxes as people see them: what is drawn, said and listed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.config import LabelConfig
from gpt4image.data import ImageSet, MemorySource
from gpt4image.data.regions import Boxes
from gpt4image.labelling.box_errors import suspected_boxes
from gpt4image.labelling.box_page import ShownBoxes, in_words, write_box_page, write_suspected
from gpt4image.labelling.boxes import TaughtBoxes

CLASSES = ("can", '"><img src=x onerror=alert(1)>')
LEFT, RIGHT, MOVED = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0.1, 0.1, 0.5, 0.5)


def boxes(*each: tuple[tuple[float, ...], int]) -> Boxes:
    corners = np.array([place for place, _ in each], np.float32)
    return Boxes.of_images([(corners, np.array([label for _, label in each]), np.ones(len(each), np.float32))])


def shown(human: Boxes, answered: Boxes) -> ShownBoxes:
    count = len(answered.labels)
    taught = TaughtBoxes(boxes=answered, probable=np.full(count, 0.9), drawn=np.ones(count, np.int8), weights={})
    images = ImageSet(
        spec="made",
        classes=CLASSES,
        keys=("=shelf.png",),
        labels=np.ones((1, 2), np.int8),
        splits=np.array(["train"]),
        source=MemorySource([b"no picture"]),
        rows=np.arange(1),
        regions=human,
    )
    suspected = suspected_boxes(taught, human)
    return ShownBoxes(images=images, human=human, taught=taught, suspected=suspected, table=None)


def drawn(found: ShownBoxes) -> list[list[tuple[str, Any]]]:
    return [[(box["kind"], box["place"]["x"]) for box in found.drawn(suspect)] for suspect in found.suspected]


def test_what_is_drawn_is_the_suspect_and_what_speaks_against_it() -> None:
    both = boxes((LEFT, 0), (RIGHT, 1))
    assert drawn(shown(boxes((LEFT, 0)), both)) == [[("human", 0.0), ("teacher", 50.0)]]
    assert drawn(shown(boxes((MOVED, 0), (RIGHT, 1)), both)) == [[("human", 10.0), ("teacher", 0.0)]]
    false = shown(boxes((LEFT, 0), (RIGHT, 1), ((0.0, 0.8, 0.2, 1.0), 0)), both)
    assert drawn(false) == [[("human", 0.0), ("teacher", 0.0), ("teacher", 50.0)]]


def test_the_page_is_safe_and_a_broken_picture_is_named(tmp_path: Path) -> None:
    found = shown(boxes((LEFT, 0)), boxes((LEFT, 0), (RIGHT, 1)))
    config = LabelConfig(data="made", answers=tmp_path / "a.db", out=tmp_path / "b.parquet")
    facts = {"labelled": 1, "doubtful": 1, "answered": 1, "images": 1}
    path, unreadable = write_box_page(config, found, facts)
    page = path.read_text()
    assert "<img src=x" not in page and "&gt;&lt;img" in page
    assert [item.name for item in unreadable] == ["=shelf.png"]
    hidden, _ = write_box_page(config.model_copy(update={"doubtful": 0}), found, facts)
    assert "None shown, as asked." in hidden.read_text()


def test_the_list_is_no_formula_and_words_are_few(tmp_path: Path) -> None:
    found = shown(boxes((LEFT, 0)), boxes((LEFT, 0), (RIGHT, 1)))
    write_suspected(tmp_path / "s.csv", found)
    with (tmp_path / "s.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["key"] == "'=shelf.png" and (row["kind"], row["left"], row["doubt"]) == ("missing", "0.5000", "0.9000")
    assert "missing" in in_words(found, 5)
    assert in_words(found, 0) == "1 suspected errors of human boxes; none shown, as asked."
    assert in_words(shown(boxes((LEFT, 0)), boxes((LEFT, 0))), 5) == "No suspected errors of human boxes."
