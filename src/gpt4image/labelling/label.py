"""The stage ``label``: targets of every image with evidence, and a page of human labels that look wrong."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_lists import class_list
from gpt4image.artifacts.probabilities import take
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.targets import BoxLabels, Facts, Targets
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.files import parquet_rows
from gpt4image.base.intervals import wilson
from gpt4image.base.outcome import Skipped
from gpt4image.config import LabelConfig
from gpt4image.config.results import LabelResult
from gpt4image.data import NO_LABEL, Dataset, annotation, load_with_splits
from gpt4image.data.dataset import DOUBT
from gpt4image.data.labels import note_other_classes, used_classes
from gpt4image.data.regions import Boxes
from gpt4image.data.splits import representatives
from gpt4image.encoding.class_names import find_class_names, not_read
from gpt4image.labelling.audited import promised
from gpt4image.labelling.boxes import KINDS, Suspect, TaughtBoxes, quality, suspected_boxes, teach
from gpt4image.labelling.evidence import Answers, Read, read_boxes, read_for, with_answered
from gpt4image.labelling.noise import contradicted, suspected_errors
from gpt4image.labelling.pictures import FEATURES, read_pictures
from gpt4image.labelling.sources import Predictions, predict_labels
from gpt4image.labelling.texts import Texts, open_table
from gpt4image.pages.cards import mark
from gpt4image.pages.numbers import percent, text_table
from gpt4image.reporting.label_page import (
    MOST_SHOWN,
    Card,
    Section,
    suspected_label,
    target_classes,
    target_sections,
    write_page,
)
from gpt4image.selecting.order import doubt_of
from gpt4image.tasks.base import Task
from gpt4image.tasks.calibration import calibration_error
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.targets import LEAST_EXPLAINED, explained, says_nothing_in

_SHARE = re.compile(r"accuracy|agreement|\w+_accuracy$")  # scores that are shares of images
FEW_FOUND, FEWEST_BOXES = 0.3, 5  # human boxes: the convention is doubted if fewer are answered; the fewest that tell
LABELS_WRONG = (
    "Some of the given labels look wrong. Agreement with noisy labels is not accuracy, and calibration cannot be "
    "measured against them; only labels that you have checked tell. If the labels are right, the texts are wrong: look "
    "at them, and train with --label-trust 0.5."
)
FEWEST_CALIBRATING = 500
"""Labels from which on a calibration error is told. Of fewer it is mostly chance: .075 from 50 labels where it was
.018."""
LITTLE = 0.2  # of what labels tell: good tags of a few dozen images with a label explain 0.36
LABELS_KEPT = (
    "Training keeps given labels as they are, and answers and descriptions teach only the other images, because these "
    "explain {:.0%} of what labels tell, less than half (--label-trust sets another share)."
)
NOT_TOLD_APART = "Look at what was answered: does the prompt ask for what tells the classes apart?"
NOTHING_EXPLAINED = "Descriptions and answers are uninformative for these classes, so training uses only given labels. "
WORDS_OF_BOXES = (
    "Answered boxes are taken at their word, those cut off with less weight: no training image with an answer has "
    "boxes that people drew. Annotate a few images to teach what they draw."
)
OTHER_NUMBERS = (
    "Only {:.1%} of the human boxes have an answered box. The numbers may be in another convention than left, top, "
    "right, bottom in thousandths of the picture: name it by `gpt4image descriptions import --box-format ORDER-UNIT` "
    "into a new store, or by `describe --box-format`, which asks nothing anew."
)


class _Evidence(NamedTuple):
    """The dataset, each picture once, and its texts; their table, if any, and why something cannot be read."""

    images: Dataset
    texts: Texts
    table: EmbeddingTable | None
    notes: list[str]


class _Made(NamedTuple):
    """What is written, and what there is to say of it: suspected errors by section of the page, with the title of their
    table and its columns; images and mean probability by class, and sections that show the targets."""

    targets: Targets | BoxLabels
    facts: dict[str, Any]
    counts: dict[str, int]
    suspected: Sequence[Section]
    head: tuple[str, Sequence[str]]
    notes: list[str]
    skipped: Sequence[Skipped] = ()
    classes: Sequence[tuple[str, int, float]] = ()
    sections: Sequence[Section] = ()


def label(config: LabelConfig) -> LabelResult:
    """Write targets of every image with evidence to ``config.out``, and a page of suspected label errors.

    Only labels of the train split are learned from, and only train texts shape others. The test split's labels are
    never looked at.

    Raises:
        ConfigError: options that do not go with the labels of the dataset.
        DataError: the dataset cannot be read as asked.
        TableError: table or answers are missing, are of other images or were told the class; or too few described
            images have a label where nothing but texts is read.
    """
    images = _images(config)
    texts, table, notes = Texts.none(len(images)), None, list[str]()
    if config.embeddings is not None:
        table = open_table(config.embeddings)
        names = find_class_names(config.embeddings, "auto", images.classes)
        table.require_own(images)
        vectors = table.of_images(images.digests)
        texts, notes = Texts(vectors, vectors.described, names.vectors), not_read([names])
    given = _Evidence(images, texts, table, notes)
    boxes = config.task == "detection" or (config.task == "auto" and isinstance(images.regions, Boxes))
    made = (_boxes if boxes else _classes)(config, given)
    made.targets.save(config.out)
    cards = [card for section in made.suspected for card in section.cards]
    page, made_of = config.out.with_suffix(".html"), made.targets
    unreadable = write_page(
        page,
        images,
        made.suspected,
        made.sections,
        table=table,
        boxes=boxes,
        data=config.data,
        facts={name: fact for name, fact in made.facts.items() if fact is not None} | {"suspected": len(cards)},
        classes=made.classes,
        agreement=made_of.facts.agreement if isinstance(made_of, Targets) else None,
    )
    title, columns = made.head
    rows = [columns, *(card().cells for card in cards[:MOST_SHOWN])]
    listed = text_table(title, rows) if cards else f"No {title.partition(',')[0].lower()}."
    scores = made.facts["quality"]
    return LabelResult(
        **made.facts,
        suspected=len(cards),
        page=page,
        path=config.out,
        wrote=(config.out, page),
        notes=made.notes,
        counts=made.counts,
        ci95={name: wilson(scores[name], n) for name, n in made.counts.items() if n and _SHARE.match(name)},
        read_rows=partial(parquet_rows, config.out),
        text="\n\n".join([*made.notes, listed]),
        skipped=tuple(dict.fromkeys((*images.skipped, *made.skipped, *unreadable))),
    )


def _images(config: LabelConfig) -> Dataset:
    """Return the dataset, each picture once, with class names: those of its labels and, where some images have none, of
    the answers."""
    images = load_with_splits(config.data, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    names = tuple(option.name for option in class_list(config.classes)) if config.classes else images.classes
    if config.answers is not None and not config.classes and not _annotated(images).all():
        names = with_answered(names, config.answers)
    if not names:
        raise ConfigError(
            f"No image of {config.data} has a label, so its classes are not known; name them with --classes."
        )
    if config.classes:
        note_other_classes("--classes", names, images.classes, config.data)
    images = images.with_classes(names)
    preferred = 2 * (images.splits != "train") + ~images.labelled
    return images.select(np.unique(representatives(images.digests, preferred)))  # no copy may be in another fold


def _annotated(images: Dataset) -> NDArray[np.bool_]:
    """Return (N,) which images have a label, boxes or a mask."""
    return annotation.known(images.labels if images.regions is None else images.regions)


def _classes(config: LabelConfig, given: _Evidence) -> _Made:
    """Return class probabilities of the images with evidence."""
    images = given.images
    task = MultiLabel() if images.labels.ndim == 2 else Video() if images.clips else Classification()
    if config.task not in ("auto", task.name):
        raise ConfigError(f"--task {config.task}: labels of {config.data} are of {task.name}; leave it out.")
    task.require(images.labels, images.classes, config.data)
    read = None if config.answers is None else read_for(config.answers, images)
    answers = None if read is None else read.answers
    labels = images.labels.copy()
    train = images.splits == "train"
    labels[~train] = NO_LABEL
    pictures, unseen = None, ()
    asked = given.texts.described | (False if answers is None else answers.given)
    if answers is not None and config.evidence == "fused":
        known = asked | train  # of train, also what has no answer gets a target
        folder = (config.answers or config.out).with_suffix(FEATURES)
        pictures, unseen = read_pictures(images, known, config.features, folder)
    predicted = predict_labels(
        given.texts,
        labels,
        len(images.classes),
        config.seed,
        reference=train,
        answers=answers,
        evidence=config.evidence,
        pictures=pictures,
        judging=~images.was_sampled(DOUBT),
    )
    found = _targets(config, given, labels, predicted, read, task)
    kept, notes = found, list[str]()
    if config.max_error is not None:
        kept, promise = promised(found, config.audit, config.max_error)
        notes = [promise]
    certain = contradicted(labels, predicted.said)
    suspected = suspected_errors(predicted.probabilities, labels, predicted.out_of_fold, certain)
    explains = explained(found.probabilities, found.labels, found.out_of_fold)
    scores, counts = _how_good(task, found, explains, images.labels[predicted.known])
    if answers is not None and task.exclusive:
        name = "accuracy_of_answers" if found.facts.noise == 0.0 else "agreement_of_answers_with_given_labels"
        judging = np.where(images.was_sampled(DOUBT), NO_LABEL, labels)
        scores[name], counts[name] = _answers_right(answers, judging)
    usable = predicted.known & annotation.known(labels)
    facts: dict[str, Any] = {
        "images": len(images),
        "described": int(given.texts.described.sum()),
        "answered": None if answers is None else found.facts.answered,
        "coverage": round(float(predicted.known[train].mean()), 4),
        "by_picture": None if pictures is None else int((predicted.known & ~asked).sum()),
        "labelled": int(usable.sum()),
        "classes_without_label": len(images.classes) - len(used_classes(labels[usable])),
        "promised": len(kept.keys) if kept is not found else None,
        "quality": scores,
        "unrelated": {name: round(rate, 4) for name, rate in predicted.unrelated.items()},
        "noise": round(found.facts.noise, 4) if labels.ndim == 1 else None,
        "class_names": round(found.facts.names, 4),
        "weights": {name: round(weight, 2) for name, weight in found.facts.weights.items()},
    }
    notes += [*_warnings(task, found, explains, predicted, read, labels), *given.notes]
    said = answers if labels.ndim == 1 else None
    card = partial(suspected_label, images, labels, predicted.probabilities, said)
    cards = [Section("", "", [partial(card, row, k) for row, k in suspected.tolist()])]
    columns = ("image", "given label", "predicted", "probability", "doubt", *(() if said is None else ("answer says",)))
    head = ("Suspected label errors, the most certain ones first", columns)
    learned = np.flatnonzero(predicted.known & train)
    of_classes = target_classes(images.classes, take(predicted.probabilities, learned), exclusive=task.exclusive)
    sections: list[Section] = []
    if labels.ndim == 1:
        rows = np.flatnonzero(predicted.known & train & (labels < 0))
        rows = rows[np.argsort(-doubt_of(take(predicted.probabilities, rows)), kind="stable")]
        sections = target_sections(images, rows, predicted.probabilities, predicted.said)
    shown = of_classes, sections
    return _Made(kept, facts, counts, cards, head, notes, unseen, *shown)


def _targets(
    config: LabelConfig, given: _Evidence, labels: NDArray[Any], predicted: Predictions, read: Read | None, task: Task
) -> Targets:
    images, rows, matrix = given.images, np.flatnonzero(predicted.known), predicted.noise.transition
    single = None if predicted.single_source is None else predicted.single_source[rows]
    strangers = [] if read is None else np.flatnonzero(_none_of_these(read.answers, labels)).tolist()
    evidence: str = config.evidence
    if evidence == "fused" and read is None:
        evidence = "texts" if "texts" in predicted.weights else "names"
    return Targets(
        keys=tuple(images.keys[i] for i in rows),
        digests=tuple(images.digests[i] for i in rows),
        splits=images.splits[rows],
        labels=labels[rows],
        probabilities=predicted.probabilities if len(rows) == len(images) else take(predicted.probabilities, rows),
        out_of_fold=predicted.out_of_fold[rows],
        single_source=single if single is not None and single.any() else None,
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
            none_of_these=tuple(images.digests[i] for i in strangers),
        ),
    )


def _warnings(
    task: Task, found: Targets, explains: float | None, predicted: Predictions, read: Read | None, labels: NDArray[Any]
) -> list[str]:
    notes: list[str] = []
    if found.facts.noise > 0.0:
        notes.append(LABELS_WRONG)
    elif says_nothing_in(task, found):
        notes.append(NOTHING_EXPLAINED + NOT_TOLD_APART)
    elif explains is not None and explains < LEAST_EXPLAINED:
        notes.append(LABELS_KEPT.format(max(explains, 0.0)) + (f" {NOT_TOLD_APART}" if explains < LITTLE else ""))
    notes += [
        f"About {rate:.0%} of the {name} seem not to be about their image, by what texts or pictures of other images "
        "with the same answer are like. They count for little in the targets; look at a few by `gpt4image review`."
        for name, rate in predicted.unrelated.items()
    ]
    if read is not None and read.strange:
        words = first_few(word for word, _ in read.strange.most_common())
        notes.append(f"{read.strange.total()} answers or tags are none of the classes and were not read: {words}.")
    if read is not None and (strangers := int(_none_of_these(read.answers, labels).sum())):
        notes.append(
            f"{strangers:,} images have no target: the answers say that they show none of the classes. By those of "
            'train a model can say "none of these".'
        )
    return notes


def _none_of_these(answers: Answers, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (N,) which images show none of the classes by their answers, and have no label."""
    return np.zeros(len(labels), np.bool_) if answers.none is None else answers.none & (labels < 0)


