"""The loop: steps, checkpoints on the way, and losses that are not finite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.artifacts.weights import load_tensors
from gpt4image.base.errors import TrainingError
from gpt4image.training import loop
from gpt4image.training.train import train
from small_training import StoppedError, options, same, stop_after


def test_saving_takes_a_small_part_of_the_time(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[float] = []

    def slowly(*_: Any) -> None:
        saves.append(time.monotonic())
        time.sleep(0.1)

    monkeypatch.setattr(loop, "save_checkpoint", slowly)
    started = time.monotonic()
    train(options(colour_folder, tmp_path / "run", epochs=30, checkpoint_seconds=1e-9))
    assert 1 <= len(saves) <= 1 + (time.monotonic() - started) / (loop.SAVING * 0.1)


def test_what_fails_after_the_last_step_costs_no_step(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt4image.training import train as stage

    def fails(*_: Any) -> None:
        raise StoppedError

    changes: dict[str, Any] = {"epochs": 2, "select": "best", "checkpoint_seconds": 0.0}
    monkeypatch.setattr(stage, "data_facts", fails)
    with pytest.raises(StoppedError):
        train(options(colour_folder, tmp_path / "run", **changes))
    monkeypatch.undo()
    stop_after(monkeypatch, 0)
    train(options(colour_folder, tmp_path / "run", **changes, resume=True))
    monkeypatch.undo()
    train(options(colour_folder, tmp_path / "whole", **changes))
    assert same(tmp_path / "whole", tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*best*"), *(tmp_path / "run").glob(runs.CHECKPOINT)]


def test_a_loss_that_is_not_finite_stops_before_the_step(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt4image.tasks import classification

    real = classification.soft_cross_entropy
    calls = [0]

    def poisoned(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        return real(*arguments) * (float("nan") if calls[0] == 7 else 1.0)

    monkeypatch.setattr(classification, "soft_cross_entropy", poisoned)
    with pytest.raises(TrainingError, match=r"not finite at step 6 \(epoch 2\): total nan, task nan"):
        train(options(colour_folder, tmp_path / "run", checkpoint_seconds=0.0))
    tensors, _ = load_tensors(tmp_path / "run" / runs.CHECKPOINT)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize(("again", "kept"), [((0.1, 0.15), 1), ((0.25, 0.1), 2)])
def test_best_weights_are_those_of_the_epochs_that_the_curve_holds(
    again: tuple[float, float], kept: int, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.9, *again])  # the second epoch is lost after its weights were written; it is trained again
    monkeypatch.setattr(loop, "validate", lambda _: {"top1": next(values), "loss": 1.0})
    weights: dict[float, Any] = {}
    real = loop.end_epoch

    def killed(trainer: Any, *rest: Any) -> Any:
        row = real(trainer, *rest)
        weights[row["val"]["top1"]] = {k: v.clone() for k, v in trainer.evaluated.backbone.state_dict().items()}
        if row["val"]["top1"] == 0.9:
            raise RuntimeError("killed")
        return row

    monkeypatch.setattr(loop, "end_epoch", killed)
    config = options(colour_folder, tmp_path / "run", epochs=3, select="best", checkpoint_seconds=0.0)
    with pytest.raises(RuntimeError, match="killed"):
        train(config)
    train(config.model_copy(update={"resume": True}))
    curve = [row["val"]["top1"] for row in runs.read_run(tmp_path / "run")["metrics"]]
    assert curve == [0.2, *again]
    found, _ = load_tensors(tmp_path / "run" / runs.MODEL)
    assert all(torch.equal(found[name], value) for name, value in weights[curve[kept - 1]].items())
    assert not list((tmp_path / "run").glob("*best*"))
