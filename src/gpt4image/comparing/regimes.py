"""Harder regimes: what is taken away from the training images, or spoilt, before an arm sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpt4image.config import CompareConfig
from gpt4image.data.image_set import NO_LABEL
from gpt4image.data.splits import drawn_part, flip_labels, keep_labels_per_class, long_tail
from gpt4image.errors import DataError
from gpt4image.training.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What is left of a training set; the fields are the options of the same names in CompareConfig.

    Every draw depends on the seed of the run and touches the train split alone.
    """

    labels_per_class: int | None = None
    label_noise: float = 0.0
    noise_kind: str = "uniform"
    described_fraction: float = 1.0
    imbalance: float = 1.0

    @classmethod
    def of(cls, config: CompareConfig) -> Regime:
        """Return the regime that a comparison asks for."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    @property
    def scarce(self) -> bool:
        """Whether labels are missing or wrong."""
        return self.labels_per_class is not None or self.label_noise > 0.0

    @property
    def name(self) -> str:
        """Name of a folder of runs."""
        parts = ["all-labels" if self.labels_per_class is None else f"{self.labels_per_class}-labels"]
        if self.label_noise:
            parts.append(f"{self.label_noise:g}-wrong" + ("-by-class" if self.noise_kind == "class-dependent" else ""))
        if self.described_fraction < 1.0:
            parts.append(f"{self.described_fraction:g}-described")
        if self.imbalance > 1.0:
            parts.append(f"imbalance-{self.imbalance:g}")
        return "-".join(parts)

    def read_by(self, *, labels: bool, texts: bool) -> Regime:
        """Return what an arm sees of it that reads only the labels that are left, or only the texts that are left.

        Arms that read less share their runs between regimes.
        """
        seen = self if labels else replace(self, labels_per_class=None, label_noise=0.0, noise_kind="uniform")
        return seen if texts else replace(seen, described_fraction=1.0)

    def apply(self, data: TrainingData, seed: int, described: NDArray[np.bool_] | None = None) -> TrainingData:
        """Return the data with what is left for one seed; images that are left out count as unusable.

        Args:
            data: of the arm.
            seed: of the run.
            described: (N,) which images have a text in the table of the comparison, where the arm reads another one:
                all arms lose the same labels and descriptions.

        Raises:
            DataError: no label is left, or none would be taken away.
        """
        if self.imbalance > 1.0:
            train = data.indices("train")
            usable = data.usable.copy()
            usable[train] = False
            usable[long_tail(data.labels, train, self.imbalance, seed)] = True
            data = replace(data, usable=usable)
        if described is None and data.text is not None:
            described = data.text.described
        labels = self._labels(data, described, seed)
        if self.described_fraction < 1.0 and data.text is not None and described is not None:
            train = data.indices("train")
            keep = np.ones(len(data.labels), bool)
            keep[train] = False
            keep[drawn_part(train[described[train]], self.described_fraction, seed)] = True
            data = replace(data, text=data.text.only(keep))
        return replace(data, labels=labels)

    def _labels(self, data: TrainingData, described: NDArray[np.bool_] | None, seed: int) -> NDArray[np.int64]:
        """Return the labels that a seed trains on: some kept, some flipped, only ever in train.

        Images that are described in the set keep theirs first: text labels are fitted on images that have both. Which
        descriptions are left is drawn afterwards, by itself.
        """
        labels, train = data.labels, data.indices("train")
        if self.labels_per_class is not None:
            labels = keep_labels_per_class(
                labels, train, self.labels_per_class, seed, first=described, classes=data.classes
            )
        if self.label_noise > 0.0:
            labels = flip_labels(
                labels,
                train,
                self.label_noise,
                len(data.classes),
                seed,
                class_dependent=self.noise_kind == "class-dependent",
            )
        if not (labels[train] != NO_LABEL).any():
            raise DataError(f"No training image of {data.image_set.spec} has a label; label some.")
        return labels