def _answers_right(answers: Answers, labels: NDArray[Any]) -> tuple[float | None, int]:
    """Return how often answers are the given label, and of how many images; those shown as examples do not count."""
    own = answers.given & (labels >= 0) & (True if answers.examples is None else ~answers.examples)
    return (_rounded(float((answers.first == labels)[own].mean())) if own.any() else None), int(own.sum())


def _how_good(
    task: Task, found: Targets, explains: float | None, true: NDArray[Any]
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Return how right targets are on held-out labels and on those of val, ``true``, and on how many images each was
    measured. Against labels that look wrong it is called agreement."""
    metric = "accuracy" if task.exclusive else task.primary.name
    given, val = np.where(found.out_of_fold, found.labels, NO_LABEL), found.splits == "val"

    def score(labels: NDArray[Any], rows: NDArray[np.bool_]) -> float | None:
        predicted: Any = take(found.probabilities, rows)
        predicted = predicted if task.exclusive else np.nan_to_num(predicted[:], nan=0.5)
        return _rounded(task.measure(predicted, labels[rows], found.classes).get(task.primary.name))

    def calibration() -> float | None:
        rows = found.out_of_fold
        if np.count_nonzero(rows) < FEWEST_CALIBRATING:
            return None
        if task.exclusive:
            predicted = take(found.probabilities, rows)
            return calibration_error(predicted.max(axis=1), predicted.argmax(axis=1) == found.labels[rows])
        return calibration_error(found.probabilities[:][rows], found.labels[rows])

    if found.facts.noise > 0.0:
        scores = {"agreement_with_given_labels": _rounded(found.facts.agreement)}
    else:
        scores = {
            f"cross_validated_{metric}": score(given, annotation.known(given)),
            "labels_explained": _rounded(explains),
            "calibration_error": _rounded(calibration()),
        }
    counts = dict.fromkeys(scores, int(annotation.known(given).sum()))
    of_val = f"val_{metric}"
    return {**scores, of_val: score(true, val)}, {**counts, of_val: int((annotation.known(true) & val).sum())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _boxes(config: LabelConfig, given: _Evidence) -> _Made:
    """Return the boxes of all images with human boxes in train, or with an answer."""
    if config.answers is None:
        raise ConfigError("--task detection needs --answers STORE, with answers of `gpt4image describe --ask boxes`.")
    if config.evidence == "names":
        raise ConfigError("--evidence names tells classes of whole images; give fused, texts or answers.")
    images, train = given.images, given.images.splits == "train"
    answered, strange = read_boxes(config.answers, images.digests, images.classes)
    every = images.regions if isinstance(images.regions, Boxes) else Boxes.of_images([None] * len(images))
    human = every.hidden(~train)
    judging = human.hidden(images.was_sampled(DOUBT))
    taught = teach(
        answered,
        judging,
        given.texts if given.texts.described.any() else None,
        len(images.classes),
        seed=config.seed,
        evidence=config.evidence,
        reference=train,
    )
    targets = taught.targets(human)
    weights = targets.weights[targets.places(targets.known & ~human.known)]
    scores, counts = _box_scores(taught, judging, every.hidden(images.splits != "val"))
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
        "quality": scores,
        "weights": {name: round(weight, 2) for name, weight in taught.weights.items()},
    }
    rows = np.flatnonzero(targets.known)
    found = BoxLabels(
        keys=tuple(images.keys[row] for row in rows),
        digests=tuple(images.digests[row] for row in rows),
        boxes=targets[rows],
        human=human.known[rows],
        facts=Facts(
            task="detection",
            classes=images.classes,
            evidence=config.evidence,
            seed=config.seed,
            answers=str(config.answers.absolute()),
            embeddings=() if config.embeddings is None else (str(config.embeddings.absolute()),),
        ),
    )
    notes = list(given.notes)
    if strange:
        notes.append(f"{strange.total()} answered boxes are of none of the classes: {first_few(strange)}.")
    recall = scores["recall_of_answers"]
    if recall is not None and recall < FEW_FOUND and len(judging.labels) >= FEWEST_BOXES:
        notes.append(OTHER_NUMBERS.format(recall))
    if scores["precision_of_answers"] is None:
        notes.append(WORDS_OF_BOXES)
    suspected = suspected_boxes(taught, judging)
    cards = [
        Section(kind, note, [partial(_suspected_box, images, human, taught, s) for s in suspected if s.kind == kind])
        for kind, note in KINDS.items()
    ]
    head = ("image", "human box", "class", "teacher", "doubt")
    return _Made(
        found, facts, counts, cards, ("Suspected errors of human boxes, the surest of each kind first", head), notes
    )


def _box_scores(taught: TaughtBoxes, human: Boxes, val: Boxes) -> tuple[dict[str, float | None], dict[str, int]]:
    """Return precision and recall of answers and teacher, and on how many images each was measured."""
    every_one, likely = np.ones(len(taught.boxes.labels), bool), taught.likely
    scores: dict[str, float | None] = {}
    counts: dict[str, int] = {}
    of = {"of_answers": (human, every_one), "of_teacher": (human, likely), "of_teacher_on_val": (val, likely)}
    for whose, (drawn, some) in of.items():
        for name, value in quality(taught.boxes, drawn, some).items():
            scores[f"{name}_{whose}"], counts[f"{name}_{whose}"] = _rounded(value), int(drawn.known.sum())
    return scores, counts


def _suspected_box(images: Dataset, human: Boxes, taught: TaughtBoxes, one: Suspect) -> Card:
    """Return the card of a box, with what speaks against it."""
    names, doubt = images.classes, percent(one.doubt, digits=0)
    name, said = names[one.label], "" if one.taught is None else names[one.taught[1]]
    cells = (images.keys[one.image], one.kind, name, said, f"{one.doubt:.3f}")
    own = mark("teacher" if one.kind == "missing" else "human", one.corners.tolist(), name)
    if one.kind == "missing":
        corners, labels, _ = human.image(one.image)
        others = [mark("human", box, names[k]) for box, k in zip(corners, labels, strict=True)]
        return Card(one.image, cells, [("human box", "none", ""), ("teacher", name, doubt)], [*others, own])
    if one.taught is not None:
        against = [mark("teacher", one.taught[0].tolist(), said)]
    else:
        boxes = taught.boxes
        likely = [k for k in range(boxes.starts[one.image], boxes.starts[one.image + 1]) if taught.likely[k]]
        against = [mark("teacher", boxes.corners[k].tolist(), names[boxes.labels[k]]) for k in likely]
    claims = [("human box", name, ""), *([("teacher", said, "")] if said else []), ("doubt", doubt, "")]
    return Card(one.image, cells, claims, [own, *against])
