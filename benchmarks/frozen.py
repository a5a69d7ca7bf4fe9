"""What descriptions and answers are worth to a classifier on frozen features of an ImageNet model.

    python benchmarks/frozen.py lite0.safetensors                # the file of benchmarks/pretrained_weights.py
    python benchmarks/frozen.py lite0.safetensors --sets mixed   # mixed targets, by photographs that decided nothing
    python benchmarks/frozen.py lite2.safetensors --model tf_efficientnet_lite2 --pixels 160 --sets CIFAR-10 \
        --labels "no label" "4 per class" all

A softmax classifier is fitted on features that never change: on the labels that are left, on what the teacher makes of
answers, texts or both, and on all labels. Its L2 strength is chosen on a fifth of what it is fitted on. Accuracy on the
test split, mean over draws of labels; in brackets, the 95 % interval of the gain of fused labels over labels only at
their best (paired, Student's t). Data as for benchmarks/teacher.py, and CIFAR-10 in $GPT4IMAGE_SHARED_DATA.

Labels only at their best, and self-training at its best, are searched: L2 strength, features of length 1 or not,
nearest class mean (SimpleShot, arXiv 1911.04623), thresholds. They are chosen on labelled validation images, which the
other columns do not have: those of the dataset, or 1,000 photographs that nobody described.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from command_line import parsed
from gpt4image.comparing.results import paired
from gpt4image.config.learning import Evidence
from gpt4image.data import load_with_splits
from gpt4image.data.splits import flip_labels
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.predictions import Predictions, predict_labels
from gpt4image.labelling.text_classifier import Texts, unit
from gpt4image.pages.numbers import points, points_interval
from pretrained_weights import MODEL, SIZE, features
from teacher import answers_of
from text_labels import DATA, SETS, corpus, kept_labels, names_of, print_table, table, targets_by

Array = NDArray[np.float32]
Loss = Callable[[Tensor, Tensor], Tensor]
Ints = NDArray[np.int64]
THRESHOLDS, ROUNDS, JUDGES = (0.5, 0.7, 0.9, 0.95), 3, 1_000
SPECS = {
    "clothes": f"folder:{DATA / 'clothes'}",
    "CIFAR-10": f"hf:{DATA / 'cifar10' / 'images'}",
    "OpenMoji": "openmoji",
}
DRAWS = 3
STRENGTHS = tuple(10.0**power for power in range(-4, 2))
SITUATIONS: dict[str, tuple[int | None, float, str]] = {
    "no label": (0, 0.0, "uniform"),
    "4 per class": (4, 0.0, "uniform"),
    "10 per class": (10, 0.0, "uniform"),
    "25 per class": (25, 0.0, "uniform"),
    "all": (None, 0.0, "uniform"),
    "40 % wrong": (None, 0.4, "uniform"),
    "40 % wrong by class": (None, 0.4, "by class"),
}
WAYS: tuple[Evidence, ...] = ("answers", "texts", "fused")


@dataclass(frozen=True)
class Frozen:
    weights: str
    """File of benchmarks/pretrained_weights.py."""
    model: str = MODEL
    """Whose weights they are."""
    pixels: int = SIZE
    """Of the pictures that it sees."""
    sets: tuple[str, ...] = SETS
    """Names of image sets; "mixed" for mixed targets on the photographs."""
    labels: tuple[str, ...] = tuple(SITUATIONS)
    """Which labels are left."""


def fit(inputs: Tensor, targets: Tensor, strength: float, loss_of: Loss = torch.nn.functional.cross_entropy) -> Tensor:
    """Return (C + 1, K) weights of least loss to soft targets (n, ..., K), with an L2 penalty on all but the bias."""
    weights = torch.zeros(inputs.shape[1] + 1, targets.shape[-1], requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = loss_of(apply(weights, inputs), targets) + strength * weights[1:].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def apply(weights: Tensor, inputs: Tensor) -> Tensor:
    """Return (n, K) logits. ``linear``'s gradient is five times as fast as that of ``inputs @ weights`` on one core."""
    return torch.nn.functional.linear(inputs, weights[1:].T, weights[0])


def right(train: Array, targets: Array, test: Array, test_labels: Ints) -> NDArray[np.bool_]:
    """Fit on the images that have a target, with the L2 strength of least loss on a fifth of them; which are right?"""
    has = np.random.default_rng(0).permutation(np.flatnonzero(targets.any(axis=1)))
    inputs, aims = torch.from_numpy(train[has]), torch.from_numpy(targets[has])
    fifth = len(has) // 5

    def loss(strength: float) -> float:
        logits = apply(fit(inputs[fifth:], aims[fifth:], strength), inputs[:fifth])
        return float(torch.nn.functional.cross_entropy(logits, aims[:fifth]))

    said = apply(fit(inputs, aims, min(STRENGTHS, key=loss)), torch.from_numpy(test))
    return said.argmax(dim=1).numpy() == test_labels


