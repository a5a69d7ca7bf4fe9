"""The training loop: steps that depend on nothing but seed and number.

Every step draws its randomness only from (seed, step), so a run resumed from a checkpoint at any step goes on exactly
as if it had never stopped.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.artifacts import runs
from gpt4image.artifacts.probabilities import take
from gpt4image.base.errors import DamagedError, ModelError, RunError, TrainingError
from gpt4image.base.files import append_json_line, remove_unfinished, write_json_lines
from gpt4image.base.interrupts import deferred_interrupt
from gpt4image.config.learning import ResolvedOptions
from gpt4image.data import annotation
from gpt4image.data.geometry import Geometry
from gpt4image.data.pixels import KeptFeatures
from gpt4image.models.aligner import Headed, scale_classifier
from gpt4image.models.weights import load_tensors, save_tensors
from gpt4image.parallel import processes
from gpt4image.parallel.devices import autocast, memory_format_of, peak_memory_bytes, reset_peak_memory
from gpt4image.tasks.base import Predictions
from gpt4image.tasks.decision import Decision
from gpt4image.training.augment import mix, normalised, random_geometry, recoloured
from gpt4image.training.linear_start import features_of, fit_classifier, limits, loss_by_targets
from gpt4image.training.objectives import Batch, Outputs
from gpt4image.training.rejecting import rejecting
from gpt4image.training.run_model import predict
from gpt4image.training.trainer import Trainer

VALIDATIONS = 10
FEW, SAME = 8, 1e-3
"""Images on which a temperature in the weights is tried, and by how much probabilities may differ from what it says."""
SAVING = 20
"""Training goes on for at least this many times as long as the last checkpoint took, before the next."""
Modules = Mapping[str, nn.Module]
OPTIMIZER = "optimizer"  # its part in a checkpoint
OnStep = Callable[[int, int, str], None]
MayStop = Callable[[Mapping[str, Any]], bool | None]


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed torch (augmentation, dropout, stochastic depth) and numpy (timm's mixup) for one step on ``device``."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(state)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(state)
    np.random.seed(state)


def batch_losses(trainer: Trainer, number: int, images: NDArray[np.int64], pixels: Tensor) -> dict[str, Tensor]:
    """Return the scalar that is minimised for a batch, as ``total``, and its unweighted parts by name."""
    config, device, data = trainer.config, trainer.device, trainer.data
    size, views = len(images), np.tile(images, 2) if trainer.batches.two_views else images
    broken = torch.from_numpy(data.pixels.broken(views)).to(device)
    one, two = torch.arange(size), torch.arange(0)
    if trainer.cpu_augmentation is not None:
        one, two = trainer.cpu_augmentation.split(images)
    inputs, geometry = inputs_of(trainer, pixels.to(device, non_blocking=True), number, images)
    targets = data.task.without_target(data.targets(images, geometry).to(device), broken[:size])
    mixing: Tensor | None = None
    if config.mixes:
        mixing = mix(inputs[:size], one, config.mixup, config.cutmix)
        targets = (mixing @ targets.flatten(1)).view_as(targets)
    second = two[:0] if trainer.batches.two_views else two  # they are in the batch itself
    batch = Batch(images=views, broken=broken, mixing=mixing, second=second.to(device))
    outputs = outputs_of(trainer, batch, inputs)
    task = data.task.loss(outputs.task, targets, config.label_smoothing)
    losses = {"total": task, "task": task}
    for objective in trainer.objectives:
        own = objective.loss(batch, outputs)
        losses[objective.name] = own
        losses["total"] = losses["total"] + objective.weight * own
    return losses


def outputs_of(trainer: Trainer, batch: Batch, inputs: Tensor) -> Outputs:
    """Return the outputs of the model for the inputs of a batch: (B + U, 3, T, T) float32."""
    config, size = trainer.config, len(batch.images)
    with autocast(trainer.device, config.precision):
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=memory_format_of(config.memory_format))
        found, embeddings, *more = trainer.parallel(inputs)
    return Outputs(
        task=found[:size],
        second=found[size:],
        embeddings=None if embeddings is None else embeddings[:size],
        heads=more[0] if more else {},
    )


def inputs_of(
    trainer: Trainer, pixels: Tensor, number: int, images: NDArray[np.int64]
) -> tuple[Tensor, Geometry | None]:
    """Return the inputs of one batch, (B, 3, T, T) float32, then the second views; and the geometry of the former."""
    if pixels.is_floating_point():  # what layers that stay as they are make of them
        return pixels.float(), None
    how, rng = trainer.augmentation, trainer.batches.rng(torch.default_generator)
    if trainer.cpu_augmentation is None:
        geometry = random_geometry(pixels.shape[-1], how, rng, torch.from_numpy(trainer.data.weak(images)))
        return recoloured(geometry.pixels(pixels), how, rng), geometry
    size, two = len(images), trainer.cpu_augmentation.split(images)[1]
    geometry = trainer.cpu_augmentation.geometry(trainer.data.pixels.size, number)
    inputs = recoloured(pixels[:size], how, rng)
    if trainer.batches.two_views:
        return torch.cat([inputs, recoloured(pixels[size:], how, rng)]), geometry
    if trainer.cpu_augmentation.strong is None:
        return inputs, geometry
    inputs[two] = normalised(pixels[two] / 255.0, how)  # the first view of these is a weak one: moved, and no more
    strong = replace(how, colour=0.0, erase=1.0, erase_with="mean")  # FixMatch ends every strong view with Cutout
    return torch.cat([inputs, recoloured(pixels[size:], strong, rng.of(two))]), geometry


def train_step(trainer: Trainer, step: int, epoch: int, *pixels: Tensor) -> dict[str, float]:
    """Make optimiser step ``step`` (from 0) and return the mean of each part of the loss, and of the whole (total)."""
    trainer.scheduler.step_update(step)
    means = gradient_of_step(trainer, step, epoch, *pixels)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.ema is not None:
        trainer.ema.update(trainer.model, step=step)
    return means


def gradient_of_step(trainer: Trainer, step: int, epoch: int, *pixels: Tensor) -> dict[str, float]:
    """Leave in the parameters the gradient of the mean loss of a step; return what ``train_step`` does."""
    config = trainer.config
    seed_step(config.seed, step, trainer.device)
    trainer.model.train()
    if config.freeze != "none":
        trainer.backbone.eval()  # statistics of batch norm are weights too
    means: dict[str, float] = {}
    for part, batch in enumerate(pixels):
        number = step * config.grad_accumulation + part
        images = trainer.batches.batch(number)
        with processes.averaging(trainer.parallel, last=part + 1 == len(pixels)):
            losses = batch_losses(trainer, number, images, batch)
            values = require_finite(trainer, step, epoch, losses)
            (losses["total"] / len(pixels)).backward()
        for name, value in values.items():
            means[name] = means.get(name, 0.0) + value / len(pixels)
    return means


def require_finite(trainer: Trainer, step: int, epoch: int, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the losses by name as numbers."""
    values = torch.stack([loss.detach() for loss in losses.values()]).double().cpu()
    found = dict(zip(losses, values.tolist(), strict=True))
    finite = bool(values.isfinite().all())
    if trainer.config.paper_compat:
        finite = not processes.any_rank(not finite)[0]
    if finite:
        return found
    parts = ", ".join(f"{name} {value}" for name, value in found.items())
    advice = (
        ". It is the alignment, so raise --temperature" if math.isfinite(found["task"]) and "align" in found else ""
    )
    raise _diverged(trainer.config, f"The loss is not finite at step {step} (epoch {epoch + 1}): {parts}{advice}")


