"""The optimiser of a run and its schedule: what decays, what learns faster, and the course of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, muon, param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, first_line
from gpt4image.config.learning import ResolvedOptions
from gpt4image.models.feature_heads import Tapped, classified, not_decayed
from gpt4image.parallel.devices import computes_bf16

_newton_schulz: Any = muon.zeropower_via_newtonschulz


def _orthogonal(update: Tensor, *args: Any, **options: Any) -> Tensor:
    """Compute in fp32 on CPUs that only emulate bf16, where steps of Muon took 35 times as long."""
    emulated = update.device.type == "cpu" and not computes_bf16("cpu")
    return _newton_schulz(update, *args, **options, **({"dtype": torch.float32} if emulated else {}))


muon.zeropower_via_newtonschulz = _orthogonal  # timm has no option for it


class Plain(nn.Module):
    """A backbone in the place of an Aligner: no text and no head takes part. It takes images, or kept features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Return logits (B, K) and None."""
        return classified(self.backbone, images), None

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay."""
        return not_decayed(self.backbone)


def make_optimizer(model: Plain | Tapped, config: ResolvedOptions, new_layers: Sequence[str]) -> torch.optim.Optimizer:
    """Return the optimiser of a run but that of its text encoder. Raises ConfigError: timm has none of its name."""
    try:
        optimizer: Any = create_optimizer_v2(
            parameter_groups(model, config, new_layers),
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            foreach=False if config.fsdp else None,  # at once, parameters in shards and whole ones cannot be stepped
        )
        if getattr(optimizer, "is_second_order", False) or type(optimizer).__name__ == "Kron":
            raise ValueError("it needs second derivatives, or a state that no checkpoint here holds")
    except (ValueError, AssertionError, ImportError) as error:
        raise ConfigError(
            f"--optimizer {config.optimizer} cannot be used: {first_line(error)}; see timm.optim.list_optimizers()."
        ) from None
    return optimizer


def parameter_groups(model: Plain | Tapped, config: ResolvedOptions, new_layers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the parameters of a run but those of a text encoder, with and without weight decay."""
    trained = nn.ModuleDict({name: child for name, child in model.named_children() if name != "texts"})
    decay = config.weight_decay
    groups = param_groups_weight_decay(trained, decay, no_weight_decay_list=model.no_weight_decay())
    if config.init == "scratch":
        return groups
    starts = tuple(f"{name}." for name in new_layers)
    given = {id(each) for name, each in model.backbone.named_parameters() if not f"{name}.".startswith(starts)}
    faster = {"lr_scale": config.new_layers_lr_scale}  # a key that the schedulers of timm know
    parts = [
        {**group, **more, "params": [each for each in group["params"] if (id(each) in given) is kept]}
        for kept, more in ((True, {}), (False, faster))
        for group in groups
    ]
    return [part for part in parts if part["params"]]


def cosine(optimizer: torch.optim.Optimizer, steps: int, warmup_fraction: float, lowest: float) -> CosineLRScheduler:
    """Return a learning rate that rises linearly to that of ``optimizer``, then falls to ``lowest`` as a cosine."""
    warmup = min(round(steps * warmup_fraction), steps - 1)
    return CosineLRScheduler(
        optimizer,
        t_initial=steps - warmup,
        lr_min=lowest,
        warmup_t=warmup,
        warmup_lr_init=optimizer.param_groups[0]["lr"] / max(warmup, 1),
        warmup_prefix=True,
        t_in_epochs=False,
        cycle_decay=0.5,  # of the second cycle, which there is none of; at 1 timm warns of schedules of one step
    )
