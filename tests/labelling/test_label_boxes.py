"""label --task detection: boxes for training, the page of suspected errors, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from box_cases import NAMES, answer_squares, write_squares
from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import DescribeConfig, LabelConfig
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.describe import describe
from gpt4image.labelling.label import label

HOSTILE = ("=cmd|'/c calc'!A1", "<script>alert(1)</script>", "\x1b[31mblue")


def config(spec: str, store: Path, **more: object) -> LabelConfig:
    return LabelConfig(**{"data": spec, "answers": store, "out": store.with_name("boxes.parquet"), **more})


def test_boxes_of_train_are_human_ones_and_others_follow_the_convention(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    store = answer_squares(spec, tmp_path / "a.db")
    outcome = label(config(spec, store, val_fraction=0.3))
    found = BoxLabels.load(tmp_path / "boxes.parquet")
    images = load_dataset(spec)
    assert isinstance(images.regions, Boxes)
    assert found.classes == images.classes == NAMES
    assert len(found.facts["human"]) == outcome.summary["labelled"] < len(found.keys) == len(images)
    true = images.regions[[images.keys.index(key) for key in found.keys]]
    learned = np.isin(np.arange(len(found.keys)), found.facts["human"])
    for image in range(len(found.keys)):
        corners, labels, weights = found.boxes.image(image)
        assert np.array_equal(labels[weights > 0], true.image(image)[1])
        assert np.allclose(corners[weights > 0], true.image(image)[0], atol=0.001)
        assert len(labels) == (1 if learned[image] else 2), "the square at the border is an ignore region"
    assert outcome.summary["precision_of_answers"] == 0.5
    assert outcome.summary["precision_of_teacher_on_val"] == outcome.summary["recall_of_teacher_on_val"] == 1.0
    assert "No suspected errors" in outcome.text and "taken at their word" not in outcome.text


def test_wrong_boxes_are_listed_and_drawn(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set", names=HOSTILE)
    store = answer_squares(spec, tmp_path / "a.db", names=HOSTILE)
    file = tmp_path / "set" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [0, 22, 6, 8]
    file.write_text(json.dumps(content))
    outcome = label(config(spec, store, val_fraction=0.0))
    page = (tmp_path / "boxes.html").read_text()
    assert outcome.summary["suspected"] >= 2
    assert page.count("<svg>") >= 2 and 'class="human"' in page and 'class="teacher"' in page
    assert "<script>alert" not in page and "\x1b" not in page
    assert all(f"<h2>{kind}</h2>" in page for kind in ("missing", "false"))
    assert "\x1b" not in outcome.text and "images/train0.png" in outcome.text


def test_no_human_box_is_needed(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    store = answer_squares(spec, tmp_path / "a.db", truncated=False)
    folder = f"folder:{tmp_path / 'set' / 'images'}"
    outcome = label(config(folder, store, task="detection", classes=",".join(NAMES)))
    found = BoxLabels.load(tmp_path / "boxes.parquet")
    assert found.facts["human"] == [] and (found.boxes.weights > 0.5).all()
    assert len(found.boxes.labels) == 2 * len(found.keys)
    assert "Annotate a few images" in outcome.text


def test_boxes_in_another_convention_are_told_where_they_fit_no_human_box(tmp_path: Path) -> None:
    spec = write_squares(tmp_path / "set")
    images = load_dataset(spec)
    rows = [  # pixels, where thousandths are expected
        {"key": key, "boxes": [{"label": NAMES[images.regions.image(row)[1][0]], "box_2d": box}]}
        for row, key in enumerate(images.keys)
        if isinstance(images.regions, Boxes)
        for box in (images.regions.image(row)[0] * 32).tolist()
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {}
    for name in ("xyxy-1000", "xyxy-original"):
        asked = {"data": spec, "describer": f"replay:{tmp_path / 'a.jsonl'}", "ask": "boxes", "box_format": name}
        describe(DescribeConfig(store=tmp_path / f"{name}.db", splits="train,val,test", **asked))
        told[name] = label(config(spec, tmp_path / f"{name}.db", val_fraction=0.0)).text
    assert "Only 0.0% of the human boxes have an answered box. The numbers may be in another" in told["xyxy-1000"]
    assert "convention" not in told["xyxy-original"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"answers": None, "embeddings": None, "evidence": "fused"}, "label needs evidence"),
        ({"task": "classification"}, "labels of .* are of multilabel"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, more: dict[str, object], message: str) -> None:
    spec = write_squares(tmp_path / "set")
    store = answer_squares(spec, tmp_path / "a.db")
    with pytest.raises((ConfigError, DataError), match=message):
        label(config(spec, store, **more))