def _diverged(config: ResolvedOptions, what: str) -> TrainingError:
    return TrainingError(f"{what}. Lower --lr {config.lr:g}, or try --precision fp32.")


def pixels_of(trainer: Trainer, numbers: range) -> Iterator[Tensor]:
    """Yield the pixels of the batches of a run: uint8 (B, 3, S, S), or the views of them where there are some."""
    batches, pixels = map(trainer.batches.batch, numbers), trainer.data.pixels
    if isinstance(pixels, KeptFeatures):
        return pixels.drawn(batches, trainer.config.seed, numbers.start)
    return pixels.stream(batches, trainer.cpu_augmentation, numbers.start)


def validate(trainer: Trainer) -> dict[str, float]:
    """Return scores of the validation images by metric; none where no image tells."""
    data, task = trainer.data, trainer.data.task
    indices = data.indices("val")
    if trainer.config.pretraining:
        return held_out_loss(trainer, indices)
    if not len(indices) or not annotation.known(data.all_labels[indices]).any():
        return {}
    predictions, seen = predictions_of(trainer, trainer.evaluated, indices)
    labels = data.all_labels[seen]
    if not annotation.known(labels).any():
        return {}
    measured = task.measure(predictions, labels, data.classes)
    return {name: measured[name] for name in (task.primary.name, "loss") if measured.get(name) is not None}


