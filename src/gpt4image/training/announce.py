"""What a person is told before a run and during it: its images by source, its size and time, a line per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpt4image.base.progress import say
from gpt4image.models.backbones import pretrained_weights
from gpt4image.tasks.base import Task
from gpt4image.training import auto
from gpt4image.training.prepare import Prepared
from gpt4image.training.trainer import idle_options

MEASURED_STEPS = 5
"""Steps after which the time of a run is estimated; the first one is slower and does not count."""


def block(ready: Prepared) -> str:
    """Return what a run is about to do, a line for each of images, classes, model and steps."""
    data, config = ready.data, ready.config
    train = data.indices("train")
    labelled, described = data.labelled[train], data.described[train]
    taught = np.zeros(len(train), np.bool_) if data.from_teacher is None else data.from_teacher[train]
    tagged = data.weak(train) & ~labelled & ~described & ~taught
    by_source = {
        "labels": labelled.sum(),
        "tags alone": tagged.sum(),
        "text labels": 0 if data.from_text is None else data.from_text[train].sum(),
        "descriptions to align to": 0 if data.text is None else np.asarray(data.text.described)[train].sum(),
        "taught by --teacher": taught.sum(),
        "without either": (~labelled & ~described & ~tagged & ~taught).sum(),
    }
    if config.pretraining:
        by_source = {"with a description": described.sum(), "without a description": (~described).sum()}
    sources = ", ".join(f"{int(count):,} {name}" for name, count in by_source.items() if count)
    held_out = ", ".join(f"{ready.sizes[split]:,} {split}" for split in ("val", "test") if ready.sizes[split])
    rows = {
        "train on": f"{len(train):,} images: {sources}",
        "held out": held_out or "nothing",
        **({"learn": f"{config.pretrain}, no label is read"} if config.pretraining else {}),
        **({} if config.pretraining else {"classes": f"{len(data.classes):,}"}),
        "model": f"{config.model} ({config.init}), {config.image_size} x {config.image_size} pixels",
        **({"weights": hint} if (hint := _weights_elsewhere(ready)) else {}),
        "steps": f"{config.epochs:,} epochs of {steps_per_epoch(ready):,} steps, {config.batch_size} images each",
    }
    lines = [f"{name:10}{value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"{'note':10}{idle}" for idle in idle_options(config, data))])


def _weights_elsewhere(ready: Prepared) -> str:
    """Return a line about pretrained weights that auto would have taken, were they on this machine; or nothing."""
    config = ready.config
    if ready.chosen.get("init") != "scratch" or not auto.takes_weights(config, len(ready.data.indices("train"))):
        return ""
    if pretrained_weights(config.model) != "elsewhere":
        return ""
    return "--init pretrained downloads those of ImageNet, with which few images go further"


def steps_per_epoch(ready: Prepared) -> int:
    """Return the optimiser steps of an epoch, as the run will have them."""
    config = ready.config
    return max(1, len(ready.data.indices("train")) // (config.batch_size * config.grad_accumulation))


def about(seconds: float) -> str:
    """Return a duration in the unit that a person would choose."""
    if seconds < 90:
        return "about a second" if seconds < 1.5 else f"about {round(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def time_left() -> Callable[[int, int], str | None]:
    """Return what is called after each step, and estimates the time that is left once, where that is known."""
    marks: list[tuple[int, float]] = []

    def after(step: int, steps: int) -> str | None:
        marks.append((step, time.monotonic()))
        if len(marks) != MEASURED_STEPS:
            return None
        (first, begun), (last, now) = marks[0], marks[-1]
        return about((now - begun) / (last - first) * (steps - last))

    return after


def tell_epoch(row: Mapping[str, Any], epochs: int, task: Task, held_out: int) -> None:
    """Print one epoch: its loss, the score on ``held_out`` validation images if it was measured, the seconds so far."""
    score = None if not row["val"] else row["val"].get(task.primary.name)
    val = "" if score is None else f"  val {task.primary.title} {score:.4f} on {held_out:,} images"
    say(f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}{val}  {row['seconds']:.0f} s")
