"""Text labels of the images that a run reads: what the arms of a comparison are taught by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import TargetRule, TextLabels
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.config import LabelConfig, TrainOptions
from gpt4image.data.image_set import NO_LABEL, SPLITS, ImageSet
from gpt4image.data.splits import stand_ins
from gpt4image.encoding.class_names import ClassNames
from gpt4image.labelling.cotraining import second_opinion
from gpt4image.labelling.label_noise import explained, judge
from gpt4image.labelling.reading import Method, Reading, read_labels
from gpt4image.labelling.text_vectors import Texts, embedded_names, unit
from gpt4image.training.training_data import TrainingData, is_described, require_own_images


def class_names_of(config: TrainOptions, classes: tuple[str, ...]) -> tuple[ClassNames, ...]:
    """Return the class names in the space of each table that text labels are read off; see ``embedded_names``."""
    tables = [path for path in (config.embeddings, *config.label_embeddings) if path is not None]
    return tuple(embedded_names(tables, config.device, classes, _method(config)))


def texts_of(data: TrainingData, config: TrainOptions, names: Sequence[ClassNames] | None = None) -> Texts:
    """Return the texts of all images of a run: those of its table, and of the further ones for text labels.

    An image whose descriptions were taken away by a regime has none in the further tables either.

    Args:
        data: of the run.
        config: its options.
        names: what ``class_names_of`` returned for it, where that is known.

    Raises:
        ConfigError: there is no embedding table.
        TableError: a further table is missing or damaged.
    """
    if data.text is None or config.embeddings is None:
        raise ConfigError("Text labels need --embeddings.")
    digests = data.image_set.digests
    vectors, described, _ = data.text.take(np.arange(len(digests)))
    parts, has = [unit(vectors.numpy())], [described.numpy()]
    left = ~_taken_away(config.embeddings, digests, described.numpy())
    for path in config.label_embeddings:
        vectors, described = EmbeddingTable.open(path).vectors(digests)
        parts.append(vectors)
        has.append(described & left)
    names = class_names_of(config, data.classes) if names is None else names
    return Texts(parts=tuple(parts), has=tuple(has), names=tuple(name.vectors for name in names))


def described_by(data: TrainingData, tables: Sequence[Path | None]) -> NDArray[np.bool_]:
    """Return (N,) which images have a text in one of ``tables``, the first being that of ``data``: see ``texts_of``.

    Raises:
        TableError: a further table is missing or damaged, or of other images.
    """
    own, *further = tables
    if data.text is None or own is None:
        return np.zeros(len(data.labels), bool)
    found, digests = data.text.described, data.image_set.digests
    if further:
        left = ~_taken_away(own, digests, found)
        for table in map(EmbeddingTable.open, filter(None, further)):
            require_own_images(table, data.image_set)
            found = found | (is_described(table, digests) & left)
    return found


def _taken_away(embeddings: Path, digests: Sequence[str], described: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N,) which images a table describes, but are not among the ``described`` ones any more."""
    return is_described(EmbeddingTable.open(embeddings), digests) & ~described


def _method(config: TrainOptions) -> Method:
    return config.label_method or LabelConfig.model_fields["method"].default


def read_training(
    data: TrainingData, config: TrainOptions, seed: int, names: Sequence[ClassNames] | None = None
) -> Reading:
    """Return what the texts say by the labels that are left; its rows are the images ``data.indices("train")``.

    Neither the texts nor the labels of other splits are read. Byte-equal images are read as one, by the first label
    among them: a copy in another fold would tell the label that is to be judged.

    Args and Raises: as ``texts_of``; ``seed`` is that of the run.
    """
    train = data.indices("train")
    labels, digests = data.labels[train], [data.image_set.digests[i] for i in train]
    read, copy_of = np.unique(stand_ins(digests, labels == NO_LABEL), return_inverse=True)
    texts = texts_of(data, config, names).take(train[read])
    reading = read_labels(texts, labels[read], len(data.classes), seed, method=_method(config))
    out_of_fold = reading.out_of_fold[copy_of] & (labels != NO_LABEL)
    return replace(reading, probabilities=reading.probabilities[copy_of], out_of_fold=out_of_fold)


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
    held_out = reading.out_of_fold
    explains = explained(reading.probabilities[held_out], labels[held_out])
    targets[train] = target_rule(config).apply(probabilities, labels, reading.noise, explains)
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
        TableError: no text label is of a training image and sure enough.
    """
    rule = target_rule(config, TargetRule(targets=labels.facts.targets, confidence=labels.facts.confidence))
    targets, has_target = labels.targets_for(data.image_set.digests, data.labels, rule)
    known = set(labels.digests)
    if not any(has_target[i] and data.image_set.digests[i] in known for i in data.indices("train")):
        sure = f" of at least --label-confidence {rule.confidence:g}" if rule.confidence else ""
        raise TableError(
            f"{config.text_labels} holds no text label{sure} of a training image; run `gpt4image label` on this image "
            "set."
        )
    return replace(data, soft=targets)
