"""The training loop: one function per concern, steps that depend on nothing but seed and number.

Every step draws its randomness from (seed, step) alone, so a run resumed from a checkpoint at any step goes on exactly
as if it had never stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from gpt4image import runs
from gpt4image.augment import Augmentation, train_batch
from gpt4image.batches import Batches, make_batches
from gpt4image.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from gpt4image.config import TrainOptions
from gpt4image.devices import autocast, choose_device, memory_format_of, peak_memory_bytes, probe, reset_peak_memory
from gpt4image.errors import ConfigError, TrainingError
from gpt4image.files import append_json_line, write_json_lines
from gpt4image.interrupts import deferred_interrupt
from gpt4image.mixing import make_mixup, mix
from gpt4image.models import Aligner, Backbone, create_backbone
from gpt4image.predictions import predict
from gpt4image.tasks.classification import measure, soft_cross_entropy
from gpt4image.training_data import TrainingData

BEST_FILE = "best.safetensors"
VALIDATIONS = 10
OnStep = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class Trainer:
    """The parts of one run. ``model`` maps images to (logits, image embeddings or None)."""

    config: TrainOptions
    data: TrainingData
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: CosineLRScheduler
    ema: ModelEmaV3 | None
    batches: Batches
    notes: tuple[str, ...]
    augmentation: Augmentation
    steps_per_epoch: int
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * (self.config.epochs or 0)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        return {"model": self.model} | ({} if self.ema is None else {"ema": self.ema.module})


class Plain(nn.Module):
    """A backbone in the place of an Aligner: no text takes part."""

    def __init__(self, backbone: nn.Module) -> None:
        """Wrap ``backbone``, which returns logits."""
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Return logits (B, K) and None."""
        return self.backbone(images), None


# ---------------------------------------------------------------------------------------------------------------------
# Building


