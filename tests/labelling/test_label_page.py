"""The page of suspected label errors: both classes are easy to see, and what was ticked can be taken away as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from browser import SCHEMES, act, fits
from gpt4image.artifacts.table import Manifest
from gpt4image.config import LabelConfig
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.openmoji import load_openmoji
from gpt4image.labelling.label_page import Shown, in_words, write_page
from gpt4image.labelling.suggest import Suggestion
from tables import make_table

HOSTILE = "=1+1,\"<script>alert(1)</script>'\u202egnp\n&amp;"
FACTS = {"labelled": 6, "described": 6, "images": 8, "noise": 0.25, "doubtful": 3}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("label-page")
    pictures = load_openmoji()
    images = ImageSet(
        spec="memory", source=MemorySource([pictures.read(i) for i in range(8)]), classes=("cat", "dog", HOSTILE),
        keys=(HOSTILE, *(f"p{i}" for i in range(1, 8))), labels=np.array([0, 0, 2, 0, 1, 1, -1, -1]),
        splits=np.full(8, "train"), rows=np.arange(8),
    )  # fmt: skip
    table = make_table(folder / "table", {digest: [np.ones(4) / 2] for digest in images.digests})
    probabilities = np.tile(np.array([0.05, 0.9, 0.05], np.float32), (8, 1))
    shown = Shown(
        images=images, probabilities=probabilities, table=table.manifest, suspected=np.array([[0, 0], [1, 0], [2, 2]]),
        suggestions=[Suggestion(row=6, action="label", doubt=0.5, why="uncertain")],
    )  # fmt: skip
    config = LabelConfig(data="folder:x", embeddings=folder / "table", out=folder / "labels.parquet")
    path, skipped = write_page(config, shown, FACTS, 0.5)
    assert skipped == []
    return path.read_text(encoding="utf-8")


def test_the_class_by_the_description_stands_beside_the_given_one_in_the_same_way(page: str) -> None:
    card = page[page.index("<article") : page.index("</article>")]
    assert "<dt>given label</dt><dd><bdi>cat</bdi></dd>" in card
    assert "<dt>predicted</dt><dd><bdi>dog</bdi>" in card and "90" in card
    assert "3 of 6 labelled training images have a label that the evidence about them contradicts." in page
    assert page.count('type="checkbox"') == 3, "a suggestion is no label error"


def test_names_stay_text_and_only_the_own_script_may_run(page: str) -> None:
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
def test_the_page_fits_every_screen_with_pictures_of_160_pixels_and_more(
    page: str, tmp_path: Path, scheme: str
) -> None:
    assert all(one["smallest"] < 9999 for one in fits(page, tmp_path, scheme)), "there are such pictures"


TABLE = Manifest.__new__(Manifest)  # which texts are behind it is not asked


def shown(labels: list[int] | list[list[int]], probabilities: list[list[float]], suspected: list[list[int]]) -> Shown:
    images = ImageSet(
        spec="memory", classes=("cat", "dog"), keys=("a.png", "b.png"), labels=np.array(labels),
        splits=np.full(2, "train"), source=MemorySource([b"a", b"b"]), rows=np.arange(2),
    )  # fmt: skip
    suggestions = [Suggestion(row=1, action="label", doubt=0.9, why="unsure")]
    return Shown(
        images=images,
        probabilities=np.array(probabilities, np.float32),
        table=TABLE,
        suspected=np.array(suspected, np.int64).reshape(-1, 2),
        suggestions=suggestions,
    )


def test_one_label_is_doubted_as_far_as_its_probability_is_from_one() -> None:
    found = shown([0, 1], [[0.25, 0.75], [0.0, 0.0]], [[0, 0]])
    assert found.suspect(0, 0) == {"given": "cat", "guess": "dog", "probability": 0.75, "doubt": 0.75}
    assert found.guess(1) == "", "nothing is known of an image without a text"


def test_one_of_several_labels_is_doubted_as_present_or_as_absent() -> None:
    found = shown([[1, 0], [0, 1]], [[0.25, 0.875], [0.0, 1.0]], [[0, 0], [0, 1]])
    names = {0: ("cat: present", "cat: absent"), 1: ("dog: absent", "dog: present")}
    for label, doubt in ((0, 0.75), (1, 0.875)):
        given, guess = names[label]
        assert found.suspect(0, label) == {"given": given, "guess": guess, "probability": doubt, "doubt": doubt}


def test_the_terminal_shows_as_many_as_asked_for_and_the_suggestions() -> None:
    found = shown([0, 1], [[0.25, 0.75], [0.75, 0.25]], [[0, 0], [1, 1]])
    text = in_words(found, most=1)
    assert "a.png" in text.split("Worth a label next")[0] and "b.png" not in text.split("Worth a label next")[0]
    assert "b.png" in text.split("Worth a label next")[1] and "unsure" in text and "Worth a description" not in text
    assert "2 suspected label errors; none shown, as asked." in in_words(found, most=0)
    assert "No suspected label errors." in in_words(shown([0, 1], [[1.0, 0.0], [0.0, 1.0]], []), most=5)
