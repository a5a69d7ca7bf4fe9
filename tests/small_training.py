"""Small trainings for tests: their options, how one is stopped, and whether two runs have the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.base.outcome import Outcome
from gpt4image.config import TrainConfig
from gpt4image.models.weights import load_tensors
from gpt4image.training import loop
from gpt4image.training.train import train

SMALL: dict[str, Any] = {
    "model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}, "image_size": 16,
    "batch_size": 8, "epochs": 4, "threads": 1, "precision": "fp32", "memory_format": "channels_last",
}  # fmt: skip


def options(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": f"folder:{folder}", "out": out, **SMALL, **changes})


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run_dir / runs.MODEL)[0]


def same(first: Path, second: Path) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class StoppedError(Exception):
    pass


def resumed(config: TrainConfig, out: Path, steps: int) -> Outcome:
    """Train a run into ``out`` that stops after some steps and is gone on with; return its outcome."""
    own = config.model_copy(update={"out": out, "checkpoint_seconds": 0.0})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        stop_after(patch, steps)
        train(own)
    assert not runs.is_finished(out)
    return train(own.model_copy(update={"resume": True}))


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:

    real, count = loop.train_step, [0]

    def step(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] > steps:
            raise StoppedError
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", step)
