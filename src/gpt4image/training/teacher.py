"""What a finished run predicts, as targets of images without one: self-training.

As for classes (Lee 2013, "Pseudo-label"), the model that learns from predictions may become better than the one that
made them: it learns from more pictures, each seen under other augmentations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.artifacts.class_shares import Probabilities, built, scattered
from gpt4image.base.errors import ConfigError, RunError
from gpt4image.base.progress import progress_bar
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.masks import MaskFiles
from gpt4image.parallel import processes
from gpt4image.tasks.base import Task
from gpt4image.tasks.segmentation import png
from gpt4image.training.run_model import RunModel, load_run_model
from gpt4image.training.training_data import TrainingData

Ints = NDArray[np.int64]
AT_ONCE = 256
"""Images whose masks are in memory before they are packed."""


def require_teacher(run_dir: Path, image_set: ImageSet, task: Task) -> None:
    """Refuse a run that cannot teach a dataset.

    Raises:
        RunError: there is no finished run, or it is of another task or other classes.
        ConfigError: every training image is annotated.
    """
    its = runs.read_run(run_dir)["config"].get("task")
    if its != task.name:
        raise RunError(f"--teacher {run_dir} was trained with --task {its}; give a run of --task {task.name}.")
    runs.require_classes(run_dir, image_set.classes)
    train = image_set.indices("train")
    _require_some(run_dir, train[~task.known(task.annotations(image_set)[train])], len(train))


def with_teacher(data: TrainingData, run_dir: Path) -> TrainingData:
    """Return the data with what a finished run predicts of the training images that lack it.

    Of segmentation these are the images without a mask, whatever else is known of them. A predicted mask is that of the
    picture and its mirror image together, in the size that the model gives (``Segmentation.shape``). Of classes they
    are the images without a target, which get the predicted probabilities. All processes of a run call this together.

    Raises:
        RunError: see ``require_teacher``.
        ConfigError: no image lacks a target.
    """
    runs.require_classes(run_dir, data.classes)
    train, masks = data.indices("train"), data.task.output == "mask"
    unknown = train[~(data.task.known(data.labels[train]) if masks else data.has_target(train))]
    _require_some(run_dir, unknown, len(train))
    model = processes.together(lambda: load_run_model(run_dir, data.task, data.classes))
    found = _with_masks(data, model, unknown) if masks else _with_classes(data, model, unknown)
    from_teacher = np.zeros(len(data.labels), np.bool_)
    from_teacher[unknown] = True
    return replace(found, from_teacher=from_teacher)


def _require_some(run_dir: Path, unknown: Ints, count: int) -> None:
    if not len(unknown):
        raise ConfigError(
            f"--teacher {run_dir} teaches training images without a target, and all {count:,} have one: leave it out."
        )


def _with_masks(data: TrainingData, model: RunModel, unknown: Ints) -> TrainingData:
    files: list[bytes] = []
    with progress_bar(quiet=processes.rank() > 0) as bar:
        task = bar.add_task("masks by the teacher", total=len(unknown), note="")
        for start in range(0, len(unknown), AT_ONCE):
            part = unknown[start : start + AT_ONCE]
            files += map(png, model.read(data.pixels, part, mirrored=True).predictions)
            bar.update(task, completed=len(files))
    rows = np.full(len(data.labels), -1)
    rows[unknown] = np.arange(len(unknown))
    return replace(data, labels=data.labels.with_taught(MaskFiles(MemorySource(files), rows), rows))


def _with_classes(data: TrainingData, model: RunModel, unknown: Ints) -> TrainingData:
    predicted = model.read(data.pixels, unknown).predictions
    task, total, classes = data.task, len(data.labels), data.task.outputs(data.classes)
    taught = scattered(predicted, unknown, total, task.no_target)
    if data.soft is None:
        return replace(data, soft=task.with_labels(taught, data.labels, 1.0))
    soft: Probabilities = data.soft
    lacks = np.zeros((total, 1), np.bool_)
    lacks[unknown] = True
    return replace(data, soft=built(total, classes, lambda rows: np.where(lacks[rows], taught[rows], soft[rows])))