def build(config: TrainOptions, data: TrainingData) -> Trainer:
    """Build a run from resolved options.

    The backbone is made first, from the seed alone: arms that differ in the text start from the same weights.

    Raises:
        ConfigError, DataError, ModelError: options that do not fit each other or the data.
    """
    device = choose_device(config.device)
    batch_size, count = config.batch_size or 0, len(data.indices("train"))
    mixes = config.mixup > 0.0 or config.cutmix > 0.0
    if mixes and batch_size % 2:
        raise ConfigError(f"--mixup and --cutmix mix pairs: --batch-size {batch_size} must be even.")
    torch.manual_seed(config.seed)
    backbone, notes = make_backbone(config, len(data.classes))
    model: nn.Module = Plain(backbone)
    if data.text is not None and config.align_weight > 0.0:
        model = Aligner(
            backbone, data.text.width, head=config.head, loss=config.align_loss, temperature=config.temperature
        )
    model.to(device).to(memory_format=memory_format_of(config.memory_format))  # pyright: ignore[reportCallIssue]
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=config.optimizer or "",
            lr=config.lr,
            weight_decay=config.weight_decay or 0.0,
            momentum=config.momentum,
        )
    except ValueError as error:
        raise ConfigError(f"--optimizer {config.optimizer}: {error}; see timm.optim.list_optimizers().") from None
    steps_per_epoch = max(1, count // (batch_size * config.grad_accumulation))
    steps = steps_per_epoch * (config.epochs or 0)
    warmup = min(round(steps * config.warmup_fraction), steps - 1)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=steps - warmup,
        lr_min=min(config.min_lr, config.lr or config.min_lr),
        warmup_t=warmup,
        warmup_lr_init=(config.lr or 0.0) / max(warmup, 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )
    targeted, others = data.pools()
    return Trainer(
        config=config,
        data=data,
        device=device,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        ema=ModelEmaV3(model, decay=config.ema, use_warmup=True) if config.ema > 0.0 else None,
        batches=make_batches(
            targeted,
            others if isinstance(model, Aligner) else others[:0],
            size=batch_size,
            labelled_share=config.labelled_share,
            seed=config.seed,
        ),
        notes=notes,
        augmentation=augmentation_of(config, backbone),
        steps_per_epoch=steps_per_epoch,
    )


def make_backbone(config: TrainOptions, classes: int) -> Backbone:
    """Return the plain model of a configuration, untrained or as ``--init`` says, and notes on its weights."""
    return create_backbone(
        config.model or "",
        classes=classes,
        image_size=config.image_size or 0,
        stem="small" if config.stem == "small" else "standard",
        init=config.init,
        model_args=config.model_args,
        drop_path=config.drop_path,
    )


def augmentation_of(config: TrainOptions, backbone: nn.Module) -> Augmentation:
    """Return what is done to batches; images are normalised as timm says the model expects."""
    expects: Any = getattr(backbone, "pretrained_cfg", {})
    return Augmentation(
        size=config.image_size or 0,
        flip=config.flip,
        shift=config.shift,
        min_scale=config.min_scale,
        colour=config.colour,
        erase=config.erase,
        mean=tuple(expects.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(expects.get("std", (0.229, 0.224, 0.225))),
    )


def choose_precision(config: TrainOptions, data: TrainingData) -> tuple[str, str, dict[str, float]]:
    """Return the fastest precision and memory format for a run, and the seconds per step of each that was tried."""
    device = choose_device(config.device)
    trainers: dict[str, Trainer] = {}
    targeted, _ = data.pools()
    images = np.resize(targeted, config.batch_size or 1)
    batch = next(iter(data.pixels.stream([images])))

    def step(precision: str, memory_format: str) -> None:
        tried = config.model_copy(update={"precision": precision, "memory_format": memory_format, "ema": 0.0})
        key = f"{precision} {memory_format}"
        if key not in trainers:
            trainers.clear()
            trainers[key] = build(tried, data)
        train_step(trainers[key], 0, 0, *[batch] * config.grad_accumulation)

    return probe(step, device, config.precision, config.memory_format)


# ---------------------------------------------------------------------------------------------------------------------
# One step


def seed_step(seed: int, step: int) -> None:
    """Seed torch (augmentation, dropout, stochastic depth) and numpy (timm's mixup) for one step."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.manual_seed(state)
    np.random.seed(state)


def forward_losses(trainer: Trainer, images: NDArray[np.int64], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the task loss and the alignment loss (0 without text) of one batch.

    Args:
        trainer: the run.
        images: (B,) positions of the images in the set.
        pixels: (B, 3, S, S) uint8.
    """
    config, device = trainer.config, trainer.device
    inputs = train_batch(pixels.to(device, non_blocking=True), trainer.augmentation, torch.default_generator)
    broken = torch.from_numpy(trainer.data.pixels.broken(images)).to(device)
    targets = trainer.data.class_targets(images).to(device).masked_fill(broken[:, None], 0.0)
    matrix: Tensor | None = None
    if (mixup := make_mixup(config.mixup, config.cutmix, len(images))) is not None:
        inputs, matrix = mix(mixup, inputs)
        targets = matrix @ targets
    with autocast(device, config.precision):
        inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        logits, image_emb = trainer.model(inputs)
    task = soft_cross_entropy(logits, targets, config.label_smoothing)
    if image_emb is None or trainer.data.text is None:
        return task, torch.zeros((), device=device)
    text_emb, described, identity = (part.to(device) for part in trainer.data.text.take(images))
    same_text = identity[:, None] == identity[None, :]
    aligner: Any = trainer.model
    align = aligner.alignment_loss(image_emb, text_emb, target=matrix, described=described & ~broken, exclude=same_text)
    return task, align


def train_step(trainer: Trainer, step: int, epoch: int, *pixels: Tensor) -> tuple[float, float]:
    """Make optimiser step ``step`` (from 0) and return the mean task and alignment loss.

    Args:
        trainer: the run.
        step: number of the step in the run.
        epoch: named in the error message.
        pixels: (B, 3, S, S) uint8 of each accumulated batch.

    Raises:
        TrainingError: a loss is not finite; the weights are as before the step.
    """
    config = trainer.config
    seed_step(config.seed, step)
    trainer.model.train()
    trainer.scheduler.step_update(step)
    total = torch.zeros(2)
    for part, batch in enumerate(pixels):
        images = trainer.batches.batch(step * config.grad_accumulation + part)
        task, align = forward_losses(trainer, images, batch)
        losses = torch.stack([task.detach(), align.detach()]).float().cpu()
        if not bool(losses.isfinite().all()):
            trainer.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"The loss is not finite at step {step} (epoch {epoch + 1}): task loss {float(losses[0])}, alignment "
                f"loss {float(losses[1])}. Lower --lr {config.lr:g}, set --clip-grad 1, or try --precision fp32."
            )
        ((task + config.align_weight * align) / len(pixels)).backward()
        total += losses / len(pixels)
    if config.clip_grad is not None:
        nn.utils.clip_grad_norm_(trainer.model.parameters(), config.clip_grad)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.ema is not None:
        trainer.ema.update(trainer.model, step=step)
    return float(total[0]), float(total[1])


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation


def validate(trainer: Trainer) -> dict[str, Any] | None:
    """Measure the validation split; None where it has no labelled image."""
    data = trainer.data
    indices = data.indices("val")
    labels = data.image_set.labels[indices]
    if not (labels >= 0).any():
        return None
    backbone: Any = trainer.evaluated.backbone
    facts = measure(predict(backbone, data, indices, trainer.augmentation, trainer.config), labels, data.classes)
    return {"top1": facts["top1"], "loss": facts["loss"]}


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def fit(trainer: Trainer, out: Path, *, on_step: OnStep, checkpoint_seconds: float) -> dict[str, Any]:
    """Train from the last checkpoint in ``out``, or from the start, to the end, and write the weights.

    Returns:
        The facts of run.json: seconds, steps, images_per_second, parameters, peak_memory_bytes.

    Raises:
        TrainingError: the loss is not finite.
        KeyboardInterrupt: after a checkpoint, where Ctrl-C asked for it.
    """
    checkpoint = out / runs.CHECKPOINT
    reset_peak_memory(trainer.device)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": [], "best": -1.0, "epoch_losses": []}
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint, trainer.modules, trainer.optimizer)
    trainer.history, trainer.best = state["history"], state["best"]
    write_json_lines(out / runs.METRICS, trainer.history)
    begin, epoch_losses, earlier = state["step"], state["epoch_losses"], state["seconds"]
    started = saved = time.monotonic()

    def save(step: int) -> None:
        now = {"step": step, "seconds": earlier + time.monotonic() - started, "history": trainer.history}
        save_checkpoint(
            checkpoint, trainer.modules, trainer.optimizer, now | {"best": trainer.best, "epoch_losses": epoch_losses}
        )

    accumulation = trainer.config.grad_accumulation
    numbers = range(begin * accumulation, trainer.steps * accumulation)
    stream = iter(trainer.data.pixels.stream(trainer.batches.batch(number) for number in numbers))
    with deferred_interrupt() as interrupt:
        for step in range(begin, trainer.steps):
            epoch = step // trainer.steps_per_epoch
            losses = train_step(trainer, step, epoch, *(next(stream) for _ in range(accumulation)))
            epoch_losses.append(losses)
            on_step(step + 1, trainer.steps, f"loss {losses[0]:.3f}" + (f" align {losses[1]:.3f}" if losses[1] else ""))
            if (step + 1) % trainer.steps_per_epoch == 0:
                end_epoch(trainer, out, epoch, epoch_losses, earlier + time.monotonic() - started)
                epoch_losses = []
            if interrupt.requested:
                save(step + 1)
                raise KeyboardInterrupt
            if time.monotonic() - saved >= checkpoint_seconds:
                save(step + 1)
                saved = time.monotonic()
    seconds = earlier + time.monotonic() - started
    save_weights(trainer, out)
    checkpoint.unlink(missing_ok=True)
    images = trainer.steps * accumulation * (trainer.config.batch_size or 0)
    return {
        "seconds": round(seconds, 3),
        "steps": trainer.steps,
        "images_per_second": round(images / max(seconds, 1e-9), 1),
        "parameters": sum(p.numel() for p in trainer.evaluated.backbone.parameters()),  # type: ignore[union-attr]
        "peak_memory_bytes": peak_memory_bytes(trainer.device),
    }


