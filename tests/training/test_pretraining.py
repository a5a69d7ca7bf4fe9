"""Learning without labels, from the first step to fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, RunError
from gpt4image.config import CompareConfig, EvaluateConfig, ExportConfig, PredictConfig, ReportConfig, TrainConfig
from gpt4image.models.weights import load_tensors
from gpt4image.training.loop import batch_losses, pixels_of, seed_step, validate
from gpt4image.training.train import train
from gpt4image.training.trainer import Trainer
from small_training import resumed, same, weights
from training_cases import trainer_of

CASES = ["simclr", "captions", "simclr,captions"]


def asked(worded: dict[str, Any], objectives: str, **changes: Any) -> dict[str, Any]:
    own = {} if "captions" in objectives else {"embeddings": None}
    return worded | {"task": "pretrain", "pretrain": objectives, "epochs": 2} | own | changes


def losses(trainer: Trainer) -> dict[str, float]:
    seed_step(0, 0, trainer.device)
    (pixels,) = pixels_of(trainer, range(1))
    found = batch_losses(trainer, 0, trainer.batches.batch(0), pixels)
    return {name: value.item() for name, value in {**found.parts, "total": found.total}.items()}


@pytest.mark.parametrize("objectives", CASES)
def test_the_loss_is_that_of_the_objectives_alone(objectives: str, worded: dict[str, Any]) -> None:
    found = losses(trainer_of(asked(worded, objectives)))
    names = {"captions": "align"}
    own = [found.pop(names.get(name, name)) for name in objectives.split(",")]
    assert all(value > 0 for value in own)
    assert found.pop("total") == pytest.approx(sum(own))
    assert found == {"task": 0}


def test_two_views_of_all_images_are_seen_and_they_differ(worded: dict[str, Any]) -> None:
    trainer = trainer_of(asked(worded, "simclr"))
    assert (trainer.config.min_scale, trainer.config.colour, trainer.augmentation.grey) == (0.2, 0.4, 0.2)
    seen: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    losses(trainer)
    first, second = seen[0].chunk(2)
    assert len(first) == trainer.config.batch_size
    assert all(not torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert trainer_of(asked(worded, "captions")).augmentation.grey == 0.0
    given = trainer_of(asked(worded, "simclr", min_scale=0.9, colour=0.0)).config
    assert (given.min_scale, given.colour) == (0.9, 0.0)


@pytest.mark.parametrize("objectives", CASES)
def test_the_loss_of_held_out_images_is_the_same_each_time(objectives: str, worded: dict[str, Any]) -> None:
    trainer = trainer_of(asked(worded, objectives))
    found = validate(trainer)
    assert found is not None and found["pretraining_loss"] == found["loss"] > 0
    torch.rand(7)
    assert validate(trainer) == found


@pytest.mark.parametrize("objectives", ["simclr,captions", "captions"])
def test_it_learns_and_resumes_mid_epoch_to_the_same_bits(
    objectives: str, worded: dict[str, Any], tmp_path: Path
) -> None:
    options = asked(worded, objectives, ema=0.5, auto_augment="rand-m9-mstd0.5-inc1")
    config = TrainConfig(**options | {"out": tmp_path / "whole"})
    outcome = train(config)
    assert outcome.summary["labelled"] == 0 and outcome.summary["val_pretraining_loss"] > 0
    resumed(config, tmp_path / "broken", steps=6)
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert not any("heads" in name for name in weights(tmp_path / "whole"))


def test_images_without_any_label_are_enough(worded: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(worded["data"].removeprefix("folder:"))
    for path in sorted(folder.rglob("*.png")):
        (folder / "unlabelled").mkdir(exist_ok=True)
        path.rename(folder / "unlabelled" / f"{path.parent.name}-{path.name}")
    for name in ("blue", "green", "red"):
        (folder / name).rmdir()
    (folder / "unlabelled" / "red-03.png").write_bytes(b"no picture")
    outcome = train(TrainConfig(**asked(worded, "simclr", out=tmp_path / "run", memory_limit_gb=0.0, workers=1)))
    assert [item.name for item in outcome.skipped] == ["unlabelled/red-03.png"]
    assert outcome.summary["val_pretraining_loss"] > 0


@pytest.fixture
def pretrained(worded: dict[str, Any], tmp_path: Path) -> Path:
    """A finished run with captions, and its report."""
    train(TrainConfig(**asked(worded, "simclr,captions", out=tmp_path / "pretrained")))
    return tmp_path / "pretrained"


def test_fine_tuning_starts_from_its_weights_and_a_probe_leaves_them(
    pretrained: Path, worded: dict[str, Any], tmp_path: Path
) -> None:
    init = str(pretrained / runs.MODEL)
    named = {"model": None, "model_args": {}, "image_size": None}  # the weights say which
    fresh = worded | {"embeddings": None, "epochs": 1, "optimizer": "adamw", "lr": 0.01}
    train(TrainConfig(**fresh | {"out": tmp_path / "scratch"}))
    train(TrainConfig(**fresh | named | {"out": tmp_path / "tuned", "init": init}))
    train(TrainConfig(**fresh | named | {"out": tmp_path / "probe", "init": init, "freeze": True}))
    first = {name: runs.read_run(tmp_path / name)["metrics"][0]["loss"] for name in ("scratch", "tuned", "probe")}
    assert len(set(first.values())) == 3
    given, probe, tuned = (
        load_tensors(path / runs.MODEL)[0] for path in (pretrained, tmp_path / "probe", tmp_path / "tuned")
    )
    classifier = {"fc.weight", "fc.bias"}
    assert {name for name in given if name not in classifier and not torch.equal(given[name], probe[name])} == set()
    assert not torch.equal(given["conv1.0.weight"], tuned["conv1.0.weight"])
    assert probe["fc.weight"].shape[0] == 3 and probe["fc.weight"].any()


def test_what_needs_predictions_is_refused_with_the_way_on(pretrained: Path, worded: dict[str, Any]) -> None:
    from gpt4image.deploying.export import export
    from gpt4image.deploying.predict import predict
    from gpt4image.evaluating.evaluate import evaluate
    from gpt4image.reporting.report import report

    picture = next(Path(worded["data"].removeprefix("folder:")).rglob("*.png"))
    for stage in (
        lambda: evaluate(EvaluateConfig(run_dir=pretrained)),
        lambda: export(ExportConfig(run_dir=pretrained, format="timm", out=pretrained.with_name("timm"))),
        lambda: predict(PredictConfig(model=pretrained, images=(str(picture),))),
    ):
        with pytest.raises(RunError, match=r"--task pretrain, so it predicts nothing. Fine-tune .* --init .*--freeze"):
            stage()
    page = report(ReportConfig(dir=pretrained)).path
    text = page.read_text(encoding="utf-8")
    assert "learned without labels: its loss on the validation pictures ended at" in text
    assert "SimCLR" in text and "alignment" in text and "%</text>" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain": "simclr,colours"}, "'colours' is not known|colours"),
        ({"pretrain": ""}, "name at least one of simclr"),
        ({"pretrain": "captions"}, "learns from descriptions: give their --embeddings"),
        ({"pretrain": "simclr", "embeddings": Path("t")}, "reads no description: add captions"),
        ({"mixup": 0.2, "consistency": 1.0}, "has no use for --consistency, --mixup"),
        ({"targets": Path("t.parquet")}, "has no use for --targets"),
        ({"freeze": True, "init": "pretrained"}, "has no use for --freeze"),
        ({"task": "auto", "freeze": True}, "--freeze keeps weights as they are: name them by --init"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"data": "x", "out": tmp_path, "task": "pretrain", **changes})


def test_runs_without_predictions_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="makes no predictions to compare"):
        CompareConfig(data="x", out=tmp_path, task="pretrain")
