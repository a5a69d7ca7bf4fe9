"""The stage ``label``: class probabilities of every described image, labels that look wrong, images to look at next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import Facts, TextLabels
from gpt4image.base.errors import TableError
from gpt4image.base.outcome import Outcome
from gpt4image.config import LabelConfig
from gpt4image.data import NO_LABEL, ImageSet, load_with_splits
from gpt4image.data.splits import representatives
from gpt4image.encoding.class_names import ClassNames, find_class_names, not_read
from gpt4image.labelling.label_noise import suspected_errors
from gpt4image.labelling.label_page import Shown, in_words, write_page
from gpt4image.labelling.predictions import Predictions, predict_labels
from gpt4image.labelling.suggest import Suggestion, to_describe, to_label, write_suggestions
from gpt4image.labelling.text_vectors import Texts, smooth
from gpt4image.training.targets import LEAST_EXPLAINED, explained

CALIBRATION_BINS = 15
LABELS_WRONG = (
    "Some of the given labels look wrong. How often the text agrees with them is not how often it is right, and "
    "calibration cannot be measured against them; only labels that you have checked tell. If the labels are right, "
    "the texts are wrong: look at them, and train with --label-trust 0.5."
)
TEXTS_SAY_LITTLE = (
    "The texts say little of these classes, so training will take given labels at their word and use texts for images "
    "without a label alone (--label-trust sets another share). Look at the texts: does the prompt ask for what tells "
    "the classes apart?"
)


def label(config: LabelConfig) -> Outcome:
    """Write text labels of every described image to ``config.out``, and a page of doubtful labels beside it.

    Only labels of the train split are learned from, and only train texts shape others. The test split's labels are
    never looked at. With ``suggest``, the images to label and to describe next are written beside the page.

    Raises:
        DataError: the image set cannot be read as asked.
        TableError: the table is missing, is of other images or was told the classes, or too few described images have a
            label.
    """
    from gpt4image.training.prepare import require_own_images

    table = open_table(config.embeddings)
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    preferred = 2 * (images.splits != "train") + (images.labels == NO_LABEL)
    images = images.select(np.unique(representatives(images.digests, preferred)))  # no copy may be in another fold
    names = find_class_names(config.embeddings, "auto", images.classes)
    texts = Texts(*table.vectors(images.digests), names.vectors)
    train = images.splits == "train"
    labels = np.where(train, images.labels, NO_LABEL)
    _require_labels(config, images, texts.described, labels)
    require_own_images(table, images)
    read = predict_labels(texts, labels, len(images.classes), config.seed, reference=train)
    rows = np.flatnonzero(texts.described)
    found = TextLabels(
        keys=tuple(images.keys[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        splits=images.splits[rows],
        labels=labels[rows],
        probabilities=read.probabilities[rows],
        out_of_fold=read.out_of_fold[rows],
        facts=_facts(config, images.classes, table, read),
    )
    suspected = suspected_errors(found.probabilities, found.labels, found.out_of_fold)
    explains = explained(found.probabilities, found.labels, found.out_of_fold)
    summary = _summary(images, texts.described, labels, found, explains)
    summary |= {"doubtful": len(suspected)}
    shown = Shown(
        images=images,
        probabilities=read.probabilities,
        labels=labels,
        table=table.manifest,
        doubtful=rows[suspected[:, 0]],
        suggestions=_suggestions(config, texts, read.probabilities, labels, train),
    )
    page, unreadable = write_page(config, shown, summary)
    files = {"page": str(page)}
    if config.suggest:
        files["suggestions"] = str(config.out.with_suffix(".suggestions.csv"))
        guesses = [shown.guess(item.row) for item in shown.suggestions]
        keys = [images.keys[item.row] for item in shown.suggestions]
        write_suggestions(Path(files["suggestions"]), shown.suggestions, keys, guesses)
    found.save(config.out)
    return Outcome(
        path=config.out,
        summary={**summary, **files},
        text="\n\n".join([*_warnings(found, explains, names), in_words(shown, config.doubtful)]),
        set_aside=tuple(dict.fromkeys((*images.set_aside, *unreadable))),
    )


def open_table(path: Path) -> EmbeddingTable:
    """Open an embedding table whose texts were not told the class. Raises TableError for one that was."""
    table = EmbeddingTable.open(path)
    if table.manifest.class_conditioned:
        raise TableError(
            f"{path}: these descriptions were written by someone who was told the class, so they repeat the "
            "given label: nothing can be learned about labels that are missing or wrong. Describe the images with a "
            "prompt that does not name the class (--prompt paper), or encode only those (`gpt4image encode --prompt`)."
        )
    return table


def _require_labels(
    config: LabelConfig, images: ImageSet, described: NDArray[np.bool_], labels: NDArray[np.int64]
) -> None:
    labelled = labels != NO_LABEL
    if not labelled.any():
        raise TableError(
            f"No training image of {config.data} has a label, so there is nothing to learn classes from; label a few "
            "images of each class."
        )
    if not (labelled & described).any():
        raise TableError(
            f"{config.data} has {labelled.sum()} training images with a label, but none of them has an embedding in "
            f"{config.embeddings} ({described.sum()} of {len(images)} images have one). Run `gpt4image descriptions "
            "check` on the store it came from, or describe the labelled images."
        )


def _facts(config: LabelConfig, classes: tuple[str, ...], table: EmbeddingTable, read: Predictions) -> Facts:
    matrix = read.noise.transition
    return Facts(
        classes=classes,
        noise=read.noise.rate,
        agreement=read.agreement,
        c=read.c,
        folds=read.folds,
        seed=config.seed,
        encoders=(table.manifest.encoder,),
        embeddings=(str(config.embeddings.absolute()),),
        names=read.names,
        transition=() if matrix is None else tuple(map(tuple, matrix.tolist())),
    )


def _suggestions(
    config: LabelConfig,
    texts: Texts,
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.bool_],
) -> list[Suggestion]:
    """Return the images to label next, then those to describe next, best first."""
    if not config.suggest:
        return []
    described = texts.described
    shaping = np.flatnonzero(described & train)
    vectors = smooth(texts.centred(shaping), shaping, config.seed)
    unlabelled = np.flatnonzero(described & train & (labels == NO_LABEL))
    return [
        *to_label(vectors, probabilities, unlabelled, config.suggest, config.seed),
        *to_describe(described, labels, np.flatnonzero(~described & train), config.suggest),
    ]


def _summary(
    images: ImageSet, described: NDArray[np.bool_], labels: NDArray[np.int64], found: TextLabels, explains: float | None
) -> dict[str, Any]:
    usable = described & (labels != NO_LABEL)
    val = described & (images.splits == "val") & (images.labels != NO_LABEL)
    place = {digest: row for row, digest in enumerate(found.digests)}
    val_rows = [place[images.digests[i]] for i in np.flatnonzero(val)]
    right = found.probabilities[val_rows].argmax(axis=1) == images.labels[val]
    return {
        "images": len(images),
        "described": int(described.sum()),
        "coverage": round(float(described.mean()), 4),
        "labelled": int(usable.sum()),
        "classes_without_label": len(images.classes) - len(np.unique(labels[usable])),
        **_how_good(found, explains),
        "val_accuracy": _rounded(float(right.mean()) if len(right) else None),
        "noise": round(found.facts.noise, 4),
        "class_names": round(found.facts.names, 4),
    }


def _warnings(found: TextLabels, explains: float | None, names: ClassNames) -> list[str]:
    texts = not_read([names])
    if found.facts.noise > 0.0:
        return [LABELS_WRONG, *texts]
    if explains is not None and explains < LEAST_EXPLAINED:
        texts.append(TEXTS_SAY_LITTLE)
    return texts


def _how_good(found: TextLabels, explains: float | None) -> dict[str, float | None]:
    """Return how right the texts are on labels that were held out, under a name that says what it was held against."""
    agreement = _rounded(found.facts.agreement)
    if found.facts.noise > 0.0:
        return {"agreement_with_given_labels": agreement}
    held_out = found.out_of_fold
    error = _calibration_error(found.probabilities[held_out], found.labels[held_out])
    measured = {"labels_explained": _rounded(explains), "calibration_error": _rounded(error)}
    return {"cross_validated_accuracy": agreement, **measured}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float | None:
    """Expected calibration error of out-of-fold predictions against the given labels."""
    if not len(labels):
        return None
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    error = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), probabilities.shape[1], n_bins=CALIBRATION_BINS
    )
    return float(error)
