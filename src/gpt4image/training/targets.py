"""The rule that makes the targets of a run of text labels and given labels.

Where the given labels look right, the target of an image is half its label and half what its text predicts: a teacher's
soft label (Hinton et al. 2015, arXiv 1503.02531). Where the texts explain too little of the labels, it is the label
alone; where they explain next to nothing, images without a label have no target. Where the texts show that some labels
are wrong, it is the posterior of the class given text and label, under the noise that was estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, from_blocks, take
from gpt4image.artifacts.table import is_table
from gpt4image.artifacts.targets import BoxLabels, Facts, Targets, load_targets
from gpt4image.base.errors import TableError, first_few
from gpt4image.config import TrainOptions
from gpt4image.data import annotation
from gpt4image.data.dataset import SPLITS, Dataset
from gpt4image.data.regions import Boxes
from gpt4image.tasks.base import Task
from gpt4image.training.training_data import TrainingData

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

TRUST_IN_RIGHT_LABELS = 0.5
"""Share of a given label in its target where no label looks wrong (docs/research/log/mixed-targets.md)."""
LEAST_EXPLAINED = 0.5
"""Part of what the labels tell that texts must explain to be half of a target (docs/research/log/text-labels.md)."""
NEXT_TO_NOTHING = 0.05
"""Part of what the labels tell that texts must explain to teach at all, unless they agree with more labels than by
chance (docs/research/log/text-labels.md)."""
ABOVE_CHANCE = 0.05
"""Largest p-value of such an agreement."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """The part of the given labels that is wrong, and the (K, K) probability of each by true class, if not alike."""

    rate: float = 0.0
    transition: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, facts: Facts) -> Noise:
        """Return the noise that was estimated for a file of text labels."""
        return cls(rate=facts.noise, transition=np.array(facts.transition, np.float32) if facts.transition else None)

    def matrix(self, n_classes: int) -> NDArray[np.float32]:
        """Return the (K, K) transition matrix."""
        if self.transition is not None:
            return self.transition
        other = self.rate / (n_classes - 1)
        matrix = np.full((n_classes, n_classes), other, np.float32)
        np.fill_diagonal(matrix, (1.0 - self.rate - other) + other)
        return matrix


def single_labels(
    probabilities: Probabilities, labels: Ints, held_out: Bools
) -> Iterator[tuple[Ints, Probabilities, Ints]]:
    """Yield held-out predictions as problems of one label per image: rows (n,), probabilities (n, C), labels (n,)."""
    if labels.ndim == 1:
        rows = np.flatnonzero(held_out)
        yield rows, take(probabilities, rows), labels[rows]
        return
    for k in range(labels.shape[1]):
        rows = np.flatnonzero(held_out[:, k])
        present = probabilities[rows, k]
        yield rows, np.stack([1 - present, present], axis=1), labels[rows, k].astype(np.int64)


def explained(probabilities: Probabilities, labels: Ints, held_out: Bools) -> float | None:
    """Return McFadden's R2 of predictions: one minus their log loss over that of the class frequencies."""
    loss = entropy = 0.0
    for _, predicted, given in single_labels(probabilities, labels, held_out):
        counts = np.bincount(given)
        counts = counts[counts > 0]
        if len(counts) > 1:
            entropy -= float((counts * np.log(counts / len(given))).sum())
            loss -= float(np.log(np.maximum(predicted[np.arange(len(given)), given], 1e-12)).sum(dtype=np.float64))
    return 1.0 - loss / entropy if entropy else None


def class_targets(
    task: Task,
    probabilities: Probabilities,
    labels: Ints,
    noise: Noise,
    explains: float | None,
    trust: float | None = None,
    *,
    silent: bool = False,
    single_source: Bools | None = None,
) -> Probabilities:
    """Return (n, K) targets made of text labels and given labels; see ``Task.has_target``."""
    if trust is None and noise.rate == 0.0:
        trust = 1.0 if explains is None or explains < LEAST_EXPLAINED else TRUST_IN_RIGHT_LABELS
    if task.exclusive:
        total, n_classes = probabilities.shape[:2]
        kept = 0.0 if silent else 1.0
        single_source = np.zeros(total, bool) if single_source is None else single_source

        def block(rows: slice) -> NDArray[np.float32]:
            return blend(kept * probabilities[rows], labels[rows], noise, trust, single_source[rows])

        return from_blocks(total, n_classes, block)
    return task.with_labels(np.asarray(probabilities[:], np.float32), labels, 1.0 if trust is None else trust)


def says_nothing(
    task: Task, probabilities: Probabilities, labels: Ints, held_out: Bools, noise: Noise, trust: float | None
) -> bool:
    """Return whether texts are uninformative: they explain next to nothing of the labels, and agree with them no more
    often than the most frequent class does (binomial test).
    """
    if not task.exclusive or trust is not None or noise.rate > 0.0:
        return False
    explains = explained(probabilities, labels, held_out)
    if explains is None or explains >= NEXT_TO_NOTHING:
        return False
    from scipy.stats import binom

    rows = np.flatnonzero(held_out)
    right = int((take(probabilities, rows).argmax(axis=1) == labels[rows]).sum())
    usual = np.bincount(labels[rows]).max() / len(rows)
    return bool(binom.sf(right - 1, len(rows), usual) >= ABOVE_CHANCE)


