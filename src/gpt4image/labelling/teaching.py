"""Text labels of the images that a run reads: what the arms of a comparison are taught by."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.text_labels import TextLabels, class_targets
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.config import TrainOptions
from gpt4image.data.image_set import NO_LABEL, SPLITS, ImageSet
from gpt4image.data.splits import representatives
from gpt4image.labelling.label_noise import explained, judge
from gpt4image.labelling.reading import Reading, read_labels
from gpt4image.labelling.text_vectors import Texts, unit
from gpt4image.training.training_data import TrainingData


def texts_of(data: TrainingData, names: NDArray[np.float32] | None) -> Texts:
    """Return the texts of all images of a run.

    Args:
        data: of the run.
        names: (K, D) class names in the space of the texts; None where they are not known.

    Raises:
        ConfigError: there is no embedding table.
    """
    if data.text is None:
        raise ConfigError("Text labels need --embeddings.")
    vectors, described, _ = data.text.take(np.arange(len(data.labels)))
    return Texts(unit(vectors.numpy()), described.numpy(), names)


def read_training(data: TrainingData, seed: int, names: NDArray[np.float32] | None) -> Reading:
    """Return what the texts say by the labels that are left; its rows are the images ``data.indices("train")``.

    Neither the texts nor the labels of other splits are read. Byte-equal images are read as one, by the first label
    among them: a copy in another fold would tell the label that is to be judged.

    Args and Raises: as ``texts_of``; ``seed`` is that of the run.
    """
    train = data.indices("train")
    labels, digests = data.labels[train], [data.image_set.digests[i] for i in train]
    read, copy_of = np.unique(representatives(digests, labels == NO_LABEL), return_inverse=True)
    reading = read_labels(texts_of(data, names).take(train[read]), labels[read], len(data.classes), seed)
    out_of_fold = reading.out_of_fold[copy_of] & (labels != NO_LABEL)
    return replace(reading, probabilities=reading.probabilities[copy_of], out_of_fold=out_of_fold)


def targets_of(reading: Reading, data: TrainingData, trust: float | None) -> NDArray[np.float32]:
    """Return (N, K) float32 class targets of the training images, zeros for others.

    Args:
        reading: what the texts say, as ``read_training`` returns it.
        data: of N images, with the labels that are left.
        trust: as of ``class_targets``.
    """
    train = data.indices("train")
    labels = data.labels[train]
    targets = np.zeros((len(data.labels), len(data.classes)), np.float32)
    held_out = reading.out_of_fold
    explains = explained(reading.probabilities[held_out], labels[held_out])
    targets[train] = class_targets(reading.probabilities, labels, reading.noise, explains, trust)
    return targets


def judge_training(reading: Reading, data: TrainingData) -> dict[str, Any]:
    """Return how well the texts name the labels of the training images that are not the true ones; see ``judge``."""
    rows = np.flatnonzero(reading.out_of_fold)
    images = data.indices("train")[rows]
    return judge(reading.probabilities[rows], data.labels[images], data.image_set.labels[images])


def load_text_labels(config: TrainOptions, image_set: ImageSet) -> TextLabels | None:
    """Return the text labels that a run is told to learn from; None where it has none.

    Args:
        config: options of the run.
        image_set: the whole set with the splits of the run.

    Raises:
        TableError: the file is missing or damaged, was made for other classes, or has learned from the label of an
            image that the run holds out.
    """
    if config.text_labels is None:
        return None
    labels = TextLabels.load(config.text_labels)
    if labels.classes != image_set.classes:
        raise TableError(
            f"{config.text_labels} has the classes {list(labels.classes)[:5]}... ({len(labels.classes)}), the image "
            f"set has {list(image_set.classes)[:5]}... ({len(image_set.classes)}); run `gpt4image label` on this image "
            "set."
        )
    _require_held_out(labels, config, image_set)
    return labels


def _require_held_out(labels: TextLabels, config: TrainOptions, image_set: ImageSet) -> None:
    """Refuse text labels that have learned from the label of an image that is held out; copies in train are not."""
    split_of: dict[str, str] = {}
    for digest, split in zip(image_set.digests, image_set.splits.tolist(), strict=True):
        if split == "train" or digest not in split_of:
            split_of[digest] = split
    learned = (labels.digests[row] for row in np.flatnonzero(labels.labels >= 0))
    counts = Counter(split_of.get(digest, "train") for digest in learned)
    found = [f"{counts[split]} of its {split} split" for split in SPLITS if split != "train" and counts[split]]
    if not found:
        return
    advice = "run `gpt4image label` with the same --val-fraction and --test-fraction as this run"
    if config.only_described:
        advice += (
            f", on {config.embeddings} alone: --only-described takes for validation first what that table does not "
            "describe"
        )
    raise TableError(
        f"{config.text_labels} has learned from labels of images that this run holds out: {' and '.join(found)}. Those "
        f"labels would teach it, and it would be measured on them; {advice}."
    )


def with_text_labels(data: TrainingData, config: TrainOptions, labels: TextLabels) -> TrainingData:
    """Return the data with class targets of what ``load_text_labels`` has read.

    Raises:
        TableError: no text label is of a training image.
    """
    targets, has_target = labels.targets_for(data.image_set.digests, data.labels, config.label_trust)
    known = set(labels.digests)
    if not any(has_target[i] and data.image_set.digests[i] in known for i in data.indices("train")):
        raise TableError(
            f"{config.text_labels} holds no text label of a training image; run `gpt4image label` on this image set."
        )
    return replace(data, soft=targets)