def one_hot(labels: Ints, classes: int) -> Array:
    """Return (n, K) targets; a row of zeros where there is no label."""
    return (labels[:, None] == np.arange(classes)).astype(np.float32)


def searched(known: Material, given: Ints) -> tuple[float, float]:
    """Return test accuracy of the best classifier that learns from the given labels alone, and of self-training."""
    has = np.flatnonzero(given >= 0)
    if not len(has) or not len(known.chooser_labels):
        return np.nan, np.nan
    found: list[tuple[float, float, Callable[[Array], Array], float]] = []  # chosen by, accuracy, features, strength

    def judge(weights: Tensor, see: Callable[[Array], Array]) -> tuple[float, float]:
        pairs = ((known.chooser, known.chooser_labels), (known.others, known.labels))
        said = [(apply(weights, torch.from_numpy(see(own))).argmax(1).numpy(), labels) for own, labels in pairs]
        return tuple(float((own == labels).mean()) for own, labels in said)  # pyright: ignore[reportReturnType]

    aims = torch.from_numpy(one_hot(given[has], known.classes))
    for see in (np.asarray, unit):
        inputs = torch.from_numpy(see(known.train[has]))
        for strength in STRENGTHS:
            found.append((*judge(fit(inputs, aims, strength), see), see, strength))
    means = torch.nn.functional.normalize(aims.T @ inputs)  # of features of length 1
    nearest = judge(torch.cat([torch.zeros(1, known.classes), means.T]), unit)
    best = max(found, key=lambda each: each[0])
    alone = max((nearest, best), key=lambda each: each[0])[1]
    _, _, see, strength = best
    inputs, taught = torch.from_numpy(see(known.train)), [best[:2]]
    for threshold in THRESHOLDS:
        weights = fit(inputs[has], aims, strength)
        for _ in range(ROUNDS):
            said = torch.softmax(apply(weights, inputs), 1).numpy()
            sure = np.flatnonzero((given >= 0) | (said.max(1) >= threshold))
            own = np.where(given >= 0, given, said.argmax(1))[sure]
            weights = fit(inputs[sure], torch.from_numpy(one_hot(own, known.classes)), strength)
        taught.append(judge(weights, see))
    return alone, max(taught, key=lambda each: each[0])[1]


class Material(NamedTuple):
    """Standardised features and classes of the described training images, of those that judge, and of those by which
    labels only are chosen; what is known of the first."""

    train: Array
    truth: Ints
    others: Array
    labels: Ints
    chooser: Array
    chooser_labels: Ints
    texts: Texts
    answers: Answers
    classes: int

    def predicted(self, given: Ints, way: Evidence, seed: int) -> Predictions:
        """Return what the teacher predicts by some labels and one way of reading the evidence."""
        own = None if way == "texts" else self.answers
        return predict_labels(self.texts, given, self.classes, seed, answers=own, evidence=way)

    def right(self, targets: Array) -> NDArray[np.bool_]:
        """Return which of the images that judge a classifier of such targets names right."""
        return right(self.train, targets, self.others, self.labels)


def material(name: str, options: Frozen, *, unseen: bool) -> Material:
    """Judged by the test split, or by the training images that nobody described."""
    image_set = load_with_splits(SPECS[name], val_fraction=0.0, test_fraction=0.2)
    place = {key: row for row, key in enumerate(image_set.keys)}
    rows = np.array([place.get(key, -1) for key in corpus(name).keys])  # some are left out of the packaged set
    chosen = np.flatnonzero((rows >= 0) & (image_set.splits[rows] == "train"))
    judges = np.setdiff1d(image_set.indices("train"), rows[chosen]) if unseen else image_set.indices("test")
    choosers = image_set.indices("val")
    if not len(choosers):
        choosers = np.random.default_rng(0).permutation(np.setdiff1d(image_set.indices("train"), rows[chosen]))[:JUDGES]
    train, others, chooser = (
        features([image_set.read(int(row)) for row in each], options.weights, options.pixels, model=options.model)
        if len(each)
        else np.zeros((0, 1), np.float32)
        for each in (rows[chosen], judges, choosers)
    )
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    classes = corpus(name).classes
    number = np.array([classes.index(label) for label in image_set.classes])
    return Material(
        train=(train - mean) / deviation,
        truth=corpus(name).labels[chosen],
        others=(others - mean) / deviation,
        labels=number[image_set.labels[judges]],
        chooser=(chooser - mean) / deviation,
        chooser_labels=number[image_set.labels[choosers]],
        texts=Texts(table(name)[chosen], np.ones(len(chosen), bool), names_of(name)),
        answers=answers_of(name).take(chosen),
        classes=len(classes),
    )


