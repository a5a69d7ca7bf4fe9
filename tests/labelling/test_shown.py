"""What label shows: cards of suspected errors that are safe and easy to compare, ticks, tables, lists."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from browser import SCHEMES, act, fits
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.config import LabelConfig
from gpt4image.data.dataset import Dataset, MemorySource
from gpt4image.data.openmoji import load_openmoji
from gpt4image.data.regions import Boxes
from gpt4image.labelling.boxes import TaughtBoxes, suspected_boxes
from gpt4image.labelling.shown import ShownBoxes, ShownClasses, write_page, write_suggestions, write_table
from gpt4image.labelling.suggest import Suggestion, to_describe, to_label
from tables import make_table

HOSTILE = "=1+1,\"<script>alert(1)</script>'\u202egnp\n&amp;"
FACTS = {"labelled": 6, "described": 6, "images": 8, "noise": 0.25, "suspected": 3}


def image_set(pictures: list[bytes], classes: tuple[str, ...], keys: tuple[str, ...], labels: Any, **more: Any) -> Any:
    rows = np.arange(len(keys))
    splits = np.full(len(keys), "train")
    source = MemorySource(pictures)
    return Dataset(spec="x", source=source, classes=classes, keys=keys, labels=labels, splits=splits, rows=rows, **more)


def shown(images: Dataset, probabilities: Any, suspected: Any, most: int = 50) -> ShownClasses:
    return ShownClasses(
        images=images,
        probabilities=np.array(probabilities, np.float32),
        suspected=np.array(suspected, np.int64).reshape(-1, 2),
        suggestions=[Suggestion(row=len(images) - 1, action="label", doubt=0.9, why="unsure")],
        answers=None,
        most=most,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, pictures = tmp_path_factory.mktemp("label-page"), load_openmoji()
    keys, labels = (HOSTILE, *(f"p{i}" for i in range(1, 8))), np.array([0, 0, 2, 0, 1, 1, -1, -1])
    images = image_set([pictures.read(i) for i in range(8)], ("cat", "dog", HOSTILE), keys, labels)
    table = make_table(folder / "table", {digest: [np.ones(4) / 2] for digest in images.digests})
    found = shown(images, np.tile([0.05, 0.9, 0.05], (8, 1)), [[0, 0], [1, 0], [2, 2]])
    config = LabelConfig(data="folder:x", embeddings=folder / "table", out=folder / "labels.parquet")
    path, skipped = write_page(config, images, table.manifest, found.sections(), FACTS, 0.5)
    assert skipped == []
    return path.read_text(encoding="utf-8")


def test_the_predicted_class_stands_beside_the_given_one_and_names_stay_text(page: str) -> None:
    card = page[page.index("<article") : page.index("</article>")]
    assert "<dt>given label</dt><dd><bdi>cat</bdi></dd>" in card
    assert "<dt>predicted</dt><dd><bdi>dog</bdi>" in card and "90" in card
    assert "3 of 6 labelled training images have a label that the evidence about them contradicts." in page
    assert page.count('type="checkbox"') == 3, "a suggestion is no label error"
    assert page.count("<script") == 1 and "script-src 'sha256-" in page
    assert "&lt;script&gt;alert(1)" in page and "\u202e" not in page


TICK = """
  const boxes = [...document.querySelectorAll("input[type=checkbox]")];
  if (!boxes.some(box => box.checked)) { boxes[0].click(); boxes[2].click(); boxes[1].click(); boxes[1].click();
    location.reload(); return undefined; }
  const link = document.querySelector("#ticked");
  boxes[0].focus();
  return {checked: boxes.map(box => box.checked), href: link.href, name: link.download, said: link.textContent,
          shown: link.offsetParent !== null, focus: document.activeElement === boxes[0]};
