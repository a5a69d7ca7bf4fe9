"""Video: a class that only the order of frames tells is learned, and every stage knows clips."""

import csv
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt4image
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.base.files import read_json, read_parquet
from gpt4image.config import TrainConfig
from gpt4image.data import load_dataset
from gpt4image.tasks.classification import Video
from gpt4image.tasks.registry import find_task, task_of
from gpt4image.training.prepare import prepare
from worlds import sound, write_dots

SMALL: dict[str, Any] = {
    "model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}, "stem": "small",
    "image_size": 16, "batch_size": 16, "flip": False, "val_fraction": 0.0, "device": "cpu", "precision": "fp32",
    "threads": 1, "memory_format": "contiguous",
}  # fmt: skip


@pytest.fixture(scope="session")
def dots(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    return once("dots", lambda folder: write_dots(folder / "clips")) / "clips"


def test_clips_are_of_this_task_and_others_refuse_them(dots: Path, colour_folder: Path) -> None:
    clips, options = load_dataset(f"clips:{dots}"), TrainConfig(data="", out=Path())
    assert task_of(clips, options).name == "video"
    shuffled = TrainConfig(data="", out=Path(), frames=3, frame_order="shuffled")
    assert find_task("video", shuffled) == Video(3, "shuffled")
    assert find_task("video", TrainConfig(data="", out=Path(), frame_differences=True)) == Video(differences=True)
    for alone in ({"frames": 1}, {"model": "transformers:folder"}):
        with pytest.raises(ConfigError, match="frame_differences needs"):
            TrainConfig(data="", out=Path(), frame_differences=True, **alone)
    with pytest.raises(ConfigError, match="memory_format = channels_last is for models of timm"):
        TrainConfig(data="", out=Path(), model="transformers:folder", memory_format="channels_last")
    for data, task, message in (
        (f"clips:{dots}", "classification", "give --task video"),
        (f"folder:{colour_folder}", "video", "give --data clips:PATH"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(TrainConfig(data=data, out=Path(), task=task))
    with pytest.raises(DataError, match="takes one"):
        Video().require(np.zeros((2, 3), np.int8), ("a", "b", "c"), "clips:x")


@pytest.mark.slow
def test_what_only_time_tells_is_learned_and_not_from_one_frame(dots: Path, tmp_path: Path) -> None:
    found: dict[str, float] = {}
    for name, order, epochs in (("moving", None, 25), ("still", "still", 5)):
        run = tmp_path / name
        gpt4image.train(data=f"clips:{dots}", out=run, epochs=epochs, frame_order=order, **SMALL)
        found[name] = gpt4image.evaluate(run_dir=run).scores["top1"]
    assert found["moving"] > 0.9
    assert found["still"] < 0.75


@pytest.fixture(scope="session")
def run(dots: Path, once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    def train(folder: Path) -> None:
        gpt4image.train(data=f"clips:{dots}", out=folder / "run", epochs=2, frames=4, frame_differences=True, **SMALL)
        gpt4image.evaluate(run_dir=folder / "run")

    return once("run-of-clips", train) / "run"


def test_a_run_records_its_frames_and_is_reported(run: Path, dots: Path) -> None:
    config = read_json(run / "config.json")
    assert (config["task"], config["frames"]) == ("video", 4)
    assert read_parquet(run / "predictions-test.parquet").num_rows == 24
    gpt4image.report(dir=run)
    assert "top1" in (run / "evaluation-test.json").read_text()
    assert (run / "report.html").stat().st_size > 10_000


def test_predict_names_what_is_no_video(run: Path, dots: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sound.mp4").write_bytes(sound())
    (tmp_path / "more" / "picture.png").write_bytes(b"no")
    outcome = gpt4image.predict(
        model=run, images=[str(dots / "test" / "left"), str(tmp_path / "more")], out=tmp_path / "p.csv"
    )
    assert [Path(item.name).name for item in outcome.skipped] == ["sound.mp4"]
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 12
    with pytest.raises(DataError, match="No image is found"):
        gpt4image.predict(model=run, images=[str(tmp_path / "more" / "*.none")], out=tmp_path / "q.csv")


@pytest.mark.slow
def test_an_export_takes_clips_and_agrees_with_the_run(
    run: Path, dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = gpt4image.export(run_dir=run, format="onnx", out=tmp_path / "m")
    assert outcome.checked_on.startswith("24 images")
    card = (tmp_path / "m" / "README.md").read_text()
    assert "float32 (N, 4, 3, 16, 16)" in card and "video-classification" in card
    for model, out in ((run, "run.jsonl"), (tmp_path / "m", "onnx.jsonl")):
        gpt4image.predict(model=model, images=[str(dots / "test")], out=tmp_path / out, top=2)
    names = ("run.jsonl", "onnx.jsonl")
    one, other = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in names)
    assert [row["image"] for row in one] == [row["image"] for row in other]
    best, same = (rows[0]["predictions"][0]["probability"] for rows in (one, other))
    assert best == pytest.approx(same, abs=1e-4)
    monkeypatch.setattr(sys, "argv", ["example.py", one[0]["image"]])
    found = runpy.run_path(str(tmp_path / "m" / "example.py"))
    assert max(found["probabilities"]) == pytest.approx(best, abs=1e-3)
