"""The loss of one batch: what the options of the alignment make of it, and that runs with them resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpt4image.artifacts import runs
from gpt4image.config import TrainConfig
from gpt4image.data import load_image_set
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone
from gpt4image.training.losses import batch_losses, seed_step
from gpt4image.training.prepare import prepare
from gpt4image.training.train import train
from gpt4image.training.trainer import Trainer, build
from small_training import SMALL, StoppedError, same, stop_after
from tables import make_table

WIDTH = 6


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a run on images with two texts each, that follow the class, and a few images without label or text."""
    (colour_folder / "unlabelled").mkdir()
    for path in sorted((colour_folder / "red").iterdir())[:4]:
        path.rename(colour_folder / "unlabelled" / path.name)
    images = load_image_set(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    names = np.eye(len(images.classes) + 1, WIDTH)
    vectors = {
        digest: [names[label] + 0.3 * rng.normal(size=WIDTH) for _ in range(2)]
        for digest, label in zip(images.digests, images.labels, strict=True)
    }
    make_table(tmp_path / "table", dict(list(vectors.items())[3:]))
    return {"data": f"folder:{colour_folder}", "embeddings": tmp_path / "table", "out": tmp_path / "run", **SMALL}


def trainer_of(described: dict[str, Any], **changes: Any) -> Trainer:
    ready = prepare(TrainConfig(**{**described, **changes}))
    return build(ready.config, ready.data)


def losses_at(trainer: Trainer, step: int = 0) -> Any:
    seed_step(0, step)
    images = trainer.batches.batch(step)
    pixels = next(iter(trainer.data.pixels.stream([images])))
    trainer.model.train()
    return batch_losses(trainer, step, images, pixels)


OPTIONS: dict[str, dict[str, Any]] = {
    "siglip": {"align_loss": "siglip", "learn_temperature": True, "texts": "sample", "mixup": 0.5},
    "masked": {"same_class": "masked", "centre": "all", "adaptive_weight": True},
    "cosine": {"align_loss": "cosine", "weight_until": 0.5, "cutmix": 1.0, "head": "mlp-bn"},
    "paper": {"paper_compat": True, "mixup": 0.8, "head": "mlp"},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_options_train_and_resume_to_the_same_bits(
    changes: dict[str, Any], described: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TrainConfig(**{**described, **changes}))
    stop_after(monkeypatch, steps=5)
    broken = {**described, **changes, "out": tmp_path / "broken"}
    with pytest.raises(StoppedError):
        train(TrainConfig(**broken, checkpoint_seconds=0.0))
    monkeypatch.undo()
    train(TrainConfig(**broken, resume=True))
    assert same(described["out"], tmp_path / "broken")
    rows = runs.read_run(described["out"])["metrics"]
    assert all(np.isfinite(row["align_loss"]) for row in rows)


def test_what_is_learned_beside_weights_has_no_weight_decay(described: dict[str, Any]) -> None:
    trainer = trainer_of(described, align_loss="siglip", learn_temperature=True, weight_decay=0.1)
    assert isinstance(trainer.model, Aligner)
    learned = {id(parameter) for parameter in trainer.model.alignment.parameters()}
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(learned) == 2
    assert {decay[parameter] for parameter in learned} == {0.0}
    start = trainer.model.alignment.bias
    assert start.item() == pytest.approx(-np.log(SMALL["batch_size"] - 1))
    losses_at(trainer).total.backward()
    assert start.grad.item() != 0.0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"align_weight": 0.0}], ids=["aligned", "plain"])