def end_epoch(trainer: Trainer, out: Path, epoch: int, losses: list[tuple[float, float]], seconds: float) -> None:
    """Validate where it is due, note the epoch in metrics.jsonl and keep the best weights."""
    config = trainer.config
    last, due = epoch + 1 == config.epochs, math.ceil((config.epochs or 1) / VALIDATIONS)
    val = validate(trainer) if last or (epoch + 1) % due == 0 else None
    task, align = np.mean(losses, axis=0).tolist()
    aligned = isinstance(trainer.model, Aligner)
    row = {
        "epoch": epoch + 1,
        "step": (epoch + 1) * trainer.steps_per_epoch,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "loss": task + config.align_weight * align,
        "task_loss": task,
        "align_loss": align if aligned else None,
        "val": val,
        "seconds": round(seconds, 3),
    }
    trainer.history.append(row)
    append_json_line(out / runs.METRICS, row)
    if config.select == "best" and val is not None and val["top1"] > trainer.best:
        trainer.best = val["top1"]
        save_tensors(out / BEST_FILE, trainer.evaluated.state_dict())


def save_weights(trainer: Trainer, out: Path) -> None:
    """Write the plain backbone, and the projection head beside it."""
    model = trainer.evaluated
    if (out / BEST_FILE).is_file():
        from gpt4image.checkpoint import load_tensors

        model = copy.deepcopy(model)
        model.load_state_dict(load_tensors(out / BEST_FILE)[0])
        (out / BEST_FILE).unlink()
    backbone: Any = model.backbone
    if isinstance(model, Aligner):
        save_tensors(out / runs.HEAD, model.head.state_dict())
    save_tensors(out / runs.MODEL, backbone.state_dict())
