"""Classes that answers confuse: found beyond chance, asked again about few images, and labelled better then."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import openai_stub as server
from gpt4image.artifacts.targets import Targets
from gpt4image.cli import main
from gpt4image.describing.class_lists import class_list
from gpt4image.labelling.confusions import Confused, confused_pairs
from gpt4image.labelling.label import confused_table, write_classes
from openai_cases import openai_settings as openai_settings

COUNT, K = 1000, 10


def planted(seed: int, *, confused: tuple[int, int] | None = (3, 5)) -> tuple[Any, Any]:
    """True classes and answers: 4 % are wrong in any way, and 30 % of a pair are taken for the other class of it."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, COUNT)
    answers = np.where(rng.random(COUNT) < 0.04, rng.integers(0, K, COUNT), true)
    if confused is not None:
        swapped = np.isin(true, confused) & (rng.random(COUNT) < 0.3)
        answers = np.where(swapped, sum(confused) - true, answers)
    return true, answers


def unsure(answers: Any, seed: int = 0, sure: float = 0.7) -> Any:
    """Probabilities that have the answer first and, where it is of the pair, the other class next."""
    rng = np.random.default_rng(seed)
    found = rng.random((COUNT, K)).astype(np.float32) * 0.01
    found[np.arange(COUNT), answers] = sure
    rows = np.flatnonzero(np.isin(answers, (3, 5)))
    found[rows, 8 - answers[rows]] = 0.2
    return found


EVERYWHERE = np.ones(COUNT, bool)


@pytest.mark.parametrize("seed", range(2))
def test_labels_show_the_pair_that_is_confused_and_no_other(seed: int):
    true, answers = planted(seed)
    labels = np.where(np.arange(COUNT) < 200, true, -1)
    (pair,) = confused_pairs({"answers": answers}, labels, unsure(answers), EVERYWHERE)
    assert pair.classes == (3, 5) and pair.by == "labels"
    both = np.isin(labels, (3, 5)) & np.isin(answers, (3, 5))
    assert (pair.checked, pair.wrong) == (both.sum(), (both & (labels != answers)).sum())
    assert np.array_equal(pair.images, np.flatnonzero(np.isin(answers, (3, 5))))


@pytest.mark.parametrize("seed", range(2))
def test_texts_show_it_where_labels_are_few_or_absent(seed: int):
    true, answers = planted(seed)
    rng = np.random.default_rng(seed + 9)
    texts = np.where(rng.random(COUNT) < 0.1, rng.integers(0, K, COUNT), true)
    labels = np.where(np.arange(COUNT) < 12, true, -1)
    for given in (labels, np.full(COUNT, -1)):
        (pair,) = confused_pairs({"answers": answers, "taught": texts}, given, unsure(answers), EVERYWHERE)
        assert pair.classes == (3, 5) and pair.by == "texts"


def test_labels_that_show_no_mistakes_of_a_pair_overrule_texts():
    true = planted(0)[0]
    texts = np.where(np.isin(true, (3, 5)) & (np.random.default_rng(1).random(COUNT) < 0.3), 8 - true, true)
    said = {"answers": true, "taught": texts}
    few, many = (np.where(np.arange(COUNT) < count, true, -1) for count in (20, 400))
    assert [pair.classes for pair in confused_pairs(said, few, unsure(true), EVERYWHERE)] == [(3, 5)]
    assert not confused_pairs(said, many, unsure(true), EVERYWHERE)


@pytest.mark.parametrize("seed", range(4))
def test_mistakes_that_are_spread_evenly_show_no_pair(seed: int):
    true, answers = planted(seed, confused=None)
    assert not confused_pairs({"answers": answers}, true, unsure(answers), EVERYWHERE)


def test_nothing_is_asked_again_without_need():
    true, answers = planted(0)
    nowhere = np.full(COUNT, -1)
    assert not confused_pairs({"answers": answers}, nowhere, unsure(answers), EVERYWHERE), "nothing to compare with"
    assert not confused_pairs({"taught": true}, true, unsure(answers), EVERYWHERE), "no answers"
    assert not confused_pairs({"answers": answers}, true, unsure(answers), ~EVERYWHERE), "asked before"
    assert not confused_pairs({"answers": answers}, true, unsure(answers, sure=0.96), EVERYWHERE), "all certain"
    two = {"answers": answers % 2}
    assert not confused_pairs(two, true % 2, unsure(answers)[:, :2], EVERYWHERE), "the pair is the whole list"


