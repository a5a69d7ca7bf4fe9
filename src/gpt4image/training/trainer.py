"""The parts of one run, built from its options.

The last weights are kept by default: the best epoch on a small validation split is mostly noise.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.optim import create_optimizer_v2, muon, param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, first_line
from gpt4image.config.base import flag_of
from gpt4image.config.learning import OF_ALIGNMENT, ResolvedOptions, TrainOptions
from gpt4image.data import annotation
from gpt4image.data.pixels import KeptFeatures
from gpt4image.models.aligner import Aligner, Headed, freeze_all_but_classifier, freeze_stages, projection_head
from gpt4image.models.backbones import CLASSIFIER, Backbone, compile_training, create_backbone, load_own_layers
from gpt4image.models.hugging_face import OF_TRANSFORMERS
from gpt4image.models.stages import stages
from gpt4image.parallel import processes
from gpt4image.parallel.batch_layers import see_whole_batch
from gpt4image.parallel.devices import choose_device, computes_bf16, depthwise_in_fp32, memory_format_of
from gpt4image.tasks.base import Task
from gpt4image.training.augment import STRONG, Augmentation, CpuAugmentation, Policy
from gpt4image.training.batches import Batches, all_have_targets, make_batches
from gpt4image.training.objectives import VIEWS_HEAD, VIEWS_WIDTH, Objective, alignment, consistency, views
from gpt4image.training.training_data import TrainingData

JUDGES, FEWEST_JUDGES = 10, 20
"""One training image of so many, if these are at least so many, judges by its target where no label does."""

_newton_schulz: Any = muon.zeropower_via_newtonschulz


def _orthogonal(update: Tensor, *args: Any, **options: Any) -> Tensor:
    """Compute in fp32 on CPUs that only emulate bf16, where steps of Muon took 35 times as long."""
    emulated = update.device.type == "cpu" and not computes_bf16("cpu")
    return _newton_schulz(update, *args, **options, **({"dtype": torch.float32} if emulated else {}))


muon.zeropower_via_newtonschulz = _orthogonal  # timm has no option for it

# A moving average looks back on at most an eighth of the steps so far, until that is the memory that was asked for:
# one of 10,000 steps is reached after 80,000 (timm's default, a power of 2/3, needs a million).
EMA_WARMUP: dict[str, Any] = {"use_warmup": True, "warmup_gamma": 8.0, "warmup_power": 1.0}

GREY = 0.2
"""Share of the views without colours, of those that are compared (SimCLR, arXiv 2002.05709, appendix A)."""


@dataclass(kw_only=True)
class Trainer:
    """The parts of one run.

    ``model`` maps images to logits and image embeddings or None; a step calls ``parallel`` in its place, which averages
    gradients over processes. ``objectives`` are the terms of the loss beside the task's. ``best`` is the best
    validation score so far and its epoch, from 1, or 0 for the classifier that a run which ``starts_linear`` begins
    with; ``best_model`` holds it until then. ``judges`` are images of ``judges_of``.
    """

    config: ResolvedOptions
    data: TrainingData
    device: torch.device
    model: nn.Module
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: CosineLRScheduler
    ema: ModelEmaV3 | None
    best_model: nn.Module | None
    batches: Batches
    notes: tuple[str, ...]
    augmentation: Augmentation
    cpu_augmentation: CpuAugmentation | None
    steps_per_epoch: int
    objectives: tuple[Objective, ...]
    starts_linear: bool
    judges: NDArray[np.int64]
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, int] | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def backbone(self) -> nn.Module:
        """The backbone that is trained."""
        return self.model.get_submodule("backbone")

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def kept(self) -> nn.Module:
        """The model whose weights are written."""
        return self.modules["best"] if self.best else self.evaluated

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds: the model, its moving average and, with ``--select best``, the best so far."""
        found = {"model": self.model, "ema": None if self.ema is None else self.ema.module, "best": self.best_model}
        return {name: module for name, module in found.items() if module is not None}


