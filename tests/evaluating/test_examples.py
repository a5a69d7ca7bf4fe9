"""Pictures for the report: predictions, masks and boxes, suspected label errors; and what evaluate writes of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gpt4image.artifacts.store import Prompt
from gpt4image.artifacts.table import read_manifest, texts_behind
from gpt4image.base.files import read_json, write_parquet
from gpt4image.config import EvaluateConfig, LabelConfig, ReportConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.data.dataset import Dataset
from gpt4image.data.known_sets import load_openmoji
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.evaluating.examples import SUSPECTED, DrawnMasks, Said, write_examples, write_suspected
from gpt4image.labelling.label import label
from gpt4image.reporting.extras import EXAMPLE, EXAMPLES
from gpt4image.reporting.report import HEADINGS, example_groups, report
from gpt4image.training.train import train
from gpt4image.training.training_data import TextTargets
from small_training import SMALL
from tables import write_store
from worlds import in_memory


def memory_set(data: list[bytes], labels: np.ndarray, split: str = "train") -> Dataset:
    names = tuple(f"p{i}" for i in range(len(data)))
    return in_memory(data, labels, keys=names, classes=("a", "b", "c"), splits=np.full(len(data), split))


def examples_of(
    path: Path, images: Dataset, text: TextTargets | None, *, at_random: bool = False, **more: Any
) -> list[dict[str, Any]]:
    usable = np.ones(len(images), bool)
    said = Said(text, more.pop("targets", None), more.pop("answers", None))
    write_examples(path, images, usable, said, **{"run_dirs": {}, **more})
    return [EXAMPLE | row for row in read_json(path) if row.get("at_random", False) == at_random]


def test_broken_pictures_cost_no_others(tmp_path: Path) -> None:
    pictures, count = load_openmoji(), SUSPECTED + 5
    images = memory_set([b"no picture", *(pictures.read(i) for i in range(1, count))], np.full(count, 2))
    text = TextTargets.one_each(np.random.default_rng(0).normal(size=(9, 4)), np.arange(9))
    found = examples_of(tmp_path / "x.json", images.select(np.arange(9)), text, comparison="c")
    assert {example["key"] for example in found} == {f"p{i}" for i in range(1, 9)}
    assert {example["comparison"] for example in found} == {"c"}
    probabilities = np.tile(np.array([[0.1, 0.8, 0.1]], np.float32), (count, 1))
    given_labels = np.zeros(count, np.int64)
    write_suspected(tmp_path / "y.json", images, np.arange(count), given_labels, probabilities, tables=(), true=True)
    errors = read_json(tmp_path / "y.json")
    assert [error["key"] for error in errors] == [f"p{i}" for i in range(1, SUSPECTED + 1)]
    assert {(error["given"], error["text"], error["truth"]) for error in errors} == {("a", "b", "c")}
    assert errors[0]["probability"] == pytest.approx(0.8)
    several = memory_set([pictures.read(1)], np.array([[1, 0, 0]], np.int8))
    write_suspected(tmp_path / "z.json", several, np.array([0]), np.array([0]), probabilities[:1], tables=())
    (row,) = read_json(tmp_path / "z.json")
    assert (row["given"], row["text"], row["probability"], row["truth"]) == ("a: present", "a: absent", 0.9, None)


def test_half_of_the_pictures_of_one_run_are_wrong_and_of_those_at_random_as_many_as_of_all(tmp_path: Path) -> None:
    pictures, n = load_openmoji(), 40
    images = memory_set([pictures.read(i) for i in range(n)], np.zeros(n, np.int64), "test")
    predictions = np.where(np.arange(n) < 15, 1, 0)
    columns = {"key": list(images.keys), "prediction": predictions, "confidence": np.full(n, 0.75)}
    write_parquet(tmp_path / "predictions-test.parquet", pa.table(columns))
    found = examples_of(tmp_path / "x.json", images, None, run_dirs={"predicted": tmp_path})
    guesses = [example["predictions"]["predicted"] for example in found]
    assert [guess["class"] for guess in guesses].count("b") == 12 == [guess["class"] for guess in guesses].count("a")
    assert {guess["probability"] for guess in guesses} == {0.75}
    found = examples_of(tmp_path / "x.json", images, None, run_dirs={"predicted": tmp_path}, at_random=True)
    assert sum(example["predictions"]["predicted"]["class"] == "b" for example in found) == 15 and len(found) == n


def test_right_guesses_of_several_classes_are_right(tmp_path: Path) -> None:
    pictures = load_openmoji()
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, -1, 0], [-1, -1, 0], [-1, -1, -1]], np.int8)
    images = memory_set([pictures.read(i) for i in range(5)], labels, "test")
    predicted = [[0, 1], [], [0, 1], [1, 2], [1]]
    table = pa.table({"key": list(images.keys), "prediction": pa.array(predicted, pa.list_(pa.int64()))})
    write_parquet(tmp_path / "predictions-test.parquet", table)
    texts = np.array([[0.9, 0.6, 0.1], [0.2, 0.1, 0.4], [0.5, 0.9, 0.3], [np.nan] * 3, [0.8, 0.1, 0.1]], np.float32)
    found = examples_of(tmp_path / "x.json", images, None, run_dirs={"predicted": tmp_path}, targets=texts)
    by_key = {example["key"]: example for example in found}
    of_images = [by_key[key] for key in images.keys]
    assert [example["label"] for example in of_images] == ["a, b", "none of the classes", "a", None, None]
    guesses = [example["predictions"]["predicted"] for example in of_images]
    names = ["a, b", "none of the classes", "a", "b, c", "b"]  # b is left open of the third image
    assert [(guess["class"], guess["probability"]) for guess in guesses] == [(name, None) for name in names]
    by_text = [example["text_label"] and example["text_label"]["class"] for example in of_images]
    assert by_text == ["a, b", "none of the classes", "a", None, "a"]
    assert of_images[0]["text_label"]["probability"] is None
    groups = example_groups(found)
    assert {heading: len(group) for heading, group in groups.items()} == {HEADINGS[2]: 3, HEADINGS[0]: 2}


@pytest.mark.slow
def test_evaluate_writes_what_the_report_of_a_run_shows(described_colours: tuple[Path, Path], tmp_path: Path) -> None:
    folder, table = described_colours
    data, run = f"folder:{folder}", tmp_path / "run"
    own = Prompt("class-conditioned", 1, "A {class_name}.", True)  # what the table does not hold is no evidence
    rows = ({"digest": digest, "text": "It is a class."} for digest in load_dataset(data).digests)
    write_store(tmp_path / "texts.db", rows, prompt=own)
    label(LabelConfig(data=data, embeddings=table, out=tmp_path / "labels.parquet", val_fraction=0.2))
    options: dict[str, Any] = {"embeddings": table, "targets": tmp_path / "labels.parquet", "val_fraction": 0.2}
    train(TrainConfig(**{"data": data, "out": run, **SMALL, "epochs": 2, "lr": 0.005, **options}))
    assert not (run / "examples.json").exists()
    assert evaluate(EvaluateConfig(run_dir=run)).skipped == ()
    errors = read_json(run / "doubtful-labels.json")
    assert [(error["key"], error["given"], error["text"]) for error in errors] == [("blue/wrong.png", "blue", "red")]
    assert "red square" in errors[0]["description"]
    examples = [EXAMPLE | row for row in read_json(run / "examples.json")]
    assert {example["split"] for example in examples} == {"train", "test"}
    assert {len(example["descriptions"]) for example in examples if not example["at_random"]} == {1}
    for example in examples:
        if example["split"] == "train":
            assert example["text_label"]["probability"] and not example["predictions"]
        else:
            assert example["predictions"].keys() == {"predicted"}
    known = read_json(run / "descriptions.json")
    assert [asked["name"] for asked in known["prompts"]] == ["paper"] == [by["prompt"] for by in known["describers"]]
    assert known["descriptions"] == 48, "what the table does not hold is not counted"
    assert texts_behind([read_manifest(table)], ["0" * 64]) == {}
    assert report(ReportConfig(dir=run)).skipped == ()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("done", "pictures", "suspected", "descriptions"))
    written = (run / "examples.json").read_bytes()
    evaluate(EvaluateConfig(run_dir=run, split="val"))
    assert (run / "examples.json").read_bytes() == written, "the report is about the test split"
    (run / "evaluation-test.json").unlink()
    (tmp_path / "texts.db").write_bytes(b"no store any more" * 100)
    skipped = evaluate(EvaluateConfig(run_dir=run)).skipped
    assert {item.name for item in skipped} >= {"descriptions.json"}
    assert all("left out of the report" in item.reason for item in skipped)


def test_masks_of_a_run_are_drawn_worst_first(drawn_run: Path) -> None:
    evaluate(EvaluateConfig(run_dir=drawn_run / "run"))
    images = load_dataset(f"masks:{drawn_run / 'set'}")
    drawn = DrawnMasks.of_runs(images, {"predicted": drawn_run / "run"}, "test")
    assert drawn is not None
    order = drawn.worst_first(images.indices("test"))
    scores = [drawn.scores[images.keys[row]] for row in order]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    pictures = drawn.of(int(order[0]))
    assert list(pictures) == ["true mask", "predicted"]
    assert all(value.startswith("data:image/webp;base64,") for value in pictures.values())
    tagged, masked = (next(row for row, key in enumerate(images.keys) if name in key) for name in ("tagged", "train"))
    assert drawn.of(masked).keys() == {"true mask"} and not drawn.of(tagged)
    shown = [row["key"] for row in read_json(drawn_run / "run" / "examples.json")]
    assert shown == [images.keys[row] for row in order]


def test_a_report_shows_true_and_predicted_boxes_the_worst_first(detector_run: Path) -> None:
    shown = read_json(detector_run / EXAMPLES)
    assert len(shown) == 24
    scores = [float(card["about"].rsplit(" ", 1)[1]) for card in shown]
    assert scores == sorted(scores)
    kinds = [box["kind"] for card in shown for box in card["boxes"]]
    assert {"true", "found"} == set(kinds)
    report(ReportConfig(dir=detector_run))
    page = (detector_run / "report.html").read_text(encoding="utf-8")
    assert page.count('<g class="true">') + page.count('<g class="found">') == len(kinds)
    assert '<g class="true"><title>true: ' in page
    assert "the lowest scores first" in page