def predictions_of(
    trainer: Trainer, model: nn.Module, indices: NDArray[np.int64]
) -> tuple[Predictions, NDArray[np.int64]]:
    """Return predictions for images, and of which: without those that cannot be decoded.

    Raises TrainingError: predictions are not finite.
    """
    found = predict(cast("Headed", model), trainer.data, indices, trainer.augmentation, trainer.config)
    if not np.isfinite(found).all():
        raise _diverged(trainer.config, "Predictions for the validation images are not finite")
    seen = trainer.data.without_met().usable[indices]
    return take(found, seen), indices[seen]


def decide(trainer: Trainer) -> Decision:
    """Return what the validation images, or the judges, speak for; the weights that are kept get its temperature.

    An image without a label speaks by its target of a teacher. A model whose last layer is not linear keeps its logits.
    """
    data, task, kept = trainer.data, trainer.data.task, cast("Headed", trainer.kept)
    judged = len(trainer.judges) > 0
    if trainer.config.pretraining:
        return Decision()
    found, seen = predictions_of(trainer, kept, trainer.judges if judged else data.indices("val"))
    if not len(seen):
        return Decision()
    labels = (data.labels if judged else data.all_labels)[seen]
    temperature = task.temperature(found, labels, None if data.soft is None else data.soft[seen])
    if set(temperature) != {1.0}:
        sure = task.calibrated(found, temperature)
        scale_classifier(kept.backbone, [1 / each for each in temperature])
        scaled, _ = predictions_of(trainer, kept, seen[:FEW])
        if np.abs(scaled - sure[:FEW]).max() <= SAME:
            found = sure
        else:
            scale_classifier(kept.backbone, temperature)
            temperature = (1.0,)
    return replace(task.decide(found, labels), temperature=temperature)


