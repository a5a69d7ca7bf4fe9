"""Which parameters decay, and which learn faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from torch import nn

from gpt4image.config import TrainConfig
from gpt4image.models.backbones import create_backbone, load_own_layers
from gpt4image.training import optimizers
from gpt4image.training.optimizers import Plain, parameter_groups
from small_training import SMALL
from training_cases import trainer_of


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"align_weight": 0.0}], ids=["aligned", "plain"])
def test_weight_decay_spares_what_the_backbone_says(
    changes: dict[str, Any], optimizer: str, described: dict[str, Any]
) -> None:
    vit = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
    trainer = trainer_of(described, **vit, optimizer=optimizer, weight_decay=0.1, **changes)
    decay = {
        id(p): group["weight_decay"] for group in trainer.optimizers["optimizer"].param_groups for p in group["params"]
    }
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
        found = {id(p): group["lr"] for group in trainer.optimizers["optimizer"].param_groups for p in group["params"]}
        return {name: found[id(parameter)] for name, parameter in trainer.model.named_parameters()}

    for step, rate in ((trainer.steps // 20, 0.02), (trainer.steps, 0.01)):
        trainer.schedulers[0].step_update(step)
        assert {name: value / (5.0 if name in new else 1.0) for name, value in rates().items()} == pytest.approx(
            dict.fromkeys(rates(), rate), rel=0.01
        )
    scratch = trainer_of(described, optimizer=optimizer, new_layers_lr_scale=5.0, **changes)
    assert all("lr_scale" not in group for group in scratch.optimizers["optimizer"].param_groups)


class Scaled(nn.Module):
    """A model of one's own: a backbone, and a parameter outside of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))


def test_a_parameter_outside_of_layers_starts_anew_alone(tmp_path: Path) -> None:
    file, model = tmp_path / "model.safetensors", Scaled()
    save_file({"backbone.weight": torch.zeros(2, 2)}, file)
    new = load_own_layers(model, file)
    assert new == ("scale",)
    config = TrainConfig(data="d", out=tmp_path / "run", init=str(file), weight_decay=0.1, new_layers_lr_scale=5.0)
    groups = parameter_groups(Plain(model), config, new)  # type: ignore[arg-type]
    scales = {id(parameter): group.get("lr_scale", 1.0) for group in groups for parameter in group["params"]}
    assert {name: scales[id(each)] for name, each in model.named_parameters()} == {
        "scale": 5.0,
        "backbone.weight": 1.0,
        "backbone.bias": 1.0,
    }


@pytest.mark.parametrize(("native", "computed"), [(True, torch.bfloat16), (False, torch.float32)])
def test_muon_computes_in_bf16_only_where_the_cpu_does(
    native: bool, computed: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    whole = optimizers._newton_schulz

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        found = whole(*args, **options)
        seen.append(found.dtype)
        return found

    monkeypatch.setattr(optimizers, "_newton_schulz", watched)
    monkeypatch.setattr(optimizers, "computes_bf16", lambda _: native)
    weight = nn.Parameter(torch.ones(8, 4, 3, 3))  # smaller matrices learn by AdamW
    weight.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    create_optimizer_v2([weight], opt="muon", lr=0.1).step()
    assert seen == [computed]