"""


@pytest.mark.slow
def test_ticks_survive_a_reload_and_are_offered_as_csv_without_a_server(page: str, tmp_path: Path) -> None:
    found: dict[str, Any]
    found, messages = act(page, TICK, tmp_path)
    assert messages == [], "the page's policy had to stop nothing"
    assert found["checked"] == [True, False, True] and found["shown"] and found["focus"]
    assert found["name"] == "wrong-labels.csv" and "(2)" in found["said"]
    start, text = found["href"].split(",", 1)
    assert start == "data:text/csv;charset=utf-8"
    assert list(csv.reader(io.StringIO(unquote(text), newline=""))) == [
        ["key", "given_label", "text_label", "probability"],
        [f"'{HOSTILE}", "cat", "dog", "0.9000"],
        ["p2", f"'{HOSTILE}", "dog", "0.9000"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_fits_every_screen(page: str, tmp_path: Path, scheme: str) -> None:
    assert all(one["smallest"] < 9999 for one in fits(page, tmp_path, scheme)), "there are such pictures"


def pair(labels: Any) -> Dataset:
    return image_set([b"a", b"b"], ("cat", "dog"), ("a.png", "b.png"), np.array(labels))


def test_a_label_is_doubted_as_far_as_its_probability_is_from_it() -> None:
    found = shown(pair([0, 1]), [[0.25, 0.75], [0.0, 0.0]], [[0, 0]])
    first, to_do, _ = found.sections()
    assert list(first.cards[0].cells) == ["a.png", "cat", "dog", "0.75", "0.750"]
    assert list(to_do.cards[0].cells) == ["b.png", "", "unsure"], "nothing is known of an image without a text"
    several = shown(pair([[1, 0], [0, 1]]), [[0.25, 0.875], [0.0, 1.0]], [[0, 0], [0, 1]]).sections()[0]
    assert [list(card.cells[1:]) for card in several.cards] == [
        ["cat: present", "cat: absent", "0.75", "0.750"],
        ["dog: absent", "dog: present", "0.88", "0.875"],
    ]


def test_the_terminal_shows_as_many_as_asked_for_and_the_suggestions() -> None:
    def text(suspected: list[list[int]], most: int) -> str:
        found = shown(pair([0, 1]), [[0.25, 0.75], [0.75, 0.25]], suspected, most)
        return found.in_words(found.sections())

    suspected, to_do = text([[0, 0], [1, 1]], 1).split("Worth a label next")
    assert "a.png" in suspected and "b.png" not in suspected and "b.png" in to_do and "Worth a descr" not in to_do
    assert "2 suspected label errors; none shown, as asked." in text([[0, 0], [1, 1]], 0)
    assert "No suspected label errors." in text([], 5)


LEFT, RIGHT, MOVED = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0.1, 0.1, 0.5, 0.5)


def boxes(*each: tuple[tuple[float, ...], int]) -> Boxes:
    corners = np.array([place for place, _ in each], np.float32)
    return Boxes.of_images([(corners, np.array([label for _, label in each]), np.ones(len(each), np.float32))])


def shown_boxes(human: Boxes, answered: Boxes, most: int = 5) -> ShownBoxes:
    count = len(answered.labels)
    taught = TaughtBoxes(boxes=answered, probable=np.full(count, 0.9), drawn=np.ones(count, np.int8), weights={})
    classes = ("can", '"><img src=x onerror=alert(1)>')
    images = image_set([b"no picture"], classes, ("=shelf.png",), np.ones((1, 2), np.int8), regions=human)
    suspected = suspected_boxes(taught, human)
    return ShownBoxes(images=images, human=human, taught=taught, suspected=suspected, most=most)


BOTH = boxes((LEFT, 0), (RIGHT, 1))


@pytest.mark.parametrize(
    ("human", "drawn"),
    [
        (boxes((LEFT, 0)), [("human", 0.0), ("teacher", 50.0)]),
        (boxes((MOVED, 0), (RIGHT, 1)), [("human", 10.0), ("teacher", 0.0)]),
        (
            boxes((LEFT, 0), (RIGHT, 1), ((0.0, 0.8, 0.2, 1.0), 0)),
            [("human", 0.0), ("teacher", 0.0), ("teacher", 50.0)],
        ),
    ],
)
def test_what_is_drawn_is_the_suspect_and_what_speaks_against_it(human: Boxes, drawn: list[Any]) -> None:
    (card,) = [card for section in shown_boxes(human, BOTH).sections() for card in section.cards]
    assert [(box["kind"], box["place"]["x"]) for box in card.boxes] == drawn


def test_the_page_of_boxes_is_safe_and_a_broken_picture_is_named(tmp_path: Path) -> None:
    found = shown_boxes(boxes((LEFT, 0)), BOTH)
    config = LabelConfig(data="made", answers=tmp_path / "a.db", out=tmp_path / "b.parquet")
    facts = {"labelled": 1, "suspected": 1, "answered": 1, "images": 1, "answered_boxes": 2}
    path, unreadable = write_page(config, found.images, None, found.sections(), facts)
    assert "<img src=x" not in path.read_text() and "&gt;&lt;img" in path.read_text()
    assert [item.name for item in unreadable] == ["=shelf.png"]
    nothing = shown_boxes(boxes((LEFT, 0)), BOTH, most=0)
    path, _ = write_page(config, found.images, None, nothing.sections(), facts)
    assert "None shown, as asked." in path.read_text()
    assert nothing.in_words() == "1 suspected errors of human boxes; none shown, as asked."


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_lists_are_no_formulas(tmp_path: Path) -> None:
    found = shown_boxes(boxes((LEFT, 0)), BOTH)
    found.write(tmp_path / "s.csv")
    assert [rows_of(tmp_path / "s.csv")[1][k] for k in (0, 1, 3, 7)] == ["'=shelf.png", "missing", "0.5000", "0.9000"]
    images = image_set([b"a", b"b", b"c"], ("cat", "-dog"), ("a,b", "=c", "d"), np.full(3, -1))
    chosen = to_label(np.eye(3), np.array([[1.0, 0], [0, 1.0], [0, 0]]), np.arange(2), 2, 0)
    chosen += to_describe(np.zeros(3, bool), np.full(3, -1), np.array([2]), 1)
    given = {"probabilities": np.array([[1.0, 0], [0, 1.0], [0, 0]], np.float32), "suspected": np.zeros((0, 2), int)}
    write_suggestions(
        tmp_path / "next.csv", ShownClasses(images=images, suggestions=chosen, answers=None, most=0, **given)
    )
    assert [row[:4] + row[5:] for row in rows_of(tmp_path / "next.csv")[1:]] == [
        ["1", "label", "a,b", "cat", "stands for others as unsure"],
        ["2", "label", "'=c", "'-dog", "stands for others as unsure"],
        ["1", "describe", "d", "", "no description"],
    ]


@pytest.mark.parametrize(
    ("given", "probabilities", "expected"),
    [
        ([0, -1], [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], [["cat", "cat", "0.7000", "'=dog", "0.2000"],
                                                       ["", "owl", "0.6000", "'=dog", "0.3000"]]),
        ([[1, 0, -1]], [[0.9, 0.1, 0.8]], [["cat", "cat|owl", "0.9000|0.8000"]]),
    ],
)  # fmt: skip
def test_targets_as_a_table_for_people(tmp_path: Path, given: Any, probabilities: Any, expected: Any) -> None:
    facts = Facts(classes=("cat", "=dog", "owl"), noise=0.0, agreement=1.0, c=1.0, folds=2, seed=0, encoders=())
    labels, count = np.array(given), len(given)
    targets = Targets(
        keys=tuple(f"{row}.jpg" for row in range(count)),
        digests=tuple(f"{row:064x}" for row in range(count)),
        splits=np.array(["train"] * count),
        labels=labels,
        probabilities=np.array(probabilities, np.float32),
        out_of_fold=np.zeros_like(labels, dtype=bool),
        facts=facts,
    )
    write_table(tmp_path / "t.csv", targets)
    head, *rows = rows_of(tmp_path / "t.csv")
    assert head[:5] == ["key", "split", "given", "predicted", "probability"]
    assert [row[2:] for row in rows] == expected and [row[0] for row in rows] == list(targets.keys)
