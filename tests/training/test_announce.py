"""What is said before and while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn_masks import draw
from gpt4image import verbs
from gpt4image.config import TrainConfig
from gpt4image.training import train as training
from gpt4image.training.prepare import prepare
from gpt4image.training.train import about, block, time_left
from small_training import SMALL


def test_a_run_says_what_it_does_and_how_each_epoch_went(
    described_colours: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = described_colours
    (folder / "unlabelled").mkdir()
    for name in ("01.png", "02.png"):
        (folder / "red" / name).rename(folder / "unlabelled" / name)
    verbs.verb("label")(data=folder, embeddings=table, out=tmp_path / "t.parquet")
    capsys.readouterr()
    short = {"epochs": 2, "batch_size": 8, "image_size": 16, "model": "resnet10t", "device": "cpu"}
    outcome = verbs.verb("train")(data=folder, text_labels=tmp_path / "t.parquet", out=tmp_path / "run", **short)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"reading {folder} and decoding its images"
    (line,) = [line for line in told if line.startswith("train on")]
    assert line == "train on  36 images: 34 labels, 36 text labels"
    assert any(line.startswith("model     resnet10t (scratch), 16 x 16 pixels") for line in told)
    assert any(line.startswith("weights   --init pretrained downloads those of ImageNet") for line in told)
    assert any(line.startswith("left      about ") for line in told)
    epochs = [line for line in told if line.startswith("epoch ")]
    assert len(epochs) == 2 and all("val accuracy" in line for line in epochs)
    assert outcome.described == 36 and outcome.labelled == 34


def test_images_with_only_tags_are_counted_apart(tmp_path: Path) -> None:
    data = draw(tmp_path / "set", train=8, tagged=6)
    ready = prepare(TrainConfig(data=data, out=tmp_path / "run", **SMALL, val_fraction=0.0))
    told = block(ready).splitlines()
    assert told[0] == "train on  14 images: 8 labels, 6 only tags"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about a second"), (80, "about 80 seconds"), (600, "about 10 minutes"), (9000, "about 2.5 hours")],
)
def test_a_duration_has_the_unit_that_a_person_would_choose(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_the_time_left_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    after = time_left()
    told = []
    for step in range(1, 10):
        now[0] += 2.0
        told.append(after(step, 100))
    assert told == [None] * 4 + ["about 3 minutes"] + [None] * 4


@pytest.mark.slow
def test_the_last_run_trains_on_the_validation_images_too_and_is_measured_on_the_same_test_split(
    colour_folder: Path, tmp_path: Path
) -> None:
    short = {"epochs": 1, "batch_size": 8, "image_size": 16, "model": "resnet10t", "device": "cpu"}
    train, evaluate = verbs.verb("train"), verbs.verb("evaluate")
    first = train(data=colour_folder, out=tmp_path / "first", **short)
    last = train(data=colour_folder, out=tmp_path / "last", train_on_val=True, **short)
    assert (last.train_images, last.val_images) == (first.train_images + first.val_images, 0)
    assert last.next == "gpt4image.evaluate(run_dir='" + str(tmp_path / "last") + "')"
    measured = [evaluate(tmp_path / name) for name in ("first", "last")]
    assert measured[0].images == measured[1].images == first.test_images
    assert "--train-on-val" in measured[0].text and "--train-on-val" not in measured[1].text
