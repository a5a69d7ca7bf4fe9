"""Harder settings: which labels are taken away, or flipped, before an arm trains.

Everything that an arm does with classes starts from the labels that are left; only the oracle sees the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import CompareConfig
from gpt4image.data import annotation
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.splits import flip_labels, keep_labels_per_class, some_images
from gpt4image.training.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A harder setting: labels that stay, and labels that are flipped, by the options of these names in CompareConfig.

    Everything drawn depends on the seed of the run and concerns only the train split.
    """

    labels_per_class: int | None = None
    labelled_images: int | None = None
    label_noise: float = 0.0
    noise_kind: str = "uniform"

    @classmethod
    def of(cls, config: CompareConfig) -> Regime:
        """Return the one that a comparison asks for."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    @property
    def is_label_scarce(self) -> bool:
        """Whether labels are missing or wrong."""
        return self.labels_per_class is not None or self.labelled_images is not None or self.label_noise > 0.0

    @property
    def name(self) -> str:
        """Name of a folder of runs."""
        parts = ["all-labels" if self.labels_per_class is None else f"{self.labels_per_class}-labels"]
        if self.labelled_images is not None:
            parts = [f"{self.labelled_images}-images"]
        if self.label_noise:
            kind = "-by-class" if self.noise_kind == "class-dependent" else ""
            parts.append(f"{_exact(self.label_noise)}-wrong{kind}")
        return "-".join(parts)

    @property
    def words(self) -> str:
        """Labels that are left, for people: ``5 labels per class``."""
        words = self.name.replace("-", " ")
        return words.replace("labels", "labels per class") if self.labels_per_class is not None else words

    @property
    def asked(self) -> str:
        """The options that made it, as they were given: ``--labels-per-class 2 --label-noise 0.1``."""
        fields = self.__dataclass_fields__.items()
        given = {name: value for name, field in fields if (value := getattr(self, name)) != field.default}
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())

    def apply(self, data: TrainingData, seed: int, described: NDArray[np.bool_] | None = None) -> TrainingData:
        """Return what is left for one seed.

        ``described``, (N,), is which images have a text in the table of the comparison, where the arm reads another
        one: all arms lose the same labels. Raises DataError: no label would be taken away, or none would be wrong;
        ConfigError: the task has no classes that could be mixed up.
        """
        if not data.task.exclusive and self.label_noise > 0.0:
            raise ConfigError(
                f"--label-noise needs one class per image, which the task {data.task.name} does not have: leave it out."
            )
        if described is None and data.text is not None:
            described = data.text.described  # these keep their labels first: text labels are fitted on both
        labels, train = data.labels, data.indices("train")
        if self.labelled_images is not None:
            chosen = some_images(train[annotation.known(labels[train])], self.labelled_images, seed, first=described)
            labels = annotation.hidden(labels, np.isin(np.arange(len(labels)), np.setdiff1d(train, chosen)))
        if self.labels_per_class is not None:
            groups = annotation.groups(labels)
            kept = keep_labels_per_class(
                groups, train, self.labels_per_class, seed, first=described, classes=data.classes
            )
            gone = np.zeros(len(groups), bool)
            gone[train[kept[train] == NO_LABEL]] = True
            labels = annotation.hidden(labels, gone)
        if self.label_noise > 0.0:
            given = labels
            by_class = self.noise_kind == "class-dependent"
            labels = flip_labels(given, train, self.label_noise, len(data.classes), seed, class_dependent=by_class)
            count = int((given[train] != NO_LABEL).sum())
            if count and np.array_equal(labels, given):
                raise DataError(
                    f"--label-noise {_exact(self.label_noise)} of {count} labels in train is not one wrong label: give "
                    f"at least {1 / count:.2g}, or leave it out."
                )
        return replace(data, labels=annotation.untagged(labels))  # no arm reads tags of images without an annotation


def _exact(number: float) -> str:
    """Return the shortest text that no other number has."""
    return repr(float(number)).removesuffix(".0")
