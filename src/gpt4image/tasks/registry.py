"""The tasks by name, and which one suits a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config import TrainOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.data.regions import Boxes
from gpt4image.data.video import USUAL_FRAMES
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.pretraining import Pretraining
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.tasks.video import Video

TASKS: Mapping[str, Callable[[TrainOptions], Task]] = {
    "classification": lambda options: Classification(),
    "detection": lambda options: Detection(),
    "multilabel": lambda options: MultiLabel(focus=options.focus_negatives),
    "pretrain": lambda options: Pretraining(),
    "segmentation": lambda options: Segmentation(presence=options.presence_weight),
    "video": lambda options: Video(
        options.frames or USUAL_FRAMES, options.frame_order or "kept", options.frame_differences
    ),
}

TITLES: Mapping[str, str] = {
    metric.name: metric.title
    for task in (Detection, Segmentation, Classification, MultiLabel, Pretraining)
    for metric in (task.primary, *task.metrics)
}
"""Metrics of the tasks in words, for records that do not bring their own."""


def find_task(name: str, options: TrainOptions) -> Task:
    """Return a task by name. Raises ConfigError: there is none of that name."""
    if name not in TASKS:
        raise ConfigError(f"--task {nearest(name, TASKS)}")
    return TASKS[name](options)


def with_options(task: Task, options: TrainOptions) -> Task:
    """Return a task as other options of a run make it; one that the registry lacks stays as it is."""
    found = TASKS[task.name](options) if task.name in TASKS else task
    return found if type(found) is type(task) else task


def task_of(image_set: ImageSet, options: TrainOptions) -> Task:
    """Return the task that a set is of: boxes, masks, clips (video), a column per class (multi-label), else a label
    per image."""
    if image_set.regions is not None:
        return find_task("detection" if isinstance(image_set.regions, Boxes) else "segmentation", options)
    if image_set.clips:
        return find_task("video", options)
    return find_task("multilabel" if image_set.labels.ndim == 2 else "classification", options)
