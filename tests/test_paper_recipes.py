"""The recipes of the paper: the models it names on the sets it names, with the schedules of its code."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3

from gpt4image.config import CompareConfig, TrainConfig
from gpt4image.data import load_dataset
from gpt4image.options import load_recipe
from gpt4image.training import auto
from gpt4image.training.trainer import EMA_WARMUP, make_backbone

FOLDER = Path(__file__).parents[1] / "recipes" / "paper"
SETS = {"": 1_281_167, "-cifar": 50_000}
# Millions of parameters with 1,000 classes and timm's own stem; published with each model.
MODELS = {"resnet18": 11.69, "resnet34": 21.80, "resnet50": 25.56, "resnet101": 44.55, "deit_tiny_patch16_224": 5.72,
          "deit_small_patch16_224": 22.05, "deit_base_patch16_224": 86.57, "convnext_tiny": 28.59,
          "convnext_small": 50.22, "convnext_base": 88.59}  # fmt: skip
# The arguments of the official code (resnet/main.py, deit/main.py, description2embedding.py; ConvNeXt's own main.py).
OF_TRANSFORMERS = {"epochs": 300, "optimizer": "adamw", "weight_decay": 0.05, "label_smoothing": 0.1, "mixup": 0.8,
                   "cutmix": 1.0, "erase": 0.25, "erase_with": "noise", "auto_augment": "rand-m9-mstd0.5-inc1",
                   "flip": True, "head": "mlp", "temperature": 0.05}  # fmt: skip
SCHEDULES: dict[str, dict[str, Any]] = {
    "resnet": {"epochs": 120, "optimizer": "momentum", "momentum": 0.9, "weight_decay": 1e-4, "warmup_epochs": 0,
               "min_lr": 1e-5, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "ema": 0.0, "drop_path": 0.0,
               "erase": 0.0, "auto_augment": None, "repeated_augmentation": 1, "flip": True, "head": "mlp-bn",
               "temperature": 0.2},
    "deit": OF_TRANSFORMERS | {"warmup_epochs": 5, "min_lr": 1e-5, "drop_path": 0.1, "repeated_augmentation": 3},
    "convnext": OF_TRANSFORMERS | {"warmup_epochs": 20, "min_lr": 1e-6, "repeated_augmentation": 1},
}  # fmt: skip
LR = {"resnet": 0.1 / 256, "deit": 5e-4 / 512, "convnext": 4e-3 / 4096}  # per image of a batch
AVERAGES = {"resnet": 0.0, "deit": 0.99996, "convnext": 0.9999}
BATCH = {"resnet": 4 * 256, "deit": 8 * 128, "convnext": 32 * 128}


def test_fine_grained_datasets_are_fine_tuned_with_the_alignment_of_the_paper() -> None:
    for name in ("resnet", "deit"):
        config = load_recipe(FOLDER / f"{name}-fine-grained.toml", CompareConfig, data="folder:x", out=Path("out"))
        expected = SCHEDULES[name]
        assert (config.arms, config.align_loss, config.align_weight) == ("baseline,aligned", "infonce", 0.3), name
        assert (config.head, config.temperature) == (expected["head"], expected["temperature"])
        assert (config.init, config.image_size, config.mixes) == ("pretrained", 224, False)


def memory(decay: float, steps_per_epoch: float) -> float:
    """Epochs that a moving average looks back on."""
    return 0.0 if decay == 0.0 else 1 / (1 - decay) / steps_per_epoch


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("images", SETS)
def test_the_schedule_is_that_of_the_official_code(images: str, name: str) -> None:
    recipe, given = FOLDER / f"{name}{images}.toml", {"data": "folder:x", "out": Path("out")}
    config, pair = load_recipe(recipe, TrainConfig, **given), load_recipe(recipe, CompareConfig, **given)
    assert (pair.arms, pair.seeds, config.init) == ("baseline,aligned", 3, "scratch")
    resolved, _ = auto.choose(config, load_dataset("openmoji"))
    expected = dict(SCHEDULES[name])
    assert resolved.warmup_fraction * resolved.epochs == pytest.approx(expected.pop("warmup_epochs"))  # pyright: ignore
    assert {key: getattr(resolved, key) for key in expected} == expected
    assert (resolved.align_loss, resolved.align_weight, resolved.select) == ("infonce", 0.3, "last")
    assert resolved.lr == pytest.approx(LR[name] * (resolved.batch_size or 0))
    assert resolved.drop_path == (0.1 if name == "convnext" else resolved.drop_path)
    if not images:
        assert (resolved.image_size, resolved.stem, resolved.min_scale) == (224, "standard", 0.08)
        assert auto.stored_size(resolved) == 256
        assert (resolved.batch_size, resolved.ema) == (BATCH[name], AVERAGES[name])
    else:
        assert (resolved.image_size, resolved.stem, resolved.min_scale) == (32, "small", 1.0)
        assert resolved.shift * 32 == 4
        asked = memory(AVERAGES[name], SETS[""] / BATCH[name])
        assert memory(resolved.ema, SETS[images] / 512) == pytest.approx(asked, rel=0.1)
    if resolved.ema:  # it is reached within the run
        steps = (resolved.epochs or 0) * round(0.98 * SETS[images] / (resolved.batch_size or 1))
        average = ModelEmaV3(torch.nn.Linear(1, 1), decay=resolved.ema, **EMA_WARMUP)
        assert average.get_decay(round(0.96 * steps)) == resolved.ema > average.get_decay(steps // 4)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_the_one_of_the_name(name: str) -> None:
    config = load_recipe(
        FOLDER / f"{re.match('[a-z]+', name)[0]}.toml", TrainConfig, data="x", out=Path("out"), model=name
    )
    with torch.device("meta"):
        backbone = make_backbone(config, 1000).module  # it runs a blank image of its size
    count = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert count == pytest.approx(MODELS[name], rel=1e-3)
