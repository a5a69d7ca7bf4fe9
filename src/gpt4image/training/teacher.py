"""Masks that a finished run predicts, as targets of images without one: self-training of segmentation.

As for classes (Lee 2013, "Pseudo-label"), the model that learns from them becomes better than the one that made them,
since it learns from more pictures, each seen under other augmentations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, RunError
from gpt4image.base.progress import progress_bar
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.data.mask_files import MaskFiles
from gpt4image.parallel import processes
from gpt4image.tasks.base import Task
from gpt4image.tasks.segmentation import png
from gpt4image.training.run_model import load_run_model
from gpt4image.training.training_data import TrainingData

AT_ONCE = 256
"""Images whose masks are in memory before they are packed."""


def require_teacher(run_dir: Path, image_set: ImageSet, task: Task) -> None:
    """Refuse a run that cannot teach a dataset.

    Raises:
        RunError: there is no finished run, or it is of another task or other classes.
        ConfigError: every training image has a mask.
    """
    its = runs.read_run(run_dir)["config"].get("task")
    if its != task.name:
        raise RunError(f"--teacher {run_dir} was trained with --task {its}; give a run of --task {task.name}.")
    runs.require_classes(run_dir, image_set.classes)
    train = image_set.indices("train")
    if task.known(task.annotations(image_set)[train]).all():
        raise ConfigError(
            f"--teacher {run_dir} teaches training images without a mask, and all {len(train)} have one: leave it out."
        )


def with_teacher(data: TrainingData, run_dir: Path) -> TrainingData:
    """Return the data with the masks that a finished run predicts of the training images without one.

    A prediction is of the picture and its mirror image together, in the size that the model gives; see
    ``Segmentation.shape``. All processes of a run call this together.

    Raises:
        RunError: see ``require_teacher``.
    """
    runs.require_classes(run_dir, data.classes)
    train = data.indices("train")
    unknown = train[~data.task.known(data.labels[train])]
    model = processes.together(lambda: load_run_model(run_dir, data.task, data.classes))
    files: list[bytes] = []
    with progress_bar(quiet=processes.rank() > 0) as bar:
        task = bar.add_task("masks by the teacher", total=len(unknown), note="")
        for start in range(0, len(unknown), AT_ONCE):
            part = unknown[start : start + AT_ONCE]
            files += map(png, model.read(data.pixels, part, mirrored=True).predictions)
            bar.update(task, completed=len(files))
    rows = np.full(len(data.labels), -1)
    rows[unknown] = np.arange(len(unknown))
    labels = data.labels.with_taught(MaskFiles(MemorySource(files), rows), rows)
    return replace(data, labels=labels, from_teacher=rows >= 0)