def build(config: ResolvedOptions, data: TrainingData) -> Trainer:
    """Build a run from resolved options."""
    device = choose_device(config.device)
    batch_size, count = config.batch_size, len(data.indices("train"))
    torch.manual_seed(config.seed)
    model, notes, new_layers = _aligned_model(config, data)
    backbone = model.get_submodule("backbone")
    if config.compares_views:
        model.heads[VIEWS_HEAD] = projection_head("mlp-bn", model.feature_width, VIEWS_WIDTH)
    targeted, others = participants(config, data, aligned=isinstance(model, Aligner))
    starts_linear = bool(config.kept_stages) and isinstance(data.pixels, KeptFeatures)
    judges = judges_of(data, targeted) if starts_linear else targeted[:0]
    targeted = np.setdiff1d(targeted, judges)
    batches = make_batches(
        targeted,
        others,
        size=batch_size,
        labelled_share=config.labelled_share,
        seed=config.seed,
        repeats=config.repeated_augmentation,
        mixing=config.mixes,
        placing="on-top" if data.weak(others).any() else "apart" if config.consistency > 0.0 else "among",
    )
    batches = replace(batches, two_views=config.compares_views)
    if starts_linear:
        model.begin_behind(stages(backbone)[config.kept_stages - 1])
    parallel, ema, best_model = _placed(config, model, device, batches, copied=starts_linear)
    if config.compile:
        compile_training(backbone)
    steps_per_epoch = max(1, count // (batch_size * config.grad_accumulation))
    steps = steps_per_epoch * config.epochs
    optimizer = make_optimizer(model, config, new_layers)
    lowest = min(config.min_lr, config.lr)
    scheduler = cosine(optimizer, steps, config.warmup_fraction, lowest)
    augmentation = augmentation_of(config, backbone)
    objectives = list[Objective]()
    if isinstance(model, Aligner) and data.text is not None:
        objectives.append(alignment(data.text, model, config.align_weight))
    if config.consistency > 0.0:
        objectives.append(consistency(config.consistency, config.confidence, config.label_smoothing))
    if config.compares_views:
        objectives.append(views(config.temperature))
    return Trainer(
        config=config,
        data=data,
        device=device,
        model=model,
        parallel=parallel,
        optimizer=optimizer,
        scheduler=scheduler,
        ema=ema,
        best_model=best_model,
        batches=batches,
        notes=(*notes, *idle_options(config, data)),
        augmentation=augmentation,
        cpu_augmentation=cpu_augmentation_of(config, augmentation, batches, len(data.labels), others),
        steps_per_epoch=steps_per_epoch,
        objectives=tuple(objectives),
        starts_linear=starts_linear,
        judges=judges,
    )


def _aligned_model(config: ResolvedOptions, data: TrainingData) -> tuple[Headed, Sequence[str], Sequence[str]]:
    """Return the model with its projection head, notes, and the layers that start from random weights."""
    backbone, notes, new_layers = processes.on_all_ranks(lambda: make_model(config, data.task, data.classes))
    if data.text is None or not config.aligns:
        model = Headed(backbone)
    else:
        model = Aligner(
            backbone,
            data.text.width,
            head=config.head,
            loss=config.align_loss,
            temperature=config.temperature,
            bias=-math.log(max(config.batch_size - 1, 1)),  # the log odds of a pair taken at random
            paper_compat=config.paper_compat,
        )
    return model, notes, new_layers


def make_model(config: ResolvedOptions, task: Task, classes: Sequence[str]) -> Backbone:
    """Return the model of a task, its layers that start from random weights, and notes on its weights."""
    plain, notes, new_layers = make_backbone(config, task.outputs(classes))
    if config.freeze == "all":
        new_layers = freeze_all_but_classifier(plain, new_layers)
    elif config.kept_stages:
        freeze_stages(plain, config.kept_stages)
    model = task.model(plain, config.image_size)
    if model is not plain:
        own: Sequence[str] = [name for name, child in model.named_children() if child is not plain]
        if config.init not in ("scratch", "pretrained"):
            own = load_own_layers(model, Path(config.init))
        new_layers = (*(f"{CLASSIFIER}{name}" for name in new_layers), *own)
    return Backbone(model, notes, new_layers)


def _placed(
    config: ResolvedOptions, model: nn.Module, device: torch.device, batches: Batches, *, copied: bool
) -> tuple[nn.Module, ModelEmaV3 | None, nn.Module | None]:
    """Bring a model to its device; return what a step calls, moving average and best model."""
    see_whole_batch(model, device, *batches.seen(second=config.consistency > 0.0 or batches.two_views))
    model.to(device).to(memory_format=memory_format_of(config.memory_format))  # pyright: ignore[reportCallIssue]
    if device.type == "cpu" and config.precision == "bf16":
        depthwise_in_fp32(model)
    ema = None
    if config.ema > 0.0:
        ema = ModelEmaV3(model, decay=config.ema, **EMA_WARMUP)
    best_model = copy.deepcopy(model) if copied or config.select == "best" else None
    return processes.replicate(model, device), ema, best_model


def participants(
    config: ResolvedOptions, data: TrainingData, *, aligned: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training images with a target, and those without one, or with a weaker one, that a loss can use."""
    targeted, others = data.pools()
    if config.pretraining and not config.compares_views and data.text is not None:
        return targeted[data.text.described[targeted]], others
    if config.consistency > 0.0:
        if not len(others):
            raise ConfigError(all_have_targets(f"--consistency {config.consistency:g}", len(targeted)))
        return targeted, others
    used = data.weak(others)
    if aligned and data.text is not None:
        used = used | data.text.described[others]
    return targeted, others[used]


def judges_of(data: TrainingData, targeted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the images whose targets judge what is kept: those of the validation split, or a tenth of the training
    images, which no step then learns from. None where validation images have labels, or where they are few.
    """
    val = data.indices("val")
    if annotation.known(data.all_labels[val]).any():
        return val[:0]
    if len(found := val[data.has_target(val)]):
        return found
    order = np.argsort(np.array(data.image_set.digests)[targeted], kind="stable")
    return np.sort(targeted[order[: len(targeted) // JUDGES if len(targeted) >= FEWEST_JUDGES * JUDGES else 0]])


def cpu_augmentation_of(
    config: ResolvedOptions, augmentation: Augmentation, batches: Batches, count: int, others: NDArray[np.int64]
) -> CpuAugmentation | None:
    """Return what is made of pixels before the device gets them: second views of ``others``, and --auto-augment."""
    consistent = config.consistency > 0.0
    if config.auto_augment is None and not consistent and not batches.two_views:
        return None
    second = np.full(count, batches.two_views)
    second[others] |= consistent
    return CpuAugmentation(
        how=augmentation,
        policy=None if config.auto_augment is None else Policy(config.auto_augment, augmentation.mean),
        strong=Policy(STRONG, augmentation.mean) if consistent else None,
        second=second,
        seed=config.seed,
        total=batches.size,
        rows=torch.from_numpy(batches.rows),
        two_views=batches.two_views,
    )


def make_backbone(config: ResolvedOptions, outputs: int) -> Backbone:
    """Return the plain model of a configuration, untrained or as ``--init`` says, and notes on its weights."""
    over_time = config.model.startswith(OF_TRANSFORMERS) and config.frames is not None
    frames = {"num_frames": config.frames} if over_time else {}
    return create_backbone(
        config.model,
        classes=outputs,
        image_size=config.image_size,
        stem="small" if config.stem == "small" else "standard",
        init=config.init,
        model_args=config.model_args | frames,
        drop_path=config.drop_path,
        task=config.task,
    )


def augmentation_of(config: ResolvedOptions, backbone: nn.Module) -> Augmentation:
    """Return what is done to batches; images are normalised as timm says the model expects."""
    expects: Any = getattr(backbone, "pretrained_cfg", {})
    mean, std = expects.get("mean", IMAGENET_DEFAULT_MEAN), expects.get("std", IMAGENET_DEFAULT_STD)
    names = ("flip", "shift", "min_scale", "colour", "erase", "erase_with")
    own: dict[str, Any] = {name: getattr(config, name) for name in names}
    own |= {"mean": tuple(mean), "std": tuple(std), "grey": GREY if config.compares_views else 0.0}
    return Augmentation(size=config.image_size, **own)


def idle_options(config: ResolvedOptions, data: TrainingData) -> tuple[str, ...]:
    """Return a sentence for each reason why options that are not at their default have no effect in a run."""
    changed = TrainOptions.changed(dict(config))
    aligned = data.text is not None and (config.aligns or config.align_weight == 0.0)
    of_views = {"temperature"} if config.compares_views else set[str]()
    unread = "" if data.text is not None else " (--embeddings names the texts)"
    alone = "labelled_share" in changed and not len(data.pools()[1])  # looked up only if asked: it reads all targets
    reasons = {
        f"no features are aligned to texts{unread}": () if aligned else OF_ALIGNMENT - of_views,
        "its texts say next to nothing of these classes": {"targets"} if data.from_text is None else (),
        "crops of --min-scale take its place": {"shift"} if config.min_scale < 1.0 and config.shift > 0.0 else (),
        "--init scratch has only new layers": {"new_layers_lr_scale"} if config.init == "scratch" else (),
        f"--task {data.task.name} has no labels to smooth": () if data.task.smooths else {"label_smoothing"},
        "no pixels are erased (--erase)": {"erase_with"} if config.erase == 0.0 else (),
        "there is no --consistency": {"confidence"} if config.consistency == 0.0 else (),
        "all training images have a target": {"labelled_share"} if alone else (),
    }
    found = {why: [flag_of(name) for name in sorted(changed) if name in names] for why, names in reasons.items()}
    return tuple(f"{', '.join(flags)}: no effect, since {why}." for why, flags in found.items() if flags)


def make_optimizer(model: Headed, config: ResolvedOptions, new_layers: Sequence[str]) -> torch.optim.Optimizer:
    """Return the optimiser of a run. Raises ConfigError: timm has none of its name."""
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        model, config.weight_decay, no_weight_decay_list=model.no_weight_decay()
    )
    if config.init != "scratch":
        starts = tuple(f"{name}." for name in new_layers)
        given = {id(each) for name, each in model.backbone.named_parameters() if not f"{name}.".startswith(starts)}
        faster = {"lr_scale": config.new_layers_lr_scale}  # a key that the schedulers of timm know
        groups = [
            {**group, **more, "params": own}
            for kept, more in ((True, {}), (False, faster))
            for group in groups
            if (own := [each for each in group["params"] if (id(each) in given) is kept])
        ]
    try:
        optimizer: Any = create_optimizer_v2(
            groups, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        if getattr(optimizer, "is_second_order", False) or type(optimizer).__name__ == "Kron":
            raise ValueError("it needs second derivatives, or a state that no checkpoint here holds")
    except (ValueError, AssertionError, ImportError) as error:
        raise ConfigError(
            f"--optimizer {config.optimizer} cannot be used: {first_line(error)}; see timm.optim.list_optimizers()."
        ) from None
    return optimizer


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