def test_weight_decay_spares_what_the_backbone_says(
    changes: dict[str, Any], optimizer: str, described: dict[str, Any]
) -> None:
    vit = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
    trainer = trainer_of(described, **vit, optimizer=optimizer, weight_decay=0.1, **changes)
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    found = {name: decay[id(parameter)] for name, parameter in trainer.model.named_parameters()}
    spared = {name.removeprefix("backbone.") for name, value in found.items() if not value}
    backbone = trainer.model.backbone
    assert {"pos_embed", "cls_token"} == set(backbone.no_weight_decay()) & spared
    assert found["backbone.blocks.0.attn.qkv.weight"] == 0.1 and "blocks.0.attn.qkv.bias" in spared


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"align_weight": 0.0}], ids=["aligned", "plain"])
def test_layers_that_start_anew_learn_faster_than_given_weights(
    changes: dict[str, Any], optimizer: str, described: dict[str, Any], tmp_path: Path
) -> None:
    start = create_backbone(SMALL["model"], classes=7, image_size=16, stem="small", model_args=SMALL["model_args"])
    save_file(start.module.state_dict(), tmp_path / "start.safetensors")
    given = {"init": str(tmp_path / "start.safetensors"), "optimizer": optimizer, "lr": 0.02, "min_lr": 0.01}
    trainer = trainer_of(described, **given, new_layers_lr_scale=5.0, **changes)
    new = {name for name, _ in trainer.model.named_parameters() if not name.startswith("backbone.")}
    assert bool(new) == (not changes)
    new |= {"backbone.fc.weight", "backbone.fc.bias"}

    def rates() -> dict[str, float]:
        found = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
        return {name: found[id(parameter)] for name, parameter in trainer.model.named_parameters()}

    for step, rate in ((trainer.steps // 20, 0.02), (trainer.steps, 0.01)):
        trainer.scheduler.step_update(step)
        assert {name: value / (5.0 if name in new else 1.0) for name, value in rates().items()} == pytest.approx(
            dict.fromkeys(rates(), rate), rel=0.01
        )
    scratch = trainer_of(described, optimizer=optimizer, new_layers_lr_scale=5.0, **changes)
    assert all("lr_scale" not in group for group in scratch.optimizer.param_groups)


def test_labels_reach_the_alignment(described: dict[str, Any]) -> None:
    values = {
        policy: losses_at(trainer_of(described, same_class=policy)).parts["align"].item()
        for policy in ("negative", "masked")
    }
    assert values["masked"] < values["negative"]


def test_centres_come_from_training_images(described: dict[str, Any]) -> None:
    plain, centred = trainer_of(described), trainer_of(described, centre="all")
    train_images = plain.data.indices("train")
    text = plain.data.text
    assert text is not None
    vectors, has, _ = text.take(train_images)
    assert np.allclose(centred.data.text.centre, vectors[has].mean(dim=0), atol=1e-5)  # type: ignore[union-attr]


def test_texts_are_drawn_anew_at_each_step_and_again_for_the_same_step(described: dict[str, Any]) -> None:
    mean, sample = trainer_of(described), trainer_of(described, texts="sample")
    assert losses_at(sample, 1).parts["align"] == losses_at(sample, 1).parts["align"]
    assert losses_at(sample, 1).parts["align"] != losses_at(mean, 1).parts["align"]


def test_the_adaptive_weight_makes_gradients_at_the_features_as_long(described: dict[str, Any]) -> None:
    trainer = trainer_of(described, adaptive_weight=True, align_weight=0.5)
    found: dict[str, torch.Tensor] = {}

    def keep(_module: Any, _inputs: Any, outputs: Any) -> None:
        found["features"] = outputs[2]

    trainer.model.register_forward_hook(keep)
    losses = losses_at(trainer)
    task, whole = (
        torch.autograd.grad(loss, found["features"], retain_graph=True)[0]
        for loss in (losses.parts["task"], losses.total)
    )
    assert (whole - task).norm().item() == pytest.approx(0.5 * task.norm().item(), rel=1e-3)


def test_without_texts_the_options_change_nothing(described: dict[str, Any]) -> None:
    without = {**described, "embeddings": None}
    plain = losses_at(trainer_of(without)).total
    changed = losses_at(trainer_of(without, weight_until=0.5, centre="all", texts="sample")).total
    assert torch.equal(plain, changed)


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
    options = {**model, "adaptive_weight": True}
    plain, compiled = (trainer_of(described, compile=chosen, **options) for chosen in (False, True))
    first, second = losses_at(plain), losses_at(compiled)
    torch.testing.assert_close(second.total, first.total, rtol=1e-4, atol=1e-5)
    for losses in (first, second):
        losses.total.backward()
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)
