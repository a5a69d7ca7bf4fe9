"""How good the teacher of boxes is on photographs whose human boxes it has not seen; what its parts are worth.

    python benchmarks/box_teacher.py [quality] [drop] [refine] [errors]

Without a name, all four; each prints a table. Needs the folder groceries of GPT4IMAGE_SHARED_DATA (tests/README there).
Boxes and descriptions of a multimodal LLM are imported into a store in a temporary folder; nothing else is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.files import read_json_lines
from gpt4image.comparing.statistics import mean_ci
from gpt4image.config import ImportDescriptionsConfig
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.data.splits import keep_labels_per_class
from gpt4image.describing.descriptions import import_descriptions
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.labelling import boxes as teacher
from gpt4image.labelling.answers import AnsweredBoxes, read_boxes
from gpt4image.labelling.boxes import (
    FEATURES,
    KINDS,
    TaughtBoxes,
    features,
    match,
    prior,
    quality,
    suspected_boxes,
    teach,
)
from gpt4image.labelling.text_vectors import Texts, unit
from gpt4image.tasks.average_precision import coco_metrics
from gpt4image.tasks.detection import Detection

DATA = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", "../shared/data")) / "groceries"
SEEDS = range(5)
KEPT = (0, 1, 4, 10)
Given = tuple[Boxes, Boxes]


@cache
def photographs() -> tuple[Dataset, AnsweredBoxes, Texts]:
    """Return the training photographs, the boxes that were answered about them, and their descriptions, embedded."""
    images = load_dataset(f"coco:{DATA / 'train.json'}")
    images = images.select(images.indices("train"))
    rows = DATA / "answers-boxes.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "answers.db"
        import_descriptions(ImportDescriptionsConfig(file=rows, store=store, data=images.spec))
        answered, _ = read_boxes(store, images.digests, images.classes)
    said = {row["key"]: row["description"] for row in read_json_lines(rows)}
    vectors = load_text_encoder("minilm", "cpu").encode([said[key] for key in images.keys])
    return images, answered, Texts(unit(vectors), np.ones(len(images), bool))


def drawn(kept: int, seed: int) -> Given:
    """Return the human boxes that are left at so many labelled photographs per class, and those that are not."""
    human = photographs()[0].regions
    if not isinstance(human, Boxes):
        raise TypeError("these photographs have boxes")
    every = np.arange(len(human))
    hidden = np.ones(len(human), bool)
    if kept:
        hidden = keep_labels_per_class(Detection().groups(human), every, kept, seed) < 0
    return human.hidden(hidden), human.hidden(~hidden)


def average_precision(boxes: Boxes, human: Boxes) -> float:
    """Return AP50 of boxes, their weights being scores."""
    rows = np.flatnonzero(human.known)
    most = max(1, np.diff(boxes.starts).max())
    predictions = np.zeros((len(rows), most, 6), np.float32)
    for place, row in enumerate(rows):
        corners, labels, weights = boxes.image(row)
        order = np.argsort(-weights, kind="stable")
        predictions[place, : len(labels)] = np.column_stack([corners, weights, labels])[order]
    return float(coco_metrics(predictions, human[rows], len(photographs()[0].classes))["AP50"])


def ways(kept: int, seed: int, human: Boxes) -> Iterator[tuple[str, TaughtBoxes]]:
    """Yield the boxes of each way to read the evidence."""
    images, answered, texts = photographs()
    classes = len(images.classes)
    yield "answers as they are", teach(answered, human, None, classes, seed=seed, evidence="answers")
    whole = answered.boxes.weights * (1 - 0.9 * answered.truncated)
    plain = replace(answered, boxes=replace(answered.boxes, weights=whole.astype(np.float32)))
    yield "without truncated ones", teach(plain, human, None, classes, seed=seed, evidence="answers")
    yield "convention", teach(answered, human, None, classes, seed=seed)
    yield "convention and texts", teach(answered, human, texts, classes, seed=seed)
    if kept:
        yield "convention, class by text", teach(answered, human, texts, classes, seed=seed, evidence="texts")


def quality_table() -> None:
    """Print precision, recall and AP50 of each way on photographs whose human boxes were not seen."""
    found: dict[tuple[int, str], list[tuple[float, ...]]] = {}
    for kept in KEPT:
        for seed in SEEDS:
            human, unseen = drawn(kept, seed)
            for name, taught in ways(kept, seed, human):
                facts = quality(taught.boxes, unseen, taught.likely)
                score = average_precision(taught.boxes, unseen)
                numbers = (facts["precision"] or 0.0, facts["recall"] or 0.0, score)
                found.setdefault((kept, name), []).append(numbers)
    print("| labelled per class | boxes | precision | recall | AP50 |\n|---:|---|---:|---:|---:|")
    for (kept, name), values in found.items():
        print(f"| {kept} | {name} | {' | '.join(_interval(column) for column in zip(*values, strict=True))} |")
    print("\n| labelled per class | AP50 of the convention minus that of answers as they are |\n|---:|---:|")
    for kept in KEPT:
        pairs = zip(found[kept, "convention"], found[kept, "answers as they are"], strict=True)
        print(f"| {kept} | {_interval([one[2] - other[2] for one, other in pairs])} |")


def drop_table() -> None:
    """Print the log loss of whether unseen answered boxes are drawn, with features left out or added."""
    images, answered, texts = photographs()
    inputs, before = features(answered), prior(answered)
    corners = answered.boxes.corners
    sides = np.concatenate([corners[:, :2] < 0.02, corners[:, 2:] > 0.98], axis=1)
    image_of = answered.boxes.image_of
    centred = texts.vectors - texts.vectors.mean(axis=0)
    words = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:8].T)[image_of]
    counts = np.log1p(np.bincount(image_of, minlength=len(images)))[image_of]
    sets: dict[str, NDArray[np.float64]] = {"all eight": inputs}
    sets |= {f"without {name}": np.delete(inputs, k, axis=1) for k, name in enumerate(FEATURES)}
    more = {"each side apart": sides, "number of boxes": counts[:, None], "class": np.eye(25)[answered.boxes.labels]}
    more["description (8 components)"] = words
    sets |= {f"with {name}": np.concatenate([inputs, column], axis=1) for name, column in more.items()}
    print(f"| features | {' | '.join(f'{kept} per class' for kept in KEPT[1:])} |\n|---|{'---:|' * len(KEPT[1:])}")
    for name, columns in sets.items():
        cells: list[str] = []
        for kept in KEPT[1:]:
            losses: list[float] = []
            for seed in SEEDS:
                human, unseen = drawn(kept, seed)
                state = _state(answered.boxes, human)
                reference = np.ones(len(state), bool)
                probable = teacher.convention(columns, before, state, image_of, seed, reference=reference)
                true = _state(answered.boxes, unseen)
                chance = np.where(true == 1, probable, 1 - probable)[true >= 0]
                losses.append(float(-np.log(chance).mean()))
            cells.append(f"{np.mean(losses):.4f}")
        print(f"| {name} | {' | '.join(cells)} |")


def refine_table() -> None:
    """Print the mean IoU of matched unseen boxes, as answered and with offsets learned by ridge regression."""
    from sklearn.linear_model import Ridge

    _, answered, _ = photographs()
    boxes = answered.boxes
    corners = boxes.corners.astype(np.float64)
    size = np.tile(corners[:, 2:] - corners[:, :2], 2)
    inputs = np.concatenate([corners, corners[:, :2] < 0.02, corners[:, 2:] > 0.98], axis=1)
    print("| labelled per class | as answered | mean offset | offset by place |\n|---:|---:|---:|---:|")
    for kept in KEPT[1:]:
        values: list[tuple[float, ...]] = []
        for seed in SEEDS:
            human, unseen = drawn(kept, seed)
            seen, other = match(boxes, human), match(boxes, unseen)
            rows = np.flatnonzero(seen >= 0)
            offsets = np.clip((human.corners[seen[rows]] - corners[rows]) / size[rows], -0.2, 0.2)
            held_out = np.flatnonzero(other >= 0)
            true = unseen.corners[other[held_out]]
            ridge = Ridge(alpha=30.0).fit(inputs[rows], offsets).predict(inputs[held_out])
            moves = (np.zeros(4), offsets.mean(axis=0), ridge)
            values.append(tuple(_iou(corners[held_out] + move * size[held_out], true) for move in moves))
        print(f"| {kept} | {' | '.join(_interval(column) for column in zip(*values, strict=True))} |")


def errors_table() -> None:
    """Print how many planted errors of human boxes are found: one photograph in five has one."""
    images, answered, _ = photographs()
    whole = drawn(0, 0)[1]
    found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    for seed in SEEDS:
        human, planted = _with_errors(whole, len(images.classes), seed)
        taught = teach(answered, human, None, len(images.classes), seed=seed)
        suspected = suspected_boxes(taught, human)
        for kind in KINDS:
            listed = [suspect.image for suspect in suspected if suspect.kind == kind]
            right = [planted.get(image) == kind for image in listed]
            there = {image for image, what in planted.items() if what == kind}
            caught = len(there & {suspect.image for suspect in suspected}) / len(there)
            found[kind].append((caught, float(np.mean(right)), float(np.mean(right[:20])), len(listed)))
    print("| error | found | precision of the list | of its first 20 | listed |\n|---|---:|---:|---:|---:|")
    for kind, values in found.items():
        print(f"| {kind} | {' | '.join(_interval(column) for column in zip(*values, strict=True))} |")


def _with_errors(human: Boxes, classes: int, seed: int) -> tuple[Boxes, dict[int, str]]:
    """Return boxes of which one in five images has an error, and the kind of it by image."""
    rng = np.random.default_rng(seed)
    found, planted = [], {}
    for image in range(len(human)):
        corners, labels, weights = (part.copy() for part in human.image(image))
        kind = dict(enumerate(KINDS)).get(int(rng.integers(20)))
        if kind == "missing":
            corners, labels, weights = corners[1:], labels[1:], weights[1:]
        elif kind == "false":
            place = rng.random(2) * 0.7
            corners = np.vstack([corners, [*place, *(place + 0.1 + 0.2 * rng.random(2))]]).astype(np.float32)
            labels, weights = np.append(labels, labels[0]), np.append(weights, np.float32(1))
        elif kind == "misplaced":
            move = 0.3 * (corners[0, 2:] - corners[0, :2]) * rng.choice([-1, 1], 2)
            corners[0] = np.clip(corners[0] + np.tile(move, 2), 0, 1)
        elif kind == "another class":
            labels[0] = (labels[0] + 1 + rng.integers(classes - 1)) % classes
        if kind is not None:
            planted[image] = kind
        found.append((corners, labels, weights))
    return Boxes.of_images(found), planted


def _state(boxes: Boxes, human: Boxes) -> NDArray[np.int8]:
    return np.where(human.known[boxes.image_of], match(boxes, human) >= 0, -1).astype(np.int8)


def _iou(one: NDArray[np.float64], other: NDArray[np.float32]) -> float:
    common = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    common = np.prod(np.clip(common, 0, None), axis=1)
    areas = sum(np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (one, other))
    return float((common / (areas - common)).mean())


def _interval(values: Sequence[float]) -> str:
    mean, low, high = mean_ci(values)
    places = 1 if mean > 2 else 3
    return (
        f"{mean:.{places}f}"
        if low is None or high is None or low == high
        else (f"{mean:.{places}f} ({low:.{places}f} to {high:.{places}f})")
    )


if __name__ == "__main__":
    tables = {"quality": quality_table, "drop": drop_table, "refine": refine_table, "errors": errors_table}
    for name in sys.argv[1:] or tables:
        print(f"\n{name}\n")
        tables[name]()
