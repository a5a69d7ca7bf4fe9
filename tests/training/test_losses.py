"""The loss of one batch: what the options of the alignment make of it, and that runs with them resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.config import TrainConfig
from gpt4image.training.train import train
from small_training import SMALL, resumed, same
from training_cases import losses_at, trainer_of

OPTIONS: dict[str, dict[str, Any]] = {
    "siglip": {"align_loss": "siglip", "mixup": 0.5},
    "cosine": {"align_loss": "cosine", "cutmix": 1.0, "head": "mlp-bn"},
    "paper": {"paper_compat": True, "mixup": 0.8, "head": "mlp"},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_options_train_and_resume_to_the_same_bits(
    changes: dict[str, Any], described: dict[str, Any], tmp_path: Path
) -> None:
    config = TrainConfig(**{**described, **changes})
    train(config)
    resumed(config, tmp_path / "broken", steps=5)
    assert same(described["out"], tmp_path / "broken")
    rows = runs.read_run(described["out"])["metrics"]
    assert all(np.isfinite(row["align_loss"]) for row in rows)


def test_the_official_code_does_not_mix_texts(described: dict[str, Any]) -> None:
    ours, official = (trainer_of(described, mixup=0.8, paper_compat=compat, head="linear") for compat in (False, True))
    official.model.load_state_dict(ours.model.state_dict())
    assert losses_at(ours).parts["task"] == losses_at(official).parts["task"]
    assert losses_at(ours).parts["align"] != losses_at(official).parts["align"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize(
    "model",
    [
        {"model": "resnet10t", "model_args": SMALL["model_args"]},
        {"model": "vit_tiny_patch16_224", "model_args": {"embed_dim": 16, "depth": 1, "num_heads": 2}},
    ],
    ids=["resnet", "vit"],
)
def test_a_compiled_model_has_the_losses_of_another(described: dict[str, Any], model: dict[str, Any]) -> None:
    plain, compiled = (trainer_of(described, compile=chosen, **model) for chosen in (False, True))
    first, second = losses_at(plain), losses_at(compiled)
    torch.testing.assert_close(second.total, first.total, rtol=1e-4, atol=1e-5)
    for losses in (first, second):
        losses.total.backward()
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)