def test_the_class_list_keeps_what_was_written_into_it(tmp_path: Path):
    pair = Confused((0, 2), 20, 3, "labels", np.arange(7))
    names, path = ("cat", "owl", "polar_bear"), tmp_path / "t.again-classes.txt"
    write_classes(path, [pair], names, {0: "a pet that meows", 1: "a bird"})
    assert class_list(str(path)) == (("cat", "a pet that meows"), ("polar_bear", ""))
    path.write_text(path.read_text(encoding="utf-8").replace("polar_bear:", "polar_bear: white fur"), encoding="utf-8")
    write_classes(path, [pair], names, {})
    assert class_list(str(path)) == (("cat", "a pet that meows"), ("polar_bear", "white fur"))
    assert "cat / polar_bear  labels         3 of 20   7 images" in confused_table([pair], names)


COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40), "white": (240, 240, 240)}
DEFINITIONS = {"blue": "like the sky", "green": "like grass"}


def named(path: Path) -> str:
    """The true class of a picture, which its file name begins with."""
    return path.name.split("-")[0]


def described(call: server.Call, wrong: set[bytes]) -> server.Reply:
    """Answer a wrong colour about some pictures, unless the question says what blue and green are."""
    question = call.content.decode()
    with Image.open(__import__("io").BytesIO(call.image)) as picture:
        pixel = np.array(picture.convert("RGB"), int)[8, 8]
    name = min(COLOURS, key=lambda colour: float(np.abs(pixel - np.array(COLOURS[colour])).sum()))
    other = {"blue": "green", "green": "blue"}.get(name)
    if "like the sky" in question:
        found = {"class": name if other else "none of these", "second": other, "confidence": 0.9}
    elif bytes(pixel.astype(np.uint8)) in wrong:
        found = {"class": other, "second": name, "confidence": 0.7}
    else:
        found = {"class": name, "second": other, "confidence": 0.7 if other else 0.98}
    return server.answer(json.dumps(found))


@pytest.mark.usefixtures("openai_settings")
def test_only_confused_images_are_asked_again_and_are_labelled_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rng, wrong = np.random.default_rng(0), set[bytes]()
    for name, colour in COLOURS.items():
        for number in range(30):
            shade = np.clip(np.array(colour) + rng.integers(-15, 16, 3), 0, 255).astype(np.uint8)
            part = tmp_path / "photos" / (name if number < 12 else "unlabelled")
            part.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16, 3), shade)).save(part / f"{name}-{number:02}.png")
            if name in DEFINITIONS and number % 3 == 0:
                wrong.add(bytes(shade))

    def run(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def accuracy() -> float:
        found = Targets.load(tmp_path / "t.parquet")
        names = [found.facts.classes[number] for number in found.probabilities.argmax(axis=1)]
        return float(np.mean([named(Path(key)) == name for key, name in zip(found.keys, names, strict=True)]))

    ask = ("describe", "--data", "photos", "--store", "p.db", "--ask", "class", "--image-format", "png")
    ask = (*ask, "--splits", "train,val,test")
    teach = ("label", "--data", "photos", "--answers", "p.db", "--out", "t.parquet", "--features", "none")
    teach = (*teach, "--val-fraction", "0", "--test-fraction", "0")
    with server.serve(lambda call: described(call, wrong)) as stub:
        ask = (*ask, "--describer", "openai:tiny", "--base-url", stub.url)
        run(*ask)
        assert stub.count == 120
        first, before = run(*teach), accuracy()
        assert first["again"] == "t.again.csv" and first["again_classes"] == "t.again-classes.txt"
        assert first["next"].startswith("gpt4image train "), "a second answer is paid for only by one's own will"
        assert class_list("t.again-classes.txt") == (("blue", ""), ("green", ""))
        with Path("t.again.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert 40 <= len(rows) <= 60 and {named(Path(row["key"])) for row in rows} == {"blue", "green"}
        assert all({row["first"], row["second"]} == {"blue", "green"} for row in rows)
        Path("t.again-classes.txt").write_text("".join(f"{name}: {what}\n" for name, what in DEFINITIONS.items()))
        again = run(*ask, "--classes", "t.again-classes.txt", "--only", "t.again.csv")
        assert again["images"] == again["described"] == stub.count - 120 == len(rows)
        assert again["next"] == "gpt4image label --data photos --answers p.db --out targets.parquet"
        second, after = run(*teach), accuracy()
    assert "again" not in second, "the same images are not asked a third time"
    assert before < 0.9 and after > 0.98
    assert (tmp_path / "t.again-classes.txt").read_text().startswith("blue: like the sky"), "what was written stays"
