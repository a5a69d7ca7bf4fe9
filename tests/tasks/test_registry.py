"""Tasks by name, and the one that suits a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import TrainConfig
from gpt4image.data.image_set import ImageSet, MemorySource
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.registry import TASKS, TITLES, find_task, recorded_task, task_of, with_options

OPTIONS = TrainConfig(data="folder:photos", out=Path("run"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_found_by_the_name_that_it_has(name: str) -> None:
    task = find_task(name, OPTIONS)
    assert task.name == name
    assert {metric.name for metric in (task.primary, *task.metrics)} <= TITLES.keys()
    assert recorded_task(OPTIONS.model_copy(update={"task": name})).name == name


def image_set(labels: np.ndarray) -> ImageSet:
    return ImageSet(
        spec="memory",
        classes=("cat", "dog"),
        keys=("a", "b", "c"),
        labels=labels,
        splits=np.array(["train"] * 3),
        source=MemorySource([b"a", b"b", b"c"]),
        rows=np.arange(3),
    )


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"--task 'multi-label' is not one of: .* Did you mean 'multilabel'"):
        find_task("multi-label", OPTIONS)


def test_the_form_of_the_labels_decides_and_old_runs_are_of_classification() -> None:
    assert task_of(image_set(np.zeros(3, np.int64)), OPTIONS).name == "classification"
    assert task_of(image_set(np.zeros((3, 2), np.int8)), OPTIONS).name == "multilabel"
    assert recorded_task(OPTIONS).name == "classification"


def test_a_task_that_the_registry_lacks_has_its_own_options() -> None:
    class Own(MultiLabel):
        pass

    assert with_options(own := Own(focus=3.0), OPTIONS) is own
