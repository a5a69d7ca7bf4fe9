"""Targets of the images that a run reads: what the arms of a comparison are taught by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, scatter, take
from gpt4image.config.learning import Evidence
from gpt4image.data import annotation
from gpt4image.data.dataset import DOUBT, NO_LABEL
from gpt4image.data.regions import Boxes
from gpt4image.data.splits import representatives
from gpt4image.labelling.boxes import teach
from gpt4image.labelling.evidence import AnsweredBoxes, Answers, read_boxes, read_for
from gpt4image.labelling.noise import judge
from gpt4image.labelling.pictures import Pictures, read_pictures
from gpt4image.labelling.sources import Predictions, predict_labels
from gpt4image.labelling.texts import Texts, unit
from gpt4image.training.targets import class_targets, explained, says_nothing
from gpt4image.training.training_data import TrainingData

AnyAnswers = Answers | AnsweredBoxes


def answers_about(data: TrainingData, path: Path) -> AnyAnswers:
    """Return the answers of a store about the images of a run: boxes, if the run is of boxes; else classes or tags."""
    if isinstance(data.labels, Boxes):
        return read_boxes(path, data.image_set.digests, data.classes)[0]
    return read_for(path, data.image_set).answers


def taught_boxes(
    data: TrainingData, seed: int, names: NDArray[np.float32] | None, answers: AnsweredBoxes, evidence: Evidence
) -> Boxes:
    """Return the boxes of all images, those of training images without human ones by the teacher.

    ``names`` are (K, D) class names in the space of the texts; errors are those of ``teach``.
    """
    train = data.indices("train")
    human: Boxes = data.labels[train]
    texts = texts_of(data, names).take(train)
    found = teach(
        answers.take(train),
        human.hidden(data.image_set.was_sampled(DOUBT)[train]),
        texts if texts.described.any() else None,
        len(data.classes),
        seed=seed,
        evidence="fused" if evidence == "names" else evidence,
        groups=np.unique([data.image_set.digests[i] for i in train], return_inverse=True)[1],
    )
    return data.labels.replaced(train, found.targets(human))


def texts_of(data: TrainingData, names: NDArray[np.float32] | None) -> Texts:
    """Return the texts of all images; ``names`` are (K, D) class names in their space, None where not known."""
    if data.text is None:
        return Texts.none(len(data.labels))
    vectors, described, _ = data.text.take(np.arange(len(data.labels)))
    return Texts(unit(vectors.numpy()), described.numpy(), names)


def labels_of(data: TrainingData, images: NDArray[np.int64]) -> NDArray[Any]:
    """Return the labels of whole images that training may see; see ``annotation.of_images``."""
    return annotation.of_images(data.labels[images], len(data.classes))


def predict_training(
    data: TrainingData,
    seed: int,
    names: NDArray[np.float32] | None,
    *,
    answers: Answers | None = None,
    evidence: Evidence = "fused",
    pictures: Pictures | None = None,
) -> Predictions:
    """Return predictions by the labels that are left; their rows are the images ``data.indices("train")``.

    Nothing of other splits is read. Byte-equal images are one, with the label of the first that has one: a copy in
    another fold would tell the label that is to be judged.
    """
    train = data.indices("train")
    labels, digests = labels_of(data, train), [data.image_set.digests[i] for i in train]
    known = annotation.known(data.labels[train])
    distinct, copy_of = np.unique(representatives(digests, (~known).astype(int)), return_inverse=True)
    rows = train[distinct]
    found = predict_labels(
        texts_of(data, names).take(rows),
        labels[distinct],
        len(data.classes),
        seed,
        answers=answers and answers.take(rows),
        evidence=evidence,
        pictures=pictures and pictures.take(rows),
        judging=~data.image_set.was_sampled(DOUBT)[rows],
    )
    return replace(
        found,
        probabilities=take(found.probabilities, copy_of),
        single_source=None if found.single_source is None else found.single_source[copy_of],
        out_of_fold=found.out_of_fold[copy_of] & (labels != NO_LABEL),
        said={name: classes[copy_of] for name, classes in found.said.items()},
    )


def pictures_of(data: TrainingData, features: str, folder: Path) -> Pictures | None:
    """Return features of the training images, kept in ``folder``; None where ``features`` is none. Errors are those of
    ``read_pictures``."""
    return read_pictures(data.image_set, data.image_set.splits == "train", features, folder)[0]


def targets_of(predictions: Predictions, data: TrainingData, trust: float | None) -> Probabilities:
    """Return (N, K) targets of the training images, by ``predict_training``, none for others.

    ``trust`` is the share of a given label, as of ``class_targets``.
    """
    train = data.indices("train")
    labels, found = labels_of(data, train), predictions.probabilities
    explains = explained(found, labels, predictions.out_of_fold)
    silent = says_nothing(data.task, found, labels, predictions.out_of_fold, predictions.noise, trust)
    targets = class_targets(
        data.task,
        found,
        labels,
        predictions.noise,
        explains,
        trust,
        silent=silent,
        single_source=predictions.single_source,
    )
    return scatter(targets, train, len(data.labels), data.task.no_target)


def judge_training(predictions: Predictions, data: TrainingData) -> dict[str, Any]:
    """Return how well predictions name the labels of the training images that are not the true ones; see ``judge``."""
    rows = np.flatnonzero(predictions.out_of_fold)
    images = data.indices("train")[rows]
    return judge(take(predictions.probabilities, rows), data.labels[images], data.image_set.labels[images])
