"""The stage ``label``: targets of every image with evidence, human labels that look wrong, images to look at next."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.box_table import BoxLabels
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.artifacts.top_k_probs import chosen
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.files import parquet_rows
from gpt4image.base.outcome import Skipped
from gpt4image.config import LabelConfig
from gpt4image.config.results import LabelResult
from gpt4image.data import NO_LABEL, Dataset, annotation, load_with_splits
from gpt4image.data.box_files import readable, write_coco
from gpt4image.data.coco import ids_of
from gpt4image.data.labels import note_other_classes, used_classes
from gpt4image.data.regions import Boxes, Masks
from gpt4image.data.splits import representatives
from gpt4image.describing.class_lists import class_list
from gpt4image.encoding.class_names import find_class_names, not_read
from gpt4image.labelling.answers import Read, answered_classes, read_boxes, read_for
from gpt4image.labelling.boxes import BoxEvidence, TaughtBoxes, quality, suspected_boxes, teach
from gpt4image.labelling.confusions import Confused, confused_pairs
from gpt4image.labelling.label_noise import contradicted, suspected_errors
from gpt4image.labelling.looks import promised
from gpt4image.labelling.pictures import read_pictures
from gpt4image.labelling.predictions import Predictions, predict_labels
from gpt4image.labelling.shown import (
    ShownBoxes,
    ShownClasses,
    confused_table,
    write_classes,
    write_page,
    write_suggestions,
    write_table,
    write_to_ask_again,
)
from gpt4image.labelling.suggest import Suggestion, to_describe, to_label
from gpt4image.labelling.text_vectors import Texts, open_table, smooth
from gpt4image.tasks.base import Task
from gpt4image.tasks.classification import Classification, Video, calibration_error
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.targets import LEAST_EXPLAINED, explained, says_nothing_in

FEATURES = ".features"
"""Ending of the folder that keeps features of pictures."""
AGAIN, AGAIN_CLASSES = ".again.csv", ".again-classes.txt"
"""Endings of what a sharper question needs."""
FEW_FOUND = 0.3
"""Share of the human boxes that are answered, below which the convention of the numbers is doubted."""
FEWEST_BOXES = 5
"""Human boxes that can tell."""
LABELS_WRONG = (
    "Some of the given labels look wrong. Agreement with noisy labels is not accuracy, and calibration cannot be "
    "measured against them; only labels that you have checked tell. If the labels are right, the texts are wrong: look "
    "at them, and train with --label-trust 0.5."
)
TEXTS_SAY_LITTLE = (
    "Descriptions and answers explain little of these classes, so training will take given labels at their word and "
    "use the rest only for images without a label (--label-trust sets another share). Look at what was answered: does "
    "the prompt ask for what tells the classes apart?"
)
TEXTS_SAY_NOTHING = (
    "Descriptions and answers are uninformative for these classes, so training will use only the given labels (with "
    "--label-trust it would use descriptions and answers, too). Does the prompt ask for what tells the classes apart?"
)


class _Evidence(NamedTuple):
    """The dataset, each picture once, and its texts; their table, if any, and why something cannot be read."""

    images: Dataset
    texts: Texts
    table: EmbeddingTable | None
    notes: list[str]

    @property
    def train(self) -> NDArray[np.bool_]:
        return self.images.splits == "train"


def label(config: LabelConfig) -> LabelResult:
    """Write targets of every image with evidence to ``config.out``, and a page of suspected label errors.

    Only labels of the train split are learned from, and only train texts shape others. The test split's labels are
    never looked at. With ``suggest``, the images to label and to describe next are written beside the page. So are
    the images and classes for a sharper question, where answers confuse classes.

    Raises:
        ConfigError: options that do not go with the labels of the dataset.
        DataError: the dataset cannot be read as asked.
        TableError: table or answers are missing, are of other images or were told the class; or too few described
            images have a label where nothing but texts is read.
    """
    images = _images(config)
    given = _with_texts(config, images)
    boxes = config.task == "detection" or (config.task == "auto" and isinstance(images.regions, Boxes))
    return (_label_boxes if boxes else _label_classes)(config, given)


def _images(config: LabelConfig) -> Dataset:
    """Return the dataset, each picture once, with class names: those of the answers where no image has a label."""
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    names = tuple(option.name for option in class_list(config.classes)) if config.classes else images.classes
    if not names and config.answers is not None:
        names = answered_classes(config.answers)
    if not names:
        raise ConfigError(
            f"No image of {config.data} has a label, so its classes are not known; name them with --classes."
        )
    asked = "--classes" if config.classes else f"--answers {config.answers}"
    note_other_classes(asked, names, images.classes, config.data)
    images = images.with_classes(names)
    preferred = 2 * (images.splits != "train") + ~images.labelled
    return images.select(np.unique(representatives(images.digests, preferred)))  # no copy may be in another fold


def _with_texts(config: LabelConfig, images: Dataset) -> _Evidence:
    if config.embeddings is None:
        return _Evidence(images, Texts.none(len(images)), None, [])
    table = open_table(config.embeddings)
    names = find_class_names(config.embeddings, "auto", images.classes)
    table.require_own(images)
    vectors = table.of_images(images.digests)
    return _Evidence(images, Texts(vectors, vectors.described, names.vectors), table, not_read([names]))


def _label_classes(config: LabelConfig, given: _Evidence) -> LabelResult:
    """Write class probabilities."""
    images = given.images
    task = _task_of(config, images)
    read = None if config.answers is None else read_for(config.answers, images)
    answers = None if read is None else read.answers
    labels = images.labels.copy()
    labels[~given.train] = NO_LABEL
    pictures, unseen = None, ()
    if answers is not None and config.evidence == "fused":
        known = answers.given | given.texts.described
        pictures, unseen = read_pictures(images, known, config.features, config.out.with_suffix(FEATURES))
    predicted = predict_labels(
        given.texts,
        labels,
        len(images.classes),
        config.seed,
        reference=given.train,
        answers=answers,
        evidence=config.evidence,
        pictures=pictures,
    )
    found = _targets(config, given, labels, predicted, read, task)
    kept, promises = found, list[str]()
    if config.max_error is not None:
        kept, said = promised(found, config.audit, config.max_error)
        promises = [said]
    known = images.revised(labels=labels)
    certain = contradicted(labels, predicted.said)
    shown = ShownClasses(
        images=known,
        probabilities=predicted.probabilities,
        suspected=suspected_errors(predicted.probabilities, labels, predicted.out_of_fold, certain),
        suggestions=_suggestions(config, given, predicted, known),
        answers=answers if labels.ndim == 1 else None,
        most=config.suspected,
    )
    explains = explained(found.probabilities, found.labels, found.out_of_fold)
    scores, counts = _how_good(task, found, explains, images.labels[predicted.known])
    facts = _facts(given, known, predicted, found, scores, answered=answers is not None)
    facts["suspected"] = len(shown.suspected)
    file = config.out.with_suffix(".parquet") if config.out.suffix == ".csv" else config.out
    kept.save(file)
    sections = shown.sections()
    manifest = None if given.table is None else given.table.manifest
    page, unreadable = write_page(config, known, manifest, sections, facts, found.facts.agreement)
    facts["page"] = page
    if config.suggest:
        facts["suggestions"] = config.out.with_suffix(".suggestions.csv")
        write_suggestions(facts["suggestions"], shown)
    pairs = _ask_again(config, read, predicted, known, facts)
    if file != config.out:
        facts["table"] = config.out
        write_table(config.out, kept)
    facts |= {"promised": len(kept.keys)} if promises else {}
    notes = [*promises, *_warnings(task, found, explains), *_unrelated(predicted), *given.notes]
    notes += [] if read is None else _strange(read, labels)
    confused = [confused_table(pairs, images.classes)] if pairs else []
    again = [facts[name] for name in ("again", "again_classes") if name in facts]
    return LabelResult.of_facts(
        facts,
        path=file,
        wrote=tuple(dict.fromkeys((file, config.out, page, *again))),
        notes=notes,
        counts=counts,
        read_rows=partial(parquet_rows, file),
        text="\n\n".join([*notes, shown.in_words(sections), *confused]),
        skipped=tuple(dict.fromkeys((*images.skipped, *unseen, *unreadable))),
    )


def _task_of(config: LabelConfig, images: Dataset) -> Task:
    """Return the task that labels are of. Raises ConfigError: other options are given."""
    task = MultiLabel() if images.labels.ndim == 2 else Video() if images.clips else Classification()
    if config.task not in ("auto", task.name):
        raise ConfigError(f"--task {config.task}: labels of {config.data} are of {task.name}; leave it out.")
    if config.suggest and not task.exclusive:
        raise ConfigError(
            f"--suggest {config.suggest} needs one class per image; {config.data} has several: leave it out."
        )
    task.require(images.labels, images.classes, config.data)
    return task


def _targets(
    config: LabelConfig, given: _Evidence, labels: NDArray[Any], predicted: Predictions, read: Read | None, task: Task
) -> Targets:
    """Return what is written: the images with evidence."""
    images, rows, matrix = given.images, np.flatnonzero(predicted.known), predicted.noise.transition
    evidence: str = config.evidence
    if evidence == "fused" and read is None:
        evidence = "texts" if "texts" in predicted.weights else "names"
    return Targets(
        keys=tuple(images.keys[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        splits=images.splits[rows],
        labels=labels[rows],
        probabilities=predicted.probabilities if len(rows) == len(images) else chosen(predicted.probabilities, rows),
        out_of_fold=predicted.out_of_fold[rows],
        firm=None if predicted.firm is None or not predicted.firm[rows].any() else predicted.firm[rows],
        facts=Facts(
            classes=images.classes,
            noise=predicted.noise.rate,
            agreement=predicted.agreement,
            c=predicted.c,
            folds=predicted.folds,
            seed=config.seed,
            encoders=() if given.table is None else (given.table.manifest.encoder,),
            embeddings=() if config.embeddings is None else (str(config.embeddings.absolute()),),
            names=predicted.names,
            transition=() if matrix is None else tuple(map(tuple, matrix.tolist())),
            task=task.name,
            evidence=evidence,
            weights={} if predicted.weights.keys() == {"texts"} else predicted.weights,
            answers="" if config.answers is None else str(config.answers.absolute()),
            answered=0 if read is None else int(read.answers.given.sum()),
        ),
    )


def _facts(
    given: _Evidence, known: Dataset, predicted: Predictions, found: Targets, scores: dict[str, Any], answered: bool
) -> dict[str, Any]:
    """Return the summary, of the labels ``known``."""
    usable = predicted.known & known.labelled
    return {
        "images": len(known),
        "described": int(given.texts.described.sum()),
        **({"answered": found.facts.answered} if answered else {}),
        "coverage": round(float(predicted.known[given.train].mean()), 4),
        "labelled": int(usable.sum()),
        "classes_without_label": len(known.classes) - len(used_classes(known.labels[usable])),
        **scores,
        **{f"unrelated_{name.replace(' ', '_')}": round(rate, 4) for name, rate in predicted.unrelated.items()},
        "noise": round(found.facts.noise, 4),
        "class_names": round(found.facts.names, 4),
        **{f"weight_of_{name.replace(' ', '_')}": round(weight, 2) for name, weight in found.facts.weights.items()},
    }


def _ask_again(
    config: LabelConfig, read: Read | None, predicted: Predictions, known: Dataset, facts: dict[str, Any]
) -> list[Confused]:
    """Return the pairs of classes that answers confuse; what a sharper question needs is written beside the output."""
    if read is None or known.labels.ndim == 2:
        return []
    trusted = known.labels if predicted.noise.rate == 0.0 else np.full_like(known.labels, NO_LABEL)
    askable = predicted.known & ~read.again & (known.splits != "test")
    pairs = confused_pairs(predicted.said, trusted, predicted.probabilities, askable)
    if pairs:
        facts |= {"again": config.out.with_suffix(AGAIN), "again_classes": config.out.with_suffix(AGAIN_CLASSES)}
        write_to_ask_again(facts["again"], pairs, known, predicted.probabilities)
        write_classes(facts["again_classes"], pairs, known.classes, read.definitions)
    return pairs


def _suggestions(config: LabelConfig, given: _Evidence, predicted: Predictions, known: Dataset) -> list[Suggestion]:
    """Return the images to label next, then those to describe next, best first."""
    if not config.suggest:
        return []
    described, vectors = given.texts.described, predicted.probabilities
    unlabelled = np.flatnonzero(predicted.known & given.train & ~known.labelled)
    if described.any():
        shaping = np.flatnonzero(described & given.train)
        vectors = smooth(given.texts.centred(shaping), shaping, config.seed)
    return [
        *to_label(vectors, predicted.probabilities, unlabelled, config.suggest, config.seed),
        *to_describe(described, known.labels, np.flatnonzero(~described & given.train), config.suggest),
    ]


def _warnings(task: Task, found: Targets, explains: float | None) -> list[str]:
    if found.facts.noise > 0.0:
        return [LABELS_WRONG]
    if says_nothing_in(task, found):
        return [TEXTS_SAY_NOTHING]
    return [TEXTS_SAY_LITTLE] if explains is not None and explains < LEAST_EXPLAINED else []


def _strange(read: Read, labels: NDArray[Any]) -> list[str]:
    notes: list[str] = []
    if read.strange:
        words = first_few(word for word, _ in read.strange.most_common())
        notes.append(f"{read.strange.total()} answers or tags are none of the classes and were not read: {words}.")
    if read.answers.none is not None and (strangers := int((read.answers.none & (labels < 0)).sum())):
        notes.append(f"{strangers:,} images have no target: the answers say that they show none of the classes.")
    return notes


def _unrelated(predicted: Predictions) -> list[str]:
    """Return a warning for each describer whose answers are often not about their image."""
    by = " and ".join(word for name, word in (("taught", "texts"), ("pictures", "pictures")) if name in predicted.said)
    return [
        f"About {rate:.0%} of the {name} seem not to be about their image, by what {by} of other images with the same "
        "answer are like. They count for little in the targets; look at a few by `gpt4image review`."
        for name, rate in predicted.unrelated.items()
    ]


def _how_good(
    task: Task, found: Targets, explains: float | None, true: NDArray[Any]
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Return how right targets are on labels that were held out, and on those of the val split, ``true``; and on how
    many labelled images each was measured.

    Against labels that look wrong it is called agreement.
    """
    metric = "accuracy" if task.exclusive else task.primary.name
    given, val = np.where(found.out_of_fold, found.labels, NO_LABEL), found.splits == "val"

    def score(labels: NDArray[Any], rows: NDArray[np.bool_]) -> float | None:
        predicted: Any = chosen(found.probabilities, rows)
        predicted = predicted if task.exclusive else np.nan_to_num(predicted[:], nan=0.5)
        return _rounded(task.measure(predicted, labels[rows], found.classes).get(task.primary.name))

    if found.facts.noise > 0.0:
        scores = {"agreement_with_given_labels": _rounded(found.facts.agreement)}
    else:
        scores = {
            f"cross_validated_{metric}": score(given, annotation.known(given)),
            "labels_explained": _rounded(explains),
            "calibration_error": _rounded(_calibration_error(found)),
        }
    counts = dict.fromkeys(scores, int(annotation.known(given).sum()))
    of_val = f"val_{metric}"
    return {**scores, of_val: score(true, val)}, {**counts, of_val: int((annotation.known(true) & val).sum())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _calibration_error(found: Targets) -> float | None:
    """Return the expected calibration error of out-of-fold predictions against the given labels."""
    held_out = found.out_of_fold
    if not held_out.any():
        return None
    given = found.labels[held_out]
    if given.ndim < found.labels.ndim:
        return calibration_error(found.probabilities[:][held_out], given)
    predicted = chosen(found.probabilities, held_out)
    return calibration_error(predicted.max(axis=1), predicted.argmax(axis=1) == given)


def _label_boxes(config: LabelConfig, given: _Evidence) -> LabelResult:
    """Write the boxes of all images with human boxes in train, or with an answer."""
    answers, evidence = _checked(config)
    images, train = given.images, given.train
    answered, strange = read_boxes(answers, images.digests, images.classes)
    every = images.regions if isinstance(images.regions, Boxes) else Boxes.of_images([None] * len(images))
    human = every.hidden(~train)
    taught = teach(
        answered,
        human,
        given.texts if given.texts.described.any() else None,
        len(images.classes),
        seed=config.seed,
        evidence=evidence,
        reference=train,
    )
    targets = taught.targets(human)
    suspected = suspected_boxes(taught, human)
    shown = ShownBoxes(images=images, human=human, taught=taught, suspected=suspected, most=config.suspected)
    weights = targets.weights[targets.places(targets.known & ~human.known)]
    scores, counts = _how_good_boxes(taught, human, every.hidden(images.splits != "val"))
    facts: dict[str, Any] = {
        "images": len(images),
        "described": int(given.texts.described.sum()),
        "answered": int(answered.given.sum()),
        "coverage": round(float(targets.known[train].mean()), 4),
        "labelled": int(human.known.sum()),
        "answered_boxes": len(answered.boxes.labels),
        "human_boxes": len(human.labels),
        "teacher_boxes": int((weights > 0).sum()),
        "ignore_regions": int((weights == 0).sum()),
        **scores,
        **{f"weight_of_{name}": round(weight, 2) for name, weight in taught.weights.items()},
        "suspected": len(suspected),
    }
    manifest = None if given.table is None else given.table.manifest
    page, unreadable = write_page(config, images, manifest, shown.sections(), facts)
    facts |= {"page": page, "suspected_boxes": config.out.with_suffix(".suspected.csv")}
    shown.write(facts["suspected_boxes"])
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
        unreadable += _write_coco(config.out, found, images.select(rows))
    unknown = f"{strange.total()} answered boxes are of none of the classes: {first_few(strange)}." if strange else ""
    notes = [note for note in (*given.notes, unknown, _other_numbers(facts)) if note]
    return LabelResult.of_facts(
        facts,
        path=file,
        wrote=tuple(dict.fromkeys((file, config.out, page, facts["suspected_boxes"]))),
        notes=notes,
        counts=counts,
        read_rows=partial(parquet_rows, file),
        text="\n\n".join([*notes, _boxes_in_words(facts, images), shown.in_words()]),
        skipped=tuple(dict.fromkeys((*images.skipped, *unreadable))),
    )


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


def _write_coco(path: Path, found: BoxLabels, images: Dataset) -> list[Skipped]:
    """Write boxes of images in COCO's format, with the ids of the dataset; return those that cannot be read."""
    rows, sizes, skipped = readable(images)
    kept = images.select(rows)
    write_coco(path, kept.keys, sizes, found.boxes[rows], found.classes, ids_of(kept))
    return skipped


def _how_good_boxes(taught: TaughtBoxes, human: Boxes, val: Boxes) -> tuple[dict[str, float | None], dict[str, int]]:
    """Return precision and recall of answers and teacher on human boxes that were held out, and on those of val; and
    on how many annotated images each was measured."""
    every = np.ones(len(taught.boxes.labels), bool)
    scores: dict[str, float | None] = {}
    counts: dict[str, int] = {}
    parts = (
        ("of_answers", human, every),
        ("of_teacher", human, taught.likely),
        ("of_teacher_on_val", val, taught.likely),
    )
    for whose, drawn, some in parts:
        for name, value in quality(taught.boxes, drawn, some).items():
            scores[f"{name}_{whose}"], counts[f"{name}_{whose}"] = _rounded(value), int(drawn.known.sum())
    return scores, counts


def _other_numbers(facts: dict[str, Any]) -> str:
    """Return what to do where so few human boxes are answered that the numbers seem to stand for something else."""
    recall = facts["recall_of_answers"]
    if recall is None or recall >= FEW_FOUND or facts["human_boxes"] < FEWEST_BOXES:
        return ""
    return (
        f"Only {recall:.1%} of the human boxes have an answered box. The numbers may be in another convention: "
        "files are read as left, top, right, bottom in thousandths of the picture. Read a file with other numbers into "
        "a new store by `gpt4image descriptions import --box-format ORDER-UNIT`; for a describer give `describe "
        "--box-format`, which asks nothing anew."
    )


def _boxes_in_words(facts: dict[str, Any], images: Dataset) -> str:
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
