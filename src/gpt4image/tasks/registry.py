"""The tasks by name, and which one suits a dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, nearest
from gpt4image.config import TrainOptions
from gpt4image.config.learning import PRETRAIN
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.data.geometry import Geometry
from gpt4image.data.regions import Boxes
from gpt4image.data.video import USUAL_FRAMES
from gpt4image.tasks.base import Floats, Labels, Metric, Task
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation


@dataclass(frozen=True)
class Pretraining(Task):
    """No label, no prediction: a backbone learns from images alone, or with their descriptions (``--pretrain``).

    The task itself has no loss. The one output of its model means nothing, and ``--init`` leaves it out.
    """

    name: ClassVar[str] = PRETRAIN
    primary: ClassVar[Metric] = Metric(name="pretraining_loss", title="loss", higher_is_better=False)
    image_score: ClassVar[str] = "nothing"
    smooths: ClassVar[bool] = False

    def annotations(self, image_set: Dataset) -> Labels:
        return np.full(len(image_set), NO_LABEL)

    def outputs(self, classes: Sequence[str]) -> int:
        return 1

    def targets(self, labels: Labels, soft: Floats | None, outputs: int, geometry: Geometry | None) -> Tensor:
        return torch.zeros(len(labels), outputs)

    def has_target(self, labels: Labels, soft: Floats | None) -> NDArray[np.bool_]:
        return np.ones(len(labels), np.bool_)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        return 0.0 * outputs.sum()

    def tail(self) -> nn.Module:
        return nn.Identity()


TASKS: Mapping[str, Callable[[TrainOptions], Task]] = {
    "classification": lambda options: Classification(),
    "detection": lambda options: Detection(),
    "multilabel": lambda options: MultiLabel(),
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


def task_of(image_set: Dataset, options: TrainOptions) -> Task:
    """Return the task of a set: boxes, masks, clips (video), a column per class (multi-label), else one label each."""
    if image_set.regions is not None:
        return find_task("detection" if isinstance(image_set.regions, Boxes) else "segmentation", options)
    if image_set.clips:
        return find_task("video", options)
    return find_task("multilabel" if image_set.labels.ndim == 2 else "classification", options)
