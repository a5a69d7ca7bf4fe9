"""Predictions in batches: each image gets its own row, whatever its place and whatever batches there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt4image.artifacts import runs
from gpt4image.config import CompareConfig, EvaluateConfig, TrainConfig
from gpt4image.data.pixels import MemoryPixels
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.models.weights import load_tensors
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training import run_model as predictions
from gpt4image.training.run_model import images_at_once, outputs, predict
from gpt4image.training.train import train
from small_models import small_resnet
from training_cases import trainer_of


def test_rows_are_those_of_their_images_in_batches_of_any_size(
    described: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(described, align_weight=0.0)
    indices = np.array([7, 3, 3, 40, 0, 12, 5])
    arguments = trainer.augmentation, trainer.config
    whole = predict(trainer.model.backbone, trainer.data, indices, *arguments)  # type: ignore[arg-type]
    assert whole.shape == (7, 3) and np.allclose(whole.sum(axis=1), 1.0, atol=1e-6)
    assert np.array_equal(whole[1], whole[2])
    monkeypatch.setattr(predictions, "EVAL_BATCH", 2)
    small = predict(trainer.model.backbone, trainer.data, indices, *arguments)  # type: ignore[arg-type]
    assert np.allclose(small, whole, atol=1e-5)
    (one,) = predict(trainer.model.backbone, trainer.data, indices[3:4], *arguments)  # type: ignore[arg-type]
    assert np.allclose(one, whole[3], atol=1e-5)


def test_large_images_go_in_smaller_batches_and_no_image_needs_no_model(described: dict[str, Any]) -> None:
    trainer = trainer_of(described, align_weight=0.0)
    seen: list[int] = []

    def read(inputs: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(inputs))
        return (inputs.mean(dim=(1, 2, 3)),)

    at_once = images_at_once(trainer.data.task, 3, predictions.EVAL_SIZE * 8)
    outputs(read, trainer.data.pixels, np.arange(9), trainer.augmentation, trainer.config, at_once)
    assert seen == [4, 4, 1]
    empty = predict(torch.nn.Identity(), trainer.data, np.arange(0), trainer.augmentation, trainer.config)
    assert empty.shape == (0, 3)


@pytest.mark.parametrize(
    ("task", "classes", "size", "count"),
    [
        (Classification(), 150, 64, 256),
        (Classification(), 150, 448, 64),
        (Segmentation(), 8, 224, 32),
        (Segmentation(), 150, 448, 1),
        (Video(8), 150, 224, 32),
    ],
)
def test_masks_of_many_classes_and_clips_of_many_frames_go_in_smaller_batches(
    task: Task, classes: int, size: int, count: int
) -> None:
    assert images_at_once(task, classes, size) == count


@pytest.fixture
def options(colour_folder: Path, tmp_path: Path) -> dict[str, Any]:
    save_file(small_resnet(seed=1).state_dict(), tmp_path / "given.safetensors")
    own = {"model": "test_resnet", "stem": "small", "image_size": 32, "epochs": 2, "batch_size": 8, "seed": 0}
    exact = {"precision": "fp32", "memory_format": "contiguous", "device": "cpu"}
    return {
        "data": f"folder:{colour_folder}",
        "init": str(tmp_path / "given.safetensors"),
        "freeze": True,
        **own,
        **exact,
    }


def test_features_computed_once_make_the_same_model_as_features_of_each_step(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = MemoryPixels.take
    monkeypatch.setattr(MemoryPixels, "take", lambda self, rows: [taken.append(len(rows)), take(self, rows)][1])
    train(TrainConfig(**options, out=tmp_path / "kept"))
    once = sum(taken)
    monkeypatch.setattr(predictions, "_stays", lambda *_: False)
    train(TrainConfig(**options, out=tmp_path / "anew"))
    assert once < sum(taken) - once, "each image went through the body once"
    kept, anew = (load_tensors(tmp_path / name / runs.MODEL)[0] for name in ("kept", "anew"))
    assert kept.keys() == anew.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, anew[name], rtol=1e-4, atol=1e-5)
    scores = [runs.read_run(tmp_path / name)["metrics"][-1]["val"] for name in ("kept", "anew")]
    assert scores[0]["top1"] == scores[1]["top1"] and np.isclose(scores[0]["loss"], scores[1]["loss"], rtol=1e-4)
    assert "top1" in evaluate(EvaluateConfig(run_dir=tmp_path / "kept")).summary
    config = runs.read_config(tmp_path / "kept")
    assert (config["flip"], config["shift"]) == (False, 0.0) and {"flip", "shift"} <= config["chosen"].keys()


def test_runs_of_a_comparison_share_their_features(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt4image.comparing.compare import run_job
    from gpt4image.comparing.planning import make_plan

    computed: list[int] = []
    compute = predictions._features
    monkeypatch.setattr(predictions, "_features", lambda *given: [computed.append(1), compute(*given)][1])
    given = {**options, "arms": "baseline,oracle", "labels_per_class": 2, "seeds": 2, "out": tmp_path / "compared"}
    del given["seed"]
    plan = make_plan(CompareConfig(**given))
    for job in plan.jobs:
        run_job(job, lambda *_: None)
    assert len(plan.jobs) == 4 and len(computed) == 1
    job = plan.jobs[0].config.out
    measured = runs.read_evaluation(job / "evaluation-test.json")["top1"]
    (job / "evaluation-test.json").unlink()
    run_job(plan.jobs[0], lambda *_: None)  # by its pixels
    assert runs.read_evaluation(job / "evaluation-test.json")["top1"] == measured


@pytest.mark.parametrize("more", [{"colour": 0.2}, {"flip": True}, {"mixup": 0.2}, {"auto_augment": "rand-m5"}])
def test_what_changes_pixels_runs_the_body_in_each_step(
    more: dict[str, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_features", lambda *_: pytest.fail("kept"))
    train(TrainConfig(**options | more | {"epochs": 1}, out=tmp_path / "run"))
