"""What a run is measured by besides the accuracy of its test split."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.encoding.class_names import ClassNames
from gpt4image.evaluating import corruptions
from gpt4image.evaluating.retrieval import recalls, zero_shot_accuracy
from gpt4image.evaluating.run_model import Outputs, RunModel
from gpt4image.evaluating.transfer import linear_probe_accuracy, load_transfer_set, nearest_neighbour_accuracy
from gpt4image.training.training_data import TrainingData

CORRUPTED_IMAGES = 1000
"""Images that are corrupted, the first by digest; each is read 60 times."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What else is asked for.

    Attributes:
        corruptions: whether to read corrupted images.
        transfer: sets that the features are probed on: SPEC to the identity of its images.
    """

    corruptions: bool = False
    transfer: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: Measures) -> Measures:
        """Return what either asks for."""
        return Measures(corruptions=self.corruptions or other.corruptions, transfer={**self.transfer, **other.transfer})

    def are_in(self, evaluation: Mapping[str, Any]) -> bool:
        """Say whether the record of an evaluation has all that is asked for, of the images that there are now."""
        metrics, seen = evaluation.get("metrics", {}), evaluation.get("transfer_sets", {})
        return (not self.corruptions or "corrupted" in metrics) and all(
            f"knn:{spec}" in metrics and seen.get(spec, images) == images for spec, images in self.transfer.items()
        )


def lacked_names(evaluation: Mapping[str, Any]) -> bool:
    """Say whether the record of an evaluation lacks what could be measured if there were embeddings of class names.

    Where texts have no place in the space of the run, retrieval is missing for that same reason.
    """
    absent = evaluation.get("absent", {})
    return "zero_shot" in absent and absent["zero_shot"] != absent.get("retrieval")


@dataclass(kw_only=True)
class Measured:
    """Metrics by name, ``FAMILY`` or ``FAMILY:DETAIL``, fractions in 0..1; and why others are not there."""

    metrics: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def measure_more(
    model: RunModel, data: TrainingData, split: str, outputs: Outputs, names: ClassNames, asked: Measures
) -> Measured:
    """Measure a run beyond its predictions of a split.

    Args:
        model: the run's.
        data: the image set of the split; ``text`` holds the descriptions there are.
        split: name of the split.
        outputs: what the model says of its images.
        names: embeddings of the class names.
        asked: what costs time and was asked for.
    """
    found = Measured()
    if model.head is not None:
        _measure_text_space(model, data, split, outputs, names, found)
    if asked.corruptions:
        found.metrics |= corrupted_accuracies(model, data, split)
    for spec in asked.transfer:
        found.metrics |= transfer_accuracies(model, spec, data.pixels.size)
    return found


def _measure_text_space(
    model: RunModel, data: TrainingData, split: str, outputs: Outputs, names: ClassNames, found: Measured
) -> None:
    space = model.text_space
    if space is None or model.foreign_texts:
        found.absent |= {"zero_shot": model.foreign_texts, "retrieval": model.foreign_texts}
        return
    indices = data.indices(split)
    if names.vectors is None:
        found.absent["zero_shot"] = names.missing
    else:
        labels = data.image_set.labels[indices]
        found.metrics["zero_shot"] = zero_shot_accuracy(
            model.embed(outputs.features), space.place(names.vectors), labels
        )
    if data.text is None:
        found.absent["retrieval"] = "there is no embedding table of this set"
        return
    place = held_out_described(data, split)
    if not len(place):
        found.absent["retrieval"] = f"no image of {split} or val has a description in the table"
        return
    seen = np.isin(indices, place)
    features = outputs.features[seen] if seen.any() else model.read(data.pixels, place).features
    vectors, _, ids = data.text.take(place)
    found.metrics |= recalls(model.embed(features), space.place(vectors.numpy()), ids.numpy())


def held_out_described(data: TrainingData, split: str) -> Ints:
    """Return the described images of a split, or else those of the validation split, which no run is trained on."""
    for held_out in (split, "val"):
        images = data.indices(held_out)
        if data.text is not None and data.text.described[images].any():
            return images[data.text.described[images]]
    return np.zeros(0, np.int64)


def corrupted_accuracies(model: RunModel, data: TrainingData, split: str) -> dict[str, float]:
    """Return accuracy on corrupted images: ``corrupted`` (mean of all kinds), ``corrupted:KIND`` (mean of all
    severities) and ``corrupted:KIND:SEVERITY``.
    """
    indices = data.indices(split)
    indices = indices[data.image_set.labels[indices] >= 0]
    digests = np.array([data.image_set.digests[i] for i in indices])
    indices = indices[np.argsort(digests, kind="stable")[:CORRUPTED_IMAGES]]
    labels = data.image_set.labels[indices]
    found: dict[str, float] = {}
    for kind in corruptions.KINDS:
        for severity in corruptions.SEVERITIES:
            said = model.read(data.pixels, indices, functools.partial(corruptions.corrupt, kind, severity))
            found[f"corrupted:{kind}:{severity}"] = float((said.probabilities.argmax(axis=1) == labels).mean())
        found[f"corrupted:{kind}"] = float(np.mean([found[f"corrupted:{kind}:{s}"] for s in corruptions.SEVERITIES]))
    return {"corrupted": float(np.mean([found[f"corrupted:{kind}"] for kind in corruptions.KINDS])), **found}


def transfer_accuracies(model: RunModel, spec: str, size: int) -> dict[str, float]:
    """Return ``linear_probe:SPEC`` and ``knn:SPEC``: test accuracy on another image set by the features of a run."""
    config = model.config
    other = load_transfer_set(spec, size, config.memory_limit_gb, config.workers)
    train, test = (model.read(other.pixels, part).features for part in (other.train, other.test))
    labels = other.labels[other.train], other.labels[other.test]
    return {
        f"linear_probe:{spec}": linear_probe_accuracy(train, labels[0], test, labels[1]),
        f"knn:{spec}": nearest_neighbour_accuracy(train, labels[0], test, labels[1]),
    }


def accuracies_by_rarity(per_class: list[float | None], counts: Ints) -> dict[str, float]:
    """Return mean class accuracy of the third of the classes with the most training images, the next, and the last.

    Thirds take the place of the usual bounds of 100 and 20 training images (Liu et al. 2019, arXiv 1904.05160), between
    which all classes of a small set would lie.

    Args:
        per_class: accuracy of each of K classes, None where no image tells.
        counts: (K,) training images of each class.

    Returns:
        ``many_shot``, ``medium_shot`` and ``few_shot``, where there are such classes.
    """
    thirds = np.array_split(np.argsort(-counts, kind="stable"), 3)
    known = [[value for i in third if (value := per_class[i]) is not None] for third in thirds]
    named = zip(("many_shot", "medium_shot", "few_shot"), known, strict=True)
    return {name: float(np.mean(values)) for name, values in named if values}
