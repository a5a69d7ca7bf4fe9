"""Trackers get what metrics.jsonl gets: the real ones, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, MissingExtraError
from gpt4image.base.files import read_json_lines
from gpt4image.cli import main
from gpt4image.config import TrainConfig
from gpt4image.training import train as training
from gpt4image.training.train import check_trackers, tracked

ROW: dict[str, Any] = {"epoch": 1, "step": 4, "loss": 0.5, "align_loss": None, "val": {"top1": 0.25}}


def trained(colour_folder: Path, tmp_path: Path, tracker: str, **environment: str) -> list[dict[str, Any]]:
    """Train two epochs in a process of its own, so that what a tracker warns of is its own, and return the rows."""
    words = f"train --data folder:{colour_folder} --model resnet10t --image-size 16 --batch-size 8 --epochs 2 --out run"
    small = ["--model-args", '{"channels": [8, 8, 16, 16], "stem_width": 8}', "--precision", "fp32"]
    result = subprocess.run(
        [sys.executable, "-m", "gpt4image", *words.split(), *small, "--threads", "1", "--track", tracker],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    assert " stops: " not in result.stderr
    return read_json_lines(tmp_path / "run" / runs.METRICS)


@pytest.mark.slow
def test_every_tracker_shows_every_epoch(colour_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = tmp_path / "mlruns"
    environment = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": store.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio")}
    rows = trained(colour_folder, tmp_path, "tensorboard,wandb,mlflow,trackio", **environment)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in ("loss", "val/top1")}
    assert shown["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    assert shown["val/top1"] == [(row["step"], pytest.approx(row["val"]["top1"])) for row in rows]
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"val/top1" in log.read_bytes()
    (losses,) = store.glob("*/*/metrics/loss")
    values = [line.split() for line in losses.read_text(encoding="utf-8").splitlines()]
    assert [(int(step), float(value)) for _, value, step in values] == [(row["step"], row["loss"]) for row in rows]
    assert list((tmp_path / "trackio").glob("gpt4image*.db"))


def test_a_tracker_that_fails_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def log(self, values: dict[str, float], step: int) -> None:
            raise OSError("no space left")

    seen: list[tuple[dict[str, float], int]] = []

    class Working:
        def log(self, values: dict[str, float], step: int) -> None:
            seen.append((values, step))

        def finish(self) -> None:
            seen.append(({}, 0))
            raise OSError("the server is gone")

    def offline() -> None:
        raise RuntimeError("no API key")

    kinds: dict[str, Any] = {"trackio": offline, "wandb": Broken, "mlflow": Working}
    monkeypatch.setattr(training, "_started", lambda name, out, record: kinds[name]())
    with tracked(("trackio", "wandb", "mlflow"), tmp_path, {}) as on_epoch:
        on_epoch(ROW)
        on_epoch(ROW)
    errors = capsys.readouterr().err
    assert errors.count("--track trackio stops: no API key") == errors.count("--track wandb stops: no space left") == 1
    assert "--track mlflow stops: the server is gone" in errors
    numbers = {"epoch": 1, "step": 4, "loss": 0.5, "val/top1": 0.25}
    assert seen == [(numbers, 4), (numbers, 4), ({}, 0)]


def test_mistakes_are_named_before_the_run(
    monkeypatch: pytest.MonkeyPatch, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        TrainConfig(data="openmoji", out=Path("run"), track="tensorboard,wandbd")
    assert TrainConfig(data="openmoji", out=Path("run"), track=" wandb, wandb").trackers == ("wandb",)
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[trackio\]"):
        check_trackers(["trackio"])
    for command in ("train", "compare"):
        words = f"{command} --data folder:{colour_folder} --out run --track mlflow"
        assert main(words.split()) == 2
        assert "[mlflow]'" in capsys.readouterr().err
