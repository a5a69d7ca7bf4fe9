"""What a run cannot be: options that do not go with each other, its task, its images or this machine.

It is told before pictures are decoded, by name of the option and with what to do.
"""

from __future__ import annotations

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, RunError
from gpt4image.config.base import flag_of
from gpt4image.config.learning import ResolvedOptions, TrainOptions
from gpt4image.config.pretraining import PRETRAIN
from gpt4image.data import annotation
from gpt4image.data.dataset import Dataset
from gpt4image.parallel.sharding import unshardable
from gpt4image.tasks.base import Labels, Task

OPTIONS_OF = {"presence_weight": "segmentation", "pretrain": "pretrain"}
"""Options that only one task reads."""
OF_CLIPS = ("frames", "frame_order", "frame_differences")


def check(config: ResolvedOptions, task: Task, images: Dataset | None = None, *, targets: bool = False) -> None:
    """Refuse options that no run of a task has; with ``images``, the whole set, also those that do not fit them."""
    name, output = task.name, task.output
    for wrong, message in (
        (
            config.mixes and not task.mixes,
            f"--mixup and --cutmix average targets, which those of task {name} do not allow: leave them out.",
        ),
        (
            config.auto_augment is not None and output in ("boxes", "mask"),
            f"--auto-augment {config.auto_augment} may turn and shear pictures, and the {output} of --task {name} "
            "would stay: leave it out. --colour changes colours.",
        ),
        (
            config.consistency > 0.0 and not task.exclusive,
            f"--consistency takes the most probable class for a label: task {name} has no such one.",
        ),
        (
            config.self_train is not None and (task.boxes or name == PRETRAIN),
            f"--self-train {config.self_train} is for masks and classes, not for --task {name}.",
        ),
        *(
            (
                name != own and getattr(config, option) != TrainOptions.model_fields[option].default,
                f"{flag_of(option)} {getattr(config, option)} is for --task {own}, not for {name}: leave it out.",
            )
            for option, own in OPTIONS_OF.items()
        ),
        *(
            (
                task.frames is None and bool(getattr(config, option)),
                f"{flag_of(option)} is for clips, and task {name} reads images: leave it out.",
            )
            for option in OF_CLIPS
        ),
        (
            config.fsdp and config.tune_text != "none",
            f"--tune-text {config.tune_text} trains whole weights: leave out --fsdp, or --tune-text.",
        ),
        (config.fsdp and bool(unshardable(config.optimizer)), f"--fsdp {unshardable(config.optimizer)}"),
    ):
        if wrong:
            raise ConfigError(message)
    if images is not None:
        _check_images(config, task, images, targets=targets)


def _check_images(config: ResolvedOptions, task: Task, images: Dataset, *, targets: bool) -> None:
    labels, train, val = task.annotations(images), images.indices("train"), images.indices("val")
    size, parts = config.batch_size, config.grad_accumulation
    if size * parts > len(train):  # an epoch would be several passes
        step = f"--batch-size {size}" + (f" times --grad-accumulation {parts}" if parts > 1 else "")
        raise DataError(f"{step} is larger than the train split ({len(train)} images); give at most {len(train)}.")
    check_selectable(config, task, labels[val])
    if config.self_train is not None:
        record = runs.read_run(config.self_train)["config"]
        if record.get("task") != task.name:
            raise RunError(
                f"--self-train {config.self_train} was trained with --task {record.get('task')}; give a run of --task "
                f"{task.name}."
            )
        runs.require_classes(config.self_train, images.classes)
        if annotation.known(labels[train]).all():
            raise ConfigError(all_have_targets(f"--self-train {config.self_train}", len(train)))
    if targets and config.consistency > 0.0 and task.has_target(labels[train], None).all():
        raise ConfigError(all_have_targets(f"--consistency {config.consistency:g}", len(train)))


def check_selectable(config: TrainOptions, task: Task, held_out: Labels) -> None:
    """Refuse to select weights by validation images that are not there; pretraining has their loss."""
    by_loss = bool(config.pretraining) and len(held_out)
    if config.select == "best" and not by_loss and not annotation.known(held_out).any():
        raise ConfigError(
            "--select best needs labelled validation images, and there are none: raise --val-fraction, or leave it out."
        )


def all_have_targets(option: str, count: int) -> str:
    """Return why an option that learns from images without a target is refused."""
    return (
        f"{option} learns from training images without a label or text label, and all {count:,} have one: leave it out."
    )


def check_labelled(task: Task, labels: Labels, spec: str, split: str) -> None:
    """Refuse to measure where no image has a label."""
    if not annotation.known(labels).any():
        raise DataError(f"The {split} split of {spec} has no labelled image; give another --split.")
