"""``label --task detection``: boxes of answered images, as these annotators would draw them; boxes that look wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ConfigError, DecodeError, first_few, first_line
from gpt4image.base.files import parquet_rows
from gpt4image.base.outcome import Skipped
from gpt4image.config import LabelConfig
from gpt4image.config.results import LabelResult
from gpt4image.data import ImageSet
from gpt4image.data.box_files import write_coco
from gpt4image.data.coco import COCO, Ids, coco_ids
from gpt4image.data.decode import sides
from gpt4image.data.file_source import FileSource
from gpt4image.data.regions import Boxes, Masks
from gpt4image.labelling.box_answers import read_boxes
from gpt4image.labelling.box_errors import suspected_boxes
from gpt4image.labelling.box_page import ShownBoxes, in_words, write_box_page, write_suspected
from gpt4image.labelling.boxes import BoxEvidence, TaughtBoxes, quality, teach
from gpt4image.labelling.text_vectors import Texts

FEW_FOUND = 0.3
"""Share of the human boxes that are answered, below which the convention of the numbers is doubted."""
FEWEST_BOXES = 5
"""Human boxes that can tell."""


def boxes_of(images: ImageSet) -> Boxes:
    """Return the boxes of a dataset; none is known where it has none, as where it has masks."""
    return images.regions if isinstance(images.regions, Boxes) else Boxes.of_images([None] * len(images))


def label_boxes(
    config: LabelConfig, images: ImageSet, texts: Texts, table: EmbeddingTable | None, notes: Sequence[str]
) -> LabelResult:
    """Write the boxes of all images with human boxes in train, or with an answer, and a page of suspected errors.

    Args:
        config: of ``label``.
        images: each picture once.
        texts: of the images.
        table: which embeddings these are; None without.
        notes: what cannot be read, and why.

    Raises:
        ConfigError: options that do not go with boxes.
        TableError: the store has no box of these images, or texts are to tell the class and cannot.
    """
    answers, evidence = _checked(config)
    answered, strange = read_boxes(answers, images.digests, images.classes)
    every, train = boxes_of(images), images.splits == "train"
    human = every.hidden(~train)
    taught = teach(
        answered,
        human,
        texts if texts.described.any() else None,
        len(images.classes),
        seed=config.seed,
        evidence=evidence,
        reference=train,
    )
    targets = taught.targets(human)
    shown = ShownBoxes(
        images=images,
        human=human,
        taught=taught,
        suspected=suspected_boxes(taught, human),
        table=None if table is None else table.manifest,
    )
    known = targets.known & ~human.known
    summary: dict[str, Any] = {
        "images": len(images),
        "described": int(texts.described.sum()),
        "answered": int(answered.given.sum()),
        "coverage": round(float(targets.known[train].mean()), 4),
        "labelled": int(human.known.sum()),
        "answered_boxes": len(answered.boxes.labels),
        "human_boxes": len(human.labels),
        "teacher_boxes": int((targets.weights[targets.places(known)] > 0).sum()),
        "ignore_regions": int((targets.weights[targets.places(known)] == 0).sum()),
        **_how_good(taught, human, every.hidden(images.splits != "val")),
        **{f"weight_of_{name}": round(weight, 2) for name, weight in taught.weights.items()},
        "doubtful": len(shown.suspected),
    }
    page, unreadable = write_box_page(config, shown, summary)
    suspected = config.out.with_suffix(".suspected.csv")
    write_suspected(suspected, shown)
    summary |= {"page": str(page), "suspected": str(suspected)}
    rows = np.flatnonzero(targets.known)
    found = BoxLabels(
        keys=tuple(images.keys[row] for row in rows),
        digests=tuple(images.digests[row] for row in rows),
        boxes=targets[rows],
        classes=images.classes,
        facts={
            "evidence": evidence,
            "seed": config.seed,
            "answers": str(answers.absolute()),
            "embeddings": "" if config.embeddings is None else str(config.embeddings.absolute()),
            "human": np.flatnonzero(human.known[rows]).tolist(),
        },
    )
    file = config.out.with_suffix(".parquet")
    found.save(file)
    if config.out != file:
        sizes = {place: size for place, row in enumerate(rows.tolist()) if (size := _size(images, row, unreadable))}
        kept = list(sizes)
        names = [found.keys[i] for i in kept]
        ids = _ids(images, rows[kept])
        write_coco(config.out, names, list(sizes.values()), found.boxes[kept], found.classes, ids)
    unknown = f"{strange.total()} answered boxes are of none of the classes: {first_few(strange)}." if strange else ""
    said = [*notes, *([unknown] if unknown else []), *_other_numbers(summary)]
    return LabelResult.of_facts(
        summary,
        path=file,
        wrote=tuple(dict.fromkeys((file, config.out, page, suspected))),
        notes=said,
        counts={
            name: summary["labelled"]
            if not name.endswith("_on_val")
            else int(every.known[images.splits == "val"].sum())
            for name in summary
            if name.startswith(("precision_of_", "recall_of_"))
        },
        read_rows=partial(parquet_rows, file),
        text="\n\n".join([*said, _in_words(summary, images), in_words(shown, config.doubtful)]),
        skipped=tuple(dict.fromkeys((*images.skipped, *unreadable))),
    )


def _ids(images: ImageSet, rows: NDArray[np.int64]) -> list[Ids | None]:
    """Return the ids of images in the COCO files of their dataset; None where they are of another."""
    if not images.spec.startswith(COCO) or not isinstance(images.source, FileSource):
        return [None] * len(rows)
    known, path = coco_ids(images.spec.removeprefix(COCO)), images.source.path
    return [known.get(os.path.realpath(path(row))) for row in images.rows[rows].tolist()]


def _size(images: ImageSet, row: int, skipped: list[Skipped]) -> tuple[int, int] | None:
    """Return width and height of a picture; None where it cannot be read, which is noted."""
    try:
        return sides(images.read(row))
    except (DecodeError, OSError) as error:
        skipped.append(Skipped(name=images.keys[row], reason=first_line(error)))
        return None


def _checked(config: LabelConfig) -> tuple[Path, BoxEvidence]:
    """Return the store and the evidence of a teacher of boxes. Raises ConfigError: other options are given."""
    if config.answers is None:
        raise ConfigError("--task detection needs --answers STORE, with answers of `gpt4image describe --ask boxes`.")
    if config.suggest:
        raise ConfigError(f"--suggest {config.suggest} is for classification; leave it out for --task detection.")
    if config.out.suffix not in (".parquet", ".json"):
        raise ConfigError(f"--out {config.out}: boxes are written as .parquet, or as .json in COCO's format.")
    if config.evidence == "names":
        raise ConfigError("--evidence names tells classes of whole images; give fused, texts or answers.")
    return config.answers, config.evidence


def _how_good(taught: TaughtBoxes, human: Boxes, val: Boxes) -> dict[str, float | None]:
    """Return precision and recall of answers and teacher on human boxes that were held out, and on those of val."""
    every = np.ones(len(taught.boxes.labels), bool)
    parts = {
        "of_answers": quality(taught.boxes, human, every),
        "of_teacher": quality(taught.boxes, human, taught.likely),
        "of_teacher_on_val": quality(taught.boxes, val, taught.likely),
    }
    return {
        f"{name}_{whose}": None if value is None else round(value, 4)
        for whose, each in parts.items()
        for name, value in each.items()
    }


def _other_numbers(facts: dict[str, Any]) -> list[str]:
    """Return what to do where so few human boxes are answered that the numbers seem to stand for something else."""
    recall = facts["recall_of_answers"]
    if recall is None or recall >= FEW_FOUND or facts["human_boxes"] < FEWEST_BOXES:
        return []
    return [
        f"Only {recall:.1%} of the human boxes have an answered box. The numbers may be in another convention: "
        "files are read as left, top, right, bottom in thousandths of the picture. Read a file with other numbers into "
        "a new store by `gpt4image descriptions import --box-format ORDER-UNIT`; for a describer give `describe "
        "--box-format`, which asks nothing anew."
    ]


def _in_words(facts: dict[str, Any], images: ImageSet) -> str:
    """Return what the teacher has learned, in a sentence or two."""
    if facts["precision_of_answers"] is None:
        taken = "Answered boxes are taken at their word, those cut off with less weight"
        if isinstance(images.regions, Masks):
            return f"{taken}: masks do not say which boxes people draw."
        return (
            f"{taken}: no training image with an answer is annotated. Annotate a few images to teach what people draw."
        )
    drew = f"Annotators drew {facts['precision_of_answers']:.1%} of the answered boxes."
    kept = f"Of the others, {facts['teacher_boxes']:,} boxes count and {facts['ignore_regions']:,} are ignore regions."
    if facts["precision_of_teacher"] is None:
        return f"{drew} The teacher, which learned on other images, keeps none of these. {kept}"
    recall = facts["recall_of_teacher"]
    theirs = "" if recall is None else f", and it keeps {recall:.1%} of theirs"
    return (
        f"{drew} Of the boxes that the teacher keeps, learned on other images, they drew "
        f"{facts['precision_of_teacher']:.1%}{theirs}. {kept}"
    )