def held_out_loss(trainer: Trainer, indices: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean loss of images that no step learns from, of a run without labels."""
    config, data = trainer.config, trainer.data
    if not config.compares_views and data.text is not None:
        indices = indices[data.text.described[indices]]
    if not len(indices):
        return {}
    batches = np.resize(indices, (-(-len(indices) // trainer.batches.size), trainer.batches.size))
    own = [batch[trainer.batches.rows] for batch in batches]
    measured = replace(trainer, parallel=trainer.evaluated)
    trainer.evaluated.eval()
    found: list[float] = []
    with torch.no_grad():
        for number, pixels in enumerate(data.pixels.stream(own, trainer.cpu_augmentation, 0)):
            seed_step(config.seed, number, trainer.device)
            found.append(float(batch_losses(measured, number, own[number], pixels)["total"]))
    loss = float(np.mean(found))
    return {data.task.primary.name: loss, "loss": loss}


def fit(
    trainer: Trainer, out: Path, on_step: OnStep, on_epoch: MayStop, checkpoint_seconds: float, *, explain: bool = False
) -> dict[str, Any]:
    """Train from the last checkpoint in ``out``, or from the start, to the end, and write the weights.

    ``explain`` adds what limits the model, where features are kept.
    """
    checkpoint = out / runs.CHECKPOINT
    reset_peak_memory(trainer.device)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": [], "best": None, "epoch_losses": []}
    state |= {"set_aside": [], "limits": None}
    if processes.broadcast(checkpoint.is_file()):
        state = processes.on_all_ranks(lambda: load_checkpoint(checkpoint, trainer.modules, trainer.optimizer))
    elif trainer.starts_linear or (explain and isinstance(trainer.data.pixels, KeptFeatures)):
        features = features_of(trainer)
        state["limits"] = limits(trainer, features) if explain else None
        state["history"] = [_linear_epoch(trainer, features)] if trainer.starts_linear else []
    trainer.history = state["history"]
    trainer.best = tuple(state["best"]) if state["best"] else None
    processes.on_rank0(lambda: write_json_lines(out / runs.METRICS, trainer.history))
    processes.on_rank0(lambda: _sweep(out))
    begin, epoch_losses, earlier = state["step"], state["epoch_losses"], state["seconds"]
    started = saved = time.monotonic()

    def skipped() -> list[dict[str, str]]:
        """Return the images that could not be used, also those that were met before an interruption."""
        met = [asdict(item) for item in processes.all_gather_unique(trainer.data.unusable)]
        before = state["set_aside"]
        return [*before, *(item for item in met if item not in before)]

    def save(step: int) -> None:
        now = {"step": step, "seconds": earlier + time.monotonic() - started, "history": trainer.history}
        now |= {"best": trainer.best, "epoch_losses": epoch_losses, "set_aside": skipped(), "limits": state["limits"]}
        save_checkpoint(checkpoint, trainer.modules, trainer.optimizer, now)

    done = trainer.steps
    accumulation, pause = trainer.config.grad_accumulation, checkpoint_seconds
    stream = pixels_of(trainer, range(begin * accumulation, trainer.steps * accumulation))
    with deferred_interrupt() as interrupt:
        for step in range(begin, trainer.steps):
            epoch = step // trainer.steps_per_epoch
            losses = train_step(trainer, step, epoch, *(next(stream) for _ in range(accumulation)))
            epoch_losses.append(losses)
            on_step(step + 1, trainer.steps, " ".join(f"{name} {value:.3f}" for name, value in losses.items()))
            if (step + 1) % trainer.steps_per_epoch == 0:
                row = end_epoch(trainer, out, epoch, epoch_losses, earlier + time.monotonic() - started)
                epoch_losses = []
                done = step + 1
                if any(processes.any_rank(on_epoch(row) is False)):
                    if row["val"] is None:
                        keep_if_best(trainer, row)
                        processes.on_rank0(lambda: write_json_lines(out / runs.METRICS, trainer.history))
                    break
            due = time.monotonic() - saved >= pause
            if any(processes.any_rank(interrupt.requested, due)):
                begun = time.monotonic()
                save(step + 1)
                saved = time.monotonic()
                pause = max(checkpoint_seconds, SAVING * (saved - begun)) if checkpoint_seconds else 0.0
                if any(processes.any_rank(interrupt.requested)):  # also one that came while it was saved
                    raise KeyboardInterrupt
    seconds = earlier + time.monotonic() - started
    trainer.best = trainer.best or _linear_is_better(trainer)
    decision = decide(trainer)
    save_weights(trainer, out)
    if rejects := rejecting(trainer):
        decision = replace(decision, reject=rejects[0])
        rejects[1].save(out / runs.KNOWN)
    found = {"set_aside": skipped(), "limits": state["limits"], runs.DECISION: asdict(decision)}
    return _summary(trainer, done, seconds) | found


def _summary(trainer: Trainer, done: int, seconds: float) -> dict[str, Any]:
    """Return what a run that has ended says of itself."""
    images = done * trainer.config.grad_accumulation * trainer.batches.size
    return {
        "seconds": round(seconds, 3),
        "steps": done,
        "kept_epoch": trainer.best[1] if trainer.best else trainer.history[-1]["epoch"],
        "images_per_second": round(images / max(seconds, 1e-9), 1),
        "parameters": sum(p.numel() for p in trainer.evaluated.backbone.parameters()),  # type: ignore[union-attr]
        "peak_memory_bytes": peak_memory_bytes(trainer.device),
    }


def _linear_epoch(trainer: Trainer, features: Tensor) -> dict[str, Any]:
    """Return the row of epoch 0: the classifier on features as they are, which is kept where nothing is better."""
    row: dict[str, Any] = {"epoch": 0, "step": 0, "lr": 0.0, "loss": fit_classifier(trainer, features)}
    row |= {"align_loss": None, "val": None, "seconds": 0.0}
    for copied in (trainer.modules["best"], trainer.evaluated):
        copied.load_state_dict(trainer.model.state_dict())
    keep_if_best(trainer, row)
    return row | {"loss_by_targets": loss_by_targets(trainer)}


def _linear_is_better(trainer: Trainer) -> tuple[float, int] | None:
    """Return the score of epoch 0 and its number if it is better than the last epoch on images held out: by their
    labels, or by their targets where none has a label.
    """
    first, last, primary = trainer.history[0], trainer.history[-1], trainer.data.task.primary
    if first["epoch"]:
        return None
    if first["val"] and last["val"]:
        score = first["val"][primary.name]
        return (score, 0) if primary.better(score, last["val"][primary.name]) else None
    score, now = first["loss_by_targets"], loss_by_targets(trainer)
    return None if now is None or now <= score else (score, 0)


def end_epoch(
    trainer: Trainer, out: Path, epoch: int, losses: list[dict[str, float]], seconds: float
) -> dict[str, Any]:
    """Note an epoch in metrics.jsonl, return what was noted; where it is due validate, and keep the best weights."""
    config = trainer.config
    last, due = epoch + 1 == config.epochs, math.ceil(config.epochs / VALIDATIONS)
    means = {name: float(np.mean([step[name] for step in losses])) for name in losses[0]}
    row = {
        "epoch": epoch + 1,
        "step": (epoch + 1) * trainer.steps_per_epoch,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "loss": means.pop("total"),
        "align_loss": None,
        **{f"{name}_loss": value for name, value in means.items()},
        "val": None,
        "seconds": round(seconds, 3),
    }
    if last or (epoch + 1) % due == 0:
        keep_if_best(trainer, row)
    trainer.history.append(row)
    processes.on_rank0(lambda: append_json_line(out / runs.METRICS, row))
    return row


def keep_if_best(trainer: Trainer, row: dict[str, Any]) -> None:
    """Validate at the end of an epoch, write the scores into its row, and keep the weights if they are the best."""
    val, primary = validate(trainer), trainer.data.task.primary
    if not val:
        return
    row["val"] = val
    better = trainer.best is None or primary.better(val[primary.name], trainer.best[0])
    if trainer.config.select == "best" and better:
        trainer.best = val[primary.name], row["epoch"]
        trainer.modules["best"].load_state_dict(trainer.evaluated.state_dict())


def save_weights(trainer: Trainer, out: Path) -> None:
    """Write the plain backbone and the projection head. Raises TrainingError: not finite."""
    weights = trainer.kept.state_dict()
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise _diverged(trainer.config, "The weights are not finite")
    for part, name in (("head", runs.HEAD), ("backbone", runs.MODEL)):
        tensors = {key.removeprefix(f"{part}."): value for key, value in weights.items() if key.startswith(f"{part}.")}
        if tensors:
            save_tensors(out / name, tensors)


def tidy(out: Path) -> None:
    """Remove what only an unfinished run needs; to be called when the record of the finished one is on disk."""
    (out / runs.CHECKPOINT).unlink(missing_ok=True)
    _sweep(out)


def _sweep(out: Path) -> None:
    for name in (runs.CHECKPOINT, runs.MODEL, runs.HEAD, runs.KNOWN):  # of a process that was killed as it wrote
        remove_unfinished(out / name)


def save_checkpoint(path: Path, modules: Modules, optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Write weights, the state of the optimiser and a JSON ``state``; names of modules are without a dot."""
    tensors = {f"{part}.{name}": value for part, one in modules.items() for name, value in one.state_dict().items()}
    numbers: dict[str, Any] = {}
    known = optimizer.state_dict()
    # Some optimisers count their steps in a group of parameters; its learning rate is set by the schedule.
    groups = [
        {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in group.items()
            if name != "lr" and isinstance(value, int | float | Tensor)
        }
        for group in known["param_groups"]
    ]
    for index, slots in known["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}.{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    save_tensors(path, tensors, {OPTIMIZER: numbers, "groups": groups, "state": state})


def load_checkpoint(path: Path, modules: Modules, optimizer: torch.optim.Optimizer) -> Any:
    """Restore what ``save_checkpoint`` wrote, in place, and return its JSON state."""
    try:
        tensors, saved = load_tensors(path)
    except ModelError as error:
        raise DamagedError(
            f"{error} Training does not go on from a damaged checkpoint: bring back a copy of it, or move it away and "
            "give the same command with --resume again, which trains from the first step."
        ) from None
    found: dict[str, dict[str, Any]] = {part: {} for part in (*modules, OPTIMIZER)}
    found[OPTIMIZER] |= saved[OPTIMIZER]
    for full_name, value in tensors.items():
        part, name = full_name.split(".", 1)
        found.setdefault(part, {})[name] = value
    try:
        for part, module in modules.items():
            module.load_state_dict(found[part])
    except RuntimeError as error:
        raise RunError(f"{path} belongs to another model: {error}") from None
    slots: dict[int, dict[str, Any]] = {}
    for name, value in found[OPTIMIZER].items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    groups = zip(optimizer.state_dict()["param_groups"], saved["groups"], strict=True)
    optimizer.load_state_dict({"state": slots, "param_groups": [{**group, **own} for group, own in groups]})
    return saved["state"]
