"""Text labels of the images that a run reads: what the arms of a comparison are taught by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.comparing.class_names import find_class_names
from gpt4image.config import LabelConfig, TrainOptions
from gpt4image.errors import ConfigError, TableError
from gpt4image.labelling.cotraining import second_opinion
from gpt4image.labelling.label_noise import judge
from gpt4image.labelling.reading import Reading, read_labels
from gpt4image.labelling.text_vectors import Texts, unit
from gpt4image.table import EmbeddingTable
from gpt4image.text_labels import TargetRule, TextLabels
from gpt4image.training.training_data import TrainingData, is_described


def texts_of(data: TrainingData, config: TrainOptions) -> Texts:
    """Return the texts of all images of a run: those of its table, and of the further ones for text labels.

    An image whose descriptions were taken away by a regime has none in the further tables either.

    Raises:
        ConfigError: there is no embedding table.
        TableError: a further table is missing or damaged.
    """
    if data.text is None or config.embeddings is None:
        raise ConfigError("Text labels need --embeddings.")
    digests = data.image_set.digests
    vectors, described, _ = data.text.take(np.arange(len(digests)))
    own = described.numpy()
    parts, has, paths = [unit(vectors.numpy())], [own], (config.embeddings, *config.label_embeddings)
    taken_away = is_described(EmbeddingTable.open(config.embeddings), digests) & ~own
    for path in config.label_embeddings:
        vectors, described = EmbeddingTable.open(path).vectors(digests)
        parts.append(vectors)
        has.append(described & ~taken_away)
    names = (find_class_names(path, config.device, data.classes).vectors for path in paths)
    return Texts(parts=tuple(parts), has=tuple(has), names=tuple(names))


def read_training(data: TrainingData, config: TrainOptions, seed: int) -> Reading:
    """Return what the texts say by the labels that are left; its rows are the images ``data.indices("train")``.

    Neither the texts nor the labels of other splits are read.
    """
    train = data.indices("train")
    method = config.label_method or LabelConfig.model_fields["method"].default
    return read_labels(texts_of(data, config).take(train), data.labels[train], len(data.classes), seed, method=method)


def targets_of(
    reading: Reading, data: TrainingData, config: TrainOptions, vision: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return (N, K) float32 class targets of the training images, zeros for others.

    Args:
        reading: what the texts say, as ``read_training`` returns it.
        data: of N images, with the labels that are left.
        config: options of the run.
        vision: (N, K) class probabilities by a model that was trained on such targets: it has a say as well, and images
            without label and description get its own.
    """
    train = data.indices("train")
    labels = data.labels[train]
    probabilities = reading.probabilities
    if vision is not None:
        wrong, learned = reading.noise.rate > 0.0, np.ones(len(train), bool)
        probabilities = second_opinion(probabilities, vision[train], labels, learned=learned, some_labels_wrong=wrong)
    targets = np.zeros((len(data.labels), len(data.classes)), np.float32)
    targets[train] = target_rule(config).apply(probabilities, labels, reading.noise)
    return targets


def judge_training(reading: Reading, data: TrainingData) -> dict[str, Any]:
    """Return how well the texts name the labels of the training images that are not the true ones; see ``judge``."""
    rows = np.flatnonzero(reading.out_of_fold)
    images = data.indices("train")[rows]
    return judge(reading.probabilities[rows], data.labels[images], data.image_set.labels[images])


def target_rule(config: TrainOptions, default: TargetRule | None = None) -> TargetRule:
    """Return how a run makes targets of text labels; what its options leave open is as in ``default``."""
    asked = {"trust": config.label_trust, "targets": config.label_targets, "confidence": config.label_confidence}
    return replace(default or TargetRule(), **{name: value for name, value in asked.items() if value is not None})


def with_text_labels(data: TrainingData, config: TrainOptions, path: Path) -> TrainingData:
    """Return the data with class targets from a file written by `label`.

    Raises:
        TableError: the file was made for other classes or other images, or no label in it is sure enough.
    """
    labels = TextLabels.load(path)
    if labels.classes != data.classes:
        raise TableError(
            f"{path} has the classes {list(labels.classes)[:5]}... ({len(labels.classes)}), the image set has "
            f"{list(data.classes)[:5]}... ({len(data.classes)}); run `gpt4image label` on this image set."
        )
    rule = target_rule(config, TargetRule(targets=labels.facts.targets, confidence=labels.facts.confidence))
    targets, has_target = labels.targets_for(data.image_set.digests, data.labels, rule)
    if not has_target[data.indices("train")].any():
        sure = f" of at least --label-confidence {rule.confidence:g}" if rule.confidence else ""
        raise TableError(
            f"{path} holds no text label{sure} of a training image; run `gpt4image label` on this image set."
        )
    return replace(data, soft=targets)
