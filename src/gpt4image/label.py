"""The stage ``label``: class probabilities of every described image, and a page of labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.class_names import find_class_names
from gpt4image.config import LabelConfig
from gpt4image.data import NO_LABEL, ImageSet, load_with_splits
from gpt4image.errors import DecodeError, TableError, first_few
from gpt4image.examples import picture, read_descriptions
from gpt4image.files import write_text
from gpt4image.outcome import Outcome, SetAside
from gpt4image.page import render
from gpt4image.reading import read_labels
from gpt4image.table import EmbeddingTable
from gpt4image.text_labels import Facts, TextLabels
from gpt4image.text_vectors import Texts

CALIBRATION_BINS = 15


def label(config: LabelConfig) -> Outcome:
    """Write text labels of every described image to ``config.out``, and a page of doubtful labels beside it.

    Only labels of the train split are learned from, and only train texts shape others. The test split's labels are
    never looked at.

    Raises:
        DataError: the image set cannot be read as asked.
        TableError: a table is missing or was told the classes, or too few described images have a label.
    """
    tables = open_tables(config.embeddings)
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    images = images.select(_first_of_each_digest(images))
    names = [find_class_names(path, "auto", images.classes) for path in config.embeddings]
    texts = Texts.of(tables, images.digests, [name.vectors for name in names])
    train = images.splits == "train"
    labels = np.where(train, images.labels, NO_LABEL)
    _require_labels(config, images, texts.described, labels)
    read = read_labels(texts, labels, len(images.classes), config.seed, reference=train, method=config.method)
    rows = np.flatnonzero(texts.described)
    found = TextLabels(
        keys=tuple(images.keys[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        splits=images.splits[rows],
        labels=labels[rows],
        probabilities=read.probabilities[rows],
        out_of_fold=read.out_of_fold[rows],
        facts=Facts(
            classes=images.classes,
            noise=read.noise.rate,
            transition=() if read.noise.transition is None else tuple(map(tuple, read.noise.transition.tolist())),
            agreement=read.agreement,
            c=read.c,
            folds=read.folds,
            seed=config.seed,
            encoders=tuple(table.manifest.encoder for table in tables),
            method=config.method,
            names=read.names,
            targets=config.targets,
            confidence=config.confidence,
        ),
    )
    summary = _summary(images, texts.described, labels, found)
    cards, set_aside = _cards(images.select(rows), found, config.doubtful, Path(tables[0].manifest.store))
    found.save(config.out)
    page = config.out.with_suffix(".html")
    write_text(page, render("doubtful.html", data=config.data, cards=cards, total=len(found.doubtful), facts=summary))
    return Outcome(
        path=config.out,
        summary={**summary, "page": str(page)},
        text=_table(cards),
        set_aside=(*images.set_aside, *set_aside),
    )


def open_tables(paths: Sequence[Path]) -> list[EmbeddingTable]:
    """Open embedding tables whose texts were not told the class. Raises TableError for one that was."""
    tables = [EmbeddingTable.open(path) for path in paths]
    told = [str(path) for path, table in zip(paths, tables, strict=True) if table.manifest.class_conditioned]
    if told:
        raise TableError(
            f"{first_few(told)}: these descriptions were written by someone who was told the class, so they repeat the "
            "given label: nothing can be learned about labels that are missing or wrong. Describe the images with a "
            "prompt that does not name the class (--prompt paper), or encode only those (`gpt4image encode --prompt`)."
        )
    return tables


def _first_of_each_digest(images: ImageSet) -> NDArray[np.int64]:
    """One image per digest, train before others: no copy of an image may be in another fold."""
    place: dict[str, int] = {}
    for i in sorted(range(len(images)), key=lambda i: (images.splits[i] != "train", images.labels[i] == NO_LABEL)):
        place.setdefault(images.digests[i], i)
    return np.array(sorted(place.values()), dtype=np.int64)


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
            f"{first_few(str(path) for path in config.embeddings)} ({described.sum()} of {len(images)} images have "
            "one). Run `gpt4image descriptions check` on the store it came from, or describe the labelled images."
        )


def _summary(
    images: ImageSet, described: NDArray[np.bool_], labels: NDArray[np.int64], found: TextLabels
) -> dict[str, Any]:
    usable = described & (labels != NO_LABEL)
    val = described & (images.splits == "val") & (images.labels != NO_LABEL)
    val_rows = val[described]
    right = found.probabilities[val_rows].argmax(axis=1) == images.labels[val]
    held_out = found.out_of_fold
    return {
        "images": len(images),
        "described": int(described.sum()),
        "coverage": round(float(described.mean()), 4),
        "labelled": int(usable.sum()),
        "classes_without_label": len(images.classes) - len(np.unique(labels[usable])),
        "cross_validated_accuracy": _rounded(found.facts.agreement),
        "val_accuracy": _rounded(float(right.mean()) if len(right) else None),
        "calibration_error": _rounded(_calibration_error(found.probabilities[held_out], found.labels[held_out])),
        "noise": round(found.facts.noise, 4),
        "class_names": round(found.facts.names, 4),
        "doubtful": len(found.doubtful),
    }


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


def _cards(images: ImageSet, found: TextLabels, limit: int, store: Path) -> tuple[list[dict[str, Any]], list[SetAside]]:
    """Return what the page shows of the most doubtful labels, and the images whose picture cannot be shown."""
    texts = read_descriptions(store, [found.digests[row] for row in found.doubtful[:limit]])
    cards: list[dict[str, Any]] = []
    set_aside: list[SetAside] = []
    for row in found.doubtful[:limit].tolist():
        shown = None
        try:
            shown = picture(images.read(row))
        except (DecodeError, OSError) as error:
            set_aside.append(SetAside(name=found.keys[row], reason=str(error)))
        text = int(found.probabilities[row].argmax())
        cards.append(
            {
                "key": found.keys[row],
                "picture": shown,
                "given": found.classes[found.labels[row]],
                "text": found.classes[text],
                "probability": float(found.probabilities[row, text]),
                "doubt": float(found.doubt[row]),
                "descriptions": texts.get(found.digests[row], []),
            }
        )
    return cards, set_aside


def _table(cards: Sequence[dict[str, Any]]) -> str:
    if not cards:
        return "No doubtful labels."
    rows = [("image", "given label", "text label", "probability", "doubt")]
    rows += [
        (
            *(_printable(card[name]) for name in ("key", "given", "text")),
            f"{card['probability']:.2f}",
            f"{card['doubt']:.3f}",
        )
        for card in cards
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["Most doubtful labels", *lines])


def _printable(name: str) -> str:
    """Escape what a terminal would act on: names of files and folders are not ours."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