def mixed(options: Frozen) -> None:
    """All labels right: do mixed targets add to frozen features, and is it the image's own text that does?"""
    name = "CIFAR-10"
    given = material(name, options, unseen=True)
    truth, n_classes = given.truth, given.classes

    def targets(way: Evidence, seed: int) -> Array:
        return targets_by(given.predicted(truth, way, seed), truth)

    def within_class(of: Array, change: Callable[[Ints], Array]) -> Array:
        found = of.copy()
        for label in range(n_classes):
            members = np.flatnonzero(truth == label)
            found[members] = change(members)
        return found

    def arms(seed: int) -> dict[str, Array]:
        random, text = np.random.default_rng(seed), targets("texts", seed)
        return {
            "mixed targets by texts": text,
            "of another image of the class": within_class(text, lambda members: text[random.permutation(members)]),
            "the mean of the class": within_class(text, lambda members: text[members].mean(axis=0)),
            "by answers": targets("answers", seed),
            "by both": targets("fused", seed),
        }

    def score(aims: Array) -> NDArray[np.float64]:
        return given.right(aims).astype(np.float64)

    alone = score(one_hot(truth, n_classes))
    scored = [{arm: score(aims) for arm, aims in arms(seed).items()} for seed in range(DRAWS)]
    rows_of_table = [("labels only", [f"{alone.mean():.4f}", "", ""])]
    own = np.mean([each["mixed targets by texts"] for each in scored], axis=0)
    for arm in scored[0]:
        found = np.mean([each[arm] for each in scored], axis=0)
        gained, lost = by_image(found - alone), by_image(own - found)
        rows_of_table.append((arm, [f"{found.mean():.4f}", gained, "" if arm == "mixed targets by texts" else lost]))
    title = f"{name}, all labels right, frozen features, {len(truth)} training and {len(given.labels)} unseen images"
    print_table(title, ["accuracy", "points over labels only", "points of texts over it"], rows_of_table)


def by_image(differences: NDArray[np.float64]) -> str:
    """Return the mean difference in points and its 95 % interval over images."""
    mean, half = differences.mean(), 1.96 * differences.std() / np.sqrt(len(differences))
    return f"{points(mean)} ({points_interval((mean - half, mean + half))})"


def compare(name: str, options: Frozen) -> None:
    known = material(name, options, unseen=False)
    truth, n_classes = known.truth, known.classes

    def score(targets: Array) -> float:
        return float(known.right(targets).mean())

    def taught(given: Ints, way: Evidence, seed: int) -> float:
        if way == "texts" and not (given >= 0).any():
            return np.nan
        return score(targets_by(known.predicted(given, way, seed), given))

    everything = score(one_hot(truth, n_classes))
    lines = []
    for situation in options.labels:
        kept, wrong, kind = SITUATIONS[situation]
        found = []
        for seed in range(DRAWS if kept != 0 and (kept or wrong) else 1):
            given = kept_labels(truth, kept, seed)
            by_class = kind == "by class"
            given = flip_labels(given, np.arange(len(given)), wrong, n_classes, seed, class_dependent=by_class)
            alone = score(one_hot(given, n_classes)) if (given >= 0).any() else np.nan
            best = searched(known, given)
            found.append((alone, *best, *(taught(given, way, seed) for way in WAYS)))
        columns = np.array(found).T
        means = ["-" if np.isnan(each).any() else f"{each.mean():.3f}" for each in columns]
        gain = paired(columns[-1], columns[0 if np.isnan(columns[1]).any() else 1]) if len(found) > 1 else None
        gained = "" if gain is None else f"{points(gain.difference)} ({points_interval(gain.ci95)})"
        lines.append((situation, [*means, f"{everything:.3f}", gained]))
    print_table(
        f"{name}, frozen features of {options.model} at {options.pixels} pixels, {len(truth)} training and "
        f"{len(known.labels)} test images",
        ["labels only", "at their best", "self-training at its best", *WAYS, "all labels", "points gained by fused"],
        lines,
    )


if __name__ == "__main__":
    asked = parsed(Frozen, "weights")
    for each in asked.sets:
        if each == "mixed":
            mixed(asked)
        else:
            compare(each, asked)
