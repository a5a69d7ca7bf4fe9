"""The stage ``label``: class probabilities of every described image, labels that look wrong, images to look at next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import chosen
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.base.errors import ConfigError
from gpt4image.base.files import parquet_rows
from gpt4image.config import LabelConfig
from gpt4image.config.results import LabelResult
from gpt4image.data import NO_LABEL, ImageSet, load_with_splits
from gpt4image.data.labels import note_other_classes, used_classes
from gpt4image.data.regions import Boxes
from gpt4image.data.splits import representatives
from gpt4image.describing.class_lists import class_list
from gpt4image.encoding.class_names import find_class_names, not_read
from gpt4image.labelling.answers import Read, answered_classes, read_for
from gpt4image.labelling.confusions import (
    AGAIN,
    AGAIN_CLASSES,
    Confused,
    confused_pairs,
    confused_table,
    write_classes,
    write_images,
)
from gpt4image.labelling.label_boxes import label_boxes
from gpt4image.labelling.label_noise import contradicted, suspected_errors
from gpt4image.labelling.label_page import Shown, in_words, write_page
from gpt4image.labelling.label_table import write_table
from gpt4image.labelling.predictions import Predictions, predict_labels
from gpt4image.labelling.suggest import Suggestion, to_describe, to_label, write_suggestions
from gpt4image.labelling.text_vectors import Texts, open_table, smooth
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification, Video, calibration_error
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.targets import LEAST_EXPLAINED, explained, says_nothing_in

LABELS_WRONG = (
    "Some of the given labels look wrong. How often the text agrees with them is not how often it is right, and "
    "calibration cannot be measured against them; only labels that you have checked tell. If the labels are right, "
    "the texts are wrong: look at them, and train with --label-trust 0.5."
)
TEXTS_SAY_LITTLE = (
    "Texts and answers say little of these classes, so training will take given labels at their word and use the rest "
    "only for images without a label (--label-trust sets another share). Look at what was answered: does the prompt "
    "ask for what tells the classes apart?"
)
TEXTS_SAY_NOTHING = (
    "Texts and answers say next to nothing of these classes, so training will use the given labels alone (with "
    "--label-trust it would use texts and answers, too). Does the prompt ask for what tells the classes apart?"
)


def label(config: LabelConfig) -> LabelResult:
    """Write class probabilities of every image with evidence to ``config.out``, and a page of suspected label errors.

    Only labels of the train split are learned from, and only train texts shape others. The test split's labels are
    never looked at. With ``suggest``, the images to label and to describe next are written beside the page. So are
    the images and classes for a sharper question, where answers confuse classes.

    Raises:
        ConfigError: suggestions are asked for where images have several classes.
        DataError: the dataset cannot be read as asked.
        TableError: table or answers are missing, are of other images or were told the class; or too few described
            images have a label where nothing but texts is read.
    """
    images = _images(config)
    if config.task == "detection" or (config.task == "auto" and isinstance(images.regions, Boxes)):
        return label_boxes(config, images, *_texts(config, images))
    task = MultiLabel() if images.labels.ndim == 2 else Video() if images.clips else Classification()
    if config.task not in ("auto", task.name):
        raise ConfigError(f"--task {config.task}: labels of {config.data} are of {task.name}; leave it out.")
    if config.suggest and not task.exclusive:
        raise ConfigError(
            f"--suggest {config.suggest} needs one class per image; {config.data} has several: leave it out."
        )
    task.require(images.labels, images.classes, config.data)
    texts, table, notes = _texts(config, images)
    read = None if config.answers is None else read_for(config.answers, images)
    answers = None if read is None else read.answers
    train = images.splits == "train"
    labels = images.labels.copy()
    labels[~train] = NO_LABEL
    known = images.revised(labels=labels)
    predicted = predict_labels(
        texts, labels, len(images.classes), config.seed, reference=train, answers=answers, evidence=config.evidence
    )
    rows, matrix = np.flatnonzero(predicted.known), predicted.noise.transition
    found = TextLabels(
        keys=tuple(images.keys[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        splits=images.splits[rows],
        labels=labels[rows],
        probabilities=predicted.probabilities if len(rows) == len(images) else chosen(predicted.probabilities, rows),
        out_of_fold=predicted.out_of_fold[rows],
        facts=Facts(
            classes=images.classes,
            noise=predicted.noise.rate,
            agreement=predicted.agreement,
            c=predicted.c,
            folds=predicted.folds,
            seed=config.seed,
            encoders=() if table is None else (table.manifest.encoder,),
            embeddings=() if config.embeddings is None else (str(config.embeddings.absolute()),),
            names=predicted.names,
            transition=() if matrix is None else tuple(map(tuple, matrix.tolist())),
            task=task.name,
            evidence=config.evidence
            if config.evidence != "fused" or answers is not None
            else _what_was_read(predicted),
            weights={} if predicted.weights.keys() == {"texts"} else predicted.weights,
            answers="" if config.answers is None else str(config.answers.absolute()),
            answered=0 if answers is None else int(answers.given.sum()),
        ),
    )
    shown = Shown(
        images=known,
        probabilities=predicted.probabilities,
        table=None if table is None else table.manifest,
        suspected=suspected_errors(
            predicted.probabilities, labels, predicted.out_of_fold, contradicted(labels, predicted.said)
        ),
        suggestions=_suggestions(config, texts, predicted, known),
        answers=answers if labels.ndim == 1 else None,
    )
    explains = explained(found.probabilities, found.labels, found.out_of_fold)
    usable = predicted.known & known.labelled
    summary: dict[str, Any] = {
        "images": len(images),
        "described": int(texts.described.sum()),
        **({} if answers is None else {"answered": found.facts.answered}),
        "coverage": round(float(predicted.known[train].mean()), 4),
        "labelled": int(usable.sum()),
        "classes_without_label": len(images.classes) - len(used_classes(labels[usable])),
        **_how_good(task, found, explains, images.labels[rows]),
        "noise": round(found.facts.noise, 4),
        "class_names": round(found.facts.names, 4),
        **{f"weight_of_{name}": round(weight, 2) for name, weight in found.facts.weights.items()},
        "doubtful": len(shown.suspected),
    }
    file = config.out.with_suffix(".parquet") if config.out.suffix == ".csv" else config.out
    found.save(file)
    page, unreadable = write_page(config, shown, summary, found.facts.agreement)
    summary["page"] = str(page)
    if config.suggest:
        summary["suggestions"] = str(config.out.with_suffix(".suggestions.csv"))
        guesses = [shown.guess(item.row) for item in shown.suggestions]
        keys = [images.keys[item.row] for item in shown.suggestions]
        write_suggestions(Path(summary["suggestions"]), shown.suggestions, keys, guesses)
    pairs = _ask_again(config, read, predicted, known)
    if pairs:
        summary["again"] = str(config.out.with_suffix(AGAIN))
        summary["again_classes"] = str(config.out.with_suffix(AGAIN_CLASSES))
    if file != config.out:
        write_table(config.out, found)
        summary["table"] = str(config.out)
    again = [Path(summary[name]) for name in ("again", "again_classes") if name in summary]
    strange = [] if read is None else read.in_words()
    confused = [confused_table(pairs, images.classes)] if pairs else []
    notes = [*_warnings(task, found, explains), *notes, *strange]
    return LabelResult.of_facts(
        summary,
        path=file,
        wrote=tuple(dict.fromkeys((file, config.out, page, *again))),
        notes=notes,
        counts=_counts(task, summary, found, images.labels[rows]),
        read_rows=partial(parquet_rows, file),
        text="\n\n".join([*notes, in_words(shown, config.doubtful), *confused]),
        skipped=tuple(dict.fromkeys((*images.skipped, *unreadable))),
    )


def _what_was_read(predicted: Predictions) -> str:
    return "texts" if "texts" in predicted.weights else "names"


def _images(config: LabelConfig) -> ImageSet:
    """Return the dataset, each picture once, with class names.

    Names come from --classes or from the class list of the answers where no image has a label.
    """
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    names = tuple(option.name for option in class_list(config.classes)) if config.classes else images.classes
    if not names and config.answers is not None:
        names = answered_classes(config.answers)
    if not names:
        raise ConfigError(
            f"No image of {config.data} has a label, so its classes are not known; name them with --classes."
        )
    note_other_classes(
        "--classes" if config.classes else f"--answers {config.answers}", names, images.classes, config.data
    )
    images = images.with_classes(names)
    preferred = 2 * (images.splits != "train") + ~images.labelled
    return images.select(np.unique(representatives(images.digests, preferred)))  # no copy may be in another fold


def _texts(config: LabelConfig, images: ImageSet) -> tuple[Texts, EmbeddingTable | None, list[str]]:
    """Return the texts of images and class names, where they come from, and why names cannot be read."""
    if config.embeddings is None:
        return Texts(np.zeros((len(images), 1), np.float32), np.zeros(len(images), bool)), None, []
    table = open_table(config.embeddings)
    names = find_class_names(config.embeddings, "auto", images.classes)
    table.require_own(images)
    vectors = table.of_images(images.digests)
    return Texts(vectors, vectors.described, names.vectors), table, not_read([names])


def _ask_again(config: LabelConfig, read: Read | None, predicted: Predictions, known: ImageSet) -> list[Confused]:
    """Return the pairs of classes that answers confuse; what a sharper question needs is written beside the output."""
    if read is None or known.labels.ndim == 2:
        return []
    trusted = known.labels if predicted.noise.rate == 0.0 else np.full_like(known.labels, NO_LABEL)
    askable = predicted.known & ~read.again & (known.splits != "test")
    pairs = confused_pairs(predicted.said, trusted, predicted.probabilities, askable)
    if pairs:
        write_images(config.out.with_suffix(AGAIN), pairs, known, predicted.probabilities)
        write_classes(config.out.with_suffix(AGAIN_CLASSES), pairs, known.classes, read.definitions)
    return pairs


def _suggestions(config: LabelConfig, texts: Texts, predicted: Predictions, known: ImageSet) -> list[Suggestion]:
    """Return the images to label next, then those to describe next, best first."""
    if not config.suggest:
        return []
    described, train = texts.described, known.splits == "train"
    unlabelled = np.flatnonzero(predicted.known & train & ~known.labelled)
    if described.any():
        shaping = np.flatnonzero(described & train)
        vectors = smooth(texts.centred(shaping), shaping, config.seed)
    else:
        vectors = predicted.probabilities
    return [
        *to_label(vectors, predicted.probabilities, unlabelled, config.suggest, config.seed),
        *to_describe(described, known.labels, np.flatnonzero(~described & train), config.suggest),
    ]


def _warnings(task: Task, found: TextLabels, explains: float | None) -> list[str]:
    if found.facts.noise > 0.0:
        return [LABELS_WRONG]
    if says_nothing_in(task, found):
        return [TEXTS_SAY_NOTHING]
    if explains is not None and explains < LEAST_EXPLAINED:
        return [TEXTS_SAY_LITTLE]
    return []


def _how_good(task: Task, found: TextLabels, explains: float | None, true: NDArray[Any]) -> dict[str, float | None]:
    """Return how right the texts are on labels that were held out, and on those of the val split, ``true``.

    Against labels that look wrong it is called agreement.
    """
    metric = "accuracy" if task.exclusive else task.primary.name

    def score(labels: NDArray[Any], rows: NDArray[np.bool_]) -> float | None:
        predicted: Any = chosen(found.probabilities, rows)
        predicted = predicted if task.exclusive else np.nan_to_num(predicted[:], nan=0.5)
        return _rounded(task.measure(predicted, labels[rows], found.classes).get(task.primary.name))

    if found.facts.noise > 0.0:
        held_out = {"agreement_with_given_labels": _rounded(found.facts.agreement)}
    else:
        given = np.where(found.out_of_fold, found.labels, NO_LABEL)
        held_out = {
            f"cross_validated_{metric}": score(given, task.known(given)),
            "labels_explained": _rounded(explains),
            "calibration_error": _rounded(_calibration_error(found)),
        }
    return {**held_out, f"val_{metric}": score(true, found.splits == "val")}


def _counts(task: Task, facts: Mapping[str, Any], found: TextLabels, true: NDArray[Any]) -> dict[str, int]:
    """Return on how many labelled images each score was measured."""
    given = np.where(found.out_of_fold, found.labels, NO_LABEL)
    held_out, val = int(task.known(given).sum()), int((task.known(true) & (found.splits == "val")).sum())
    of_given = ("cross_validated_", "labels_explained", "calibration_error", "agreement_")
    return dict.fromkeys((name for name in facts if name.startswith(of_given)), held_out) | dict.fromkeys(
        (name for name in facts if name.startswith("val_")), val
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _calibration_error(found: TextLabels) -> float | None:
    """Expected calibration error of out-of-fold predictions against the given labels."""
    held_out = found.out_of_fold
    if not held_out.any():
        return None
    given = found.labels[held_out]
    if given.ndim < found.labels.ndim:
        return calibration_error(found.probabilities[:][held_out], given)
    predicted = chosen(found.probabilities, held_out)
    return calibration_error(predicted.max(axis=1), predicted.argmax(axis=1) == given)