def blend(
    probabilities: Floats, labels: Ints, noise: Noise, trust: float | None = None, single_source: Bools | None = None
) -> NDArray[np.float32]:
    """Return the (n, K) soft target of each image: text without a label, the label without text, zeros without both.

    ``probabilities`` are (n, K) from text, zeros where there is none; ``labels`` (n,), negative for none. ``trust`` is
    the share of a label beside text; without it the target is the posterior of the class under ``noise``, except that
    of ``single_source`` labels, (n,), which it contradicts, half is kept.
    """
    targets = np.array(probabilities, dtype=np.float64)
    labelled = np.flatnonzero(labels >= 0)
    own = labels[labelled]
    given = np.zeros((len(labelled), targets.shape[1]))
    given[np.arange(len(labelled)), own] = 1.0
    text = targets[labelled]
    has_text = text.any(axis=1, keepdims=True)
    if trust is not None:
        both = trust * given + (1.0 - trust) * text
    else:
        both = noise.matrix(targets.shape[1]).T[own] * np.maximum(text, 1e-6)
        both /= both.sum(axis=1, keepdims=True)
        if single_source is not None:
            kept = single_source[labelled] & (both.argmax(axis=1) != own)
            both[kept] = TRUST_IN_RIGHT_LABELS * given[kept] + (1.0 - TRUST_IN_RIGHT_LABELS) * text[kept]
    targets[labelled] = np.where(has_text, both, given)
    return targets.astype(np.float32)


def says_nothing_in(task: Task, found: Targets, trust: float | None = None) -> bool:
    """Return ``says_nothing`` of a file of text labels."""
    return says_nothing(task, found.probabilities, found.labels, found.out_of_fold, Noise.of(found.facts), trust)


def targets_at(path: Path | None) -> Targets | BoxLabels | None:
    """Return the targets of a run, if it has some."""
    if path is None:
        return None
    if path.suffix == ".csv":
        raise TableError(f"--targets {path} is the table for people; give {path.with_suffix('.parquet')}.")
    if is_table(path):
        raise TableError(f"--targets {path} is an embedding table: give it to --embeddings.")
    return load_targets(path)


def check_fitting(labels: Targets | BoxLabels, config: TrainOptions, image_set: Dataset, task: Task) -> None:
    """Refuse text labels that a run cannot learn from."""
    made_for = labels.facts.task
    if made_for not in (task.targets_from or (task.name,)):
        raise TableError(f"{config.targets} holds text labels for --task {made_for}, this run is of {task.name}.")
    if lacks := [name for name in image_set.classes if name not in labels.classes]:
        raise TableError(
            f"{config.targets} lacks the classes {first_few(lacks)} of the dataset; run `gpt4image label` on it."
        )
    learned = (
        labels.human if isinstance(labels, BoxLabels) else (labels.labels.reshape(len(labels.keys), -1) >= 0).any(1)
    )
    _check_held_out([labels.digests[row] for row in np.flatnonzero(learned)], config, image_set)


def _check_held_out(learned: Sequence[str], config: TrainOptions, image_set: Dataset) -> None:
    """Refuse text labels that have learned from the label of an image that is held out; copies in train are not."""
    split_of: dict[str, str] = {}
    for digest, split in zip(image_set.digests, image_set.splits.tolist(), strict=True):
        if split == "train" or digest not in split_of:
            split_of[digest] = split
    counts = Counter(split_of.get(digest, "train") for digest in learned)
    found = [f"{counts[split]} of its {split} split" for split in SPLITS if split != "train" and counts[split]]
    if found:
        only = f", on {config.embeddings} alone (--only-described)" if config.only_described else ""
        raise TableError(
            f"{config.targets} has learned from labels of images that this run holds out: {' and '.join(found)}. Those "
            "labels would teach it, and it would be measured on them; run `gpt4image label` with the same "
            f"--val-fraction and --test-fraction as this run{only}."
        )


def with_targets(data: TrainingData, targets: Probabilities | Boxes) -> TrainingData:
    """Return the data with targets of a teacher: class probabilities (N, K), or boxes of N images."""
    return replace(data, labels=targets, soft=None) if isinstance(targets, Boxes) else replace(data, soft=targets)


def with_file(data: TrainingData, config: TrainOptions, labels: Targets | BoxLabels) -> TrainingData:
    """Return the data with class targets of text labels that fit, or with their boxes; see ``check_fitting``."""
    known = set(labels.digests)
    if isinstance(labels, BoxLabels):
        taught, train = labels.by_digest(data.image_set.digests), data.indices("train")
        found = train[taught.known[train]]
        _require_some(len(found), config)
        found = found[~data.labels.known[found]]
        from_text = np.zeros(len(taught), np.bool_)
        from_text[found] = True
        return replace(with_targets(data, data.labels.replaced(found, taught[found])), from_text=from_text)
    from_text = np.array([digest in known for digest in data.image_set.digests], np.bool_)
    if says_nothing_in(data.task, labels, config.label_trust):
        _require_some(int(from_text[data.indices("train")].sum()), config)
        return data
    digests, given = data.image_set.digests, annotation.of_images(data.labels, len(labels.classes))
    probabilities = labels.of(digests, data.task.no_target)
    explains = explained(labels.probabilities, labels.labels, labels.out_of_fold)
    noise, single_source = Noise.of(labels.facts), labels.single_source_of(digests)
    targets = class_targets(
        data.task, probabilities, given, noise, explains, config.label_trust, single_source=single_source
    )
    has_target = data.task.has_target(data.labels, targets)
    none = set(labels.facts.none_of_these)
    strangers = ~has_target & np.array([digest in none for digest in digests], np.bool_)
    _require_some(int((has_target & from_text)[data.indices("train")].sum()), config)
    return replace(with_targets(data, targets), from_text=from_text, none_of_these=strangers)


def _require_some(count: int, config: TrainOptions) -> None:
    if not count:
        raise TableError(
            f"{config.targets} holds no text label of a training image; run `gpt4image label` on this dataset."
        )
