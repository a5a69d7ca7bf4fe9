"""Pairs of classes that answers confuse, and the images about which a sharper question among these classes is worth it.

Describers of images make the same few mistakes often: prompts that say what tells two classes apart correct many of
them (AutoSEP, arXiv 2506.03195). Which classes these are is found here; a person writes what tells them apart.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import Probabilities, two_best
from gpt4image.artifacts.store import ClassOption
from gpt4image.base.files import write_text
from gpt4image.base.visible import csv_cell
from gpt4image.data import ImageSet
from gpt4image.describing.class_lists import class_list
from gpt4image.reporting.text_table import text_table

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

AGAIN, AGAIN_CLASSES = ".again.csv", ".again-classes.txt"  # what the files are called, beside those of label
MOST_PAIRS = 5
LEVEL = 0.05  # false discovery rate of pairs, and probability below which labels contradict what texts show
CERTAIN = 0.95  # probability of a class from which on an image is not asked again
_NO_IMAGES: Ints = np.zeros(0, np.int64)
_TEXTS = ("taught", "names")  # experts that have read no label and no answer about the image itself
_HEAD = "# Write after each colon what tells this class from the others; that may also stay empty.\n"


class Confused(NamedTuple):
    """Two classes, a < b, that answers confuse.

    Attributes:
        classes: a and b.
        checked: images of a or b, by ``by``, about which a or b was answered.
        wrong: of these, how many were answered with the other one.
        by: what the answers were compared with: labels or texts.
        p: probability of so many, if all classes were mistaken for each other equally often; adjusted for the number
            of pairs (Benjamini and Hochberg 1995).
        images: rows to ask again.
    """

    classes: tuple[int, int]
    checked: int
    wrong: int
    by: str
    p: float
    images: Ints

    @property
    def rate(self) -> float:
        """Part of the images that were answered with the other class."""
        return self.wrong / max(self.checked, 1)

    @property
    def significant(self) -> bool:
        """Whether the pair is confused beyond chance."""
        return self.p < LEVEL

    def contradicts(self, other: Confused) -> bool:
        """Return whether so few mistakes are improbable if the classes are confused as often as ``other`` has it."""
        from scipy import stats

        return bool(stats.binom.cdf(self.wrong, self.checked, other.rate) < LEVEL)


def confused_pairs(
    said: Mapping[str, Ints], labels: Ints, probabilities: Probabilities, askable: Bools
) -> list[Confused]:
    """Return at most ``MOST_PAIRS`` pairs that are confused more often than chance has it, the most useful first.

    Answers are compared with the labels, and with the predictions of texts: few labels show little. A pair that only
    texts show is left out if the labels contradict it. Pairs never hold all classes: that is the old question.

    Args:
        said: (N,) classes by name of the expert, -1 where it knows nothing; see ``experts.Fusion``.
        labels: (N,) given classes, -1 where there is none or where it is not to be trusted.
        probabilities: (N, K) of all experts; those of labelled images are out of fold.
        askable: (N,) images that may be asked again.
    """
    if "answers" not in said:
        return []
    answered, n_classes = said["answers"], probabilities.shape[1]
    by_labels = _Compared.of(answered, labels, n_classes, "labels")
    texts = next((said[name] for name in _TEXTS if name in said), np.full_like(labels, -1))
    by_texts = _Compared.of(answered, texts, n_classes, "texts")
    found = dict(by_labels.significant)
    for classes, other in by_texts.significant.items():
        if classes not in found and not by_labels.pair(classes).contradicts(other):
            found[classes] = other
    open_ = np.flatnonzero(askable & (answered >= 0) & (probabilities.max(axis=1) < CERTAIN))
    two = np.sort(two_best(probabilities)[0][open_], axis=1)
    place = two[:, 0] * n_classes + two[:, 1]
    order = np.argsort(place, kind="stable")
    found = [
        pair._replace(images=open_[order[slice(*np.searchsorted(place[order], (at, at + 1)))]])
        for (a, b), pair in sorted(found.items())
        for at in [a * n_classes + b]
    ]
    chosen: list[Confused] = []
    for pair in sorted(found, key=lambda pair: -pair.rate * len(pair.images)):
        listed = {number for other in (*chosen, pair) for number in other.classes}
        if len(pair.images) and len(listed) < n_classes and len(chosen) < MOST_PAIRS:
            chosen.append(pair)
    return chosen


class _Compared(NamedTuple):
    """How often the classes of each pair are mistaken for each other.

    Attributes:
        counts: (K, K) images by true class and answer, without those that do not occur.
        by: what the answers are compared with.
        significant: pairs that are confused beyond chance, by their classes.
    """

    counts: Counter[tuple[int, int]]
    by: str
    significant: dict[tuple[int, int], Confused]

    @classmethod
    def of(cls, answered: Ints, true: Ints, n_classes: int, by: str) -> _Compared:
        """Count them, and compare with chance."""
        from scipy import stats

        rows = np.flatnonzero((answered >= 0) & (true >= 0))
        pairs, times = np.unique(np.stack([true[rows], answered[rows]]), axis=1, return_counts=True)
        counts = Counter(dict(zip(map(tuple, pairs.T.tolist()), times.tolist(), strict=True)))
        found = cls(counts, by, {})
        right = sum(count for (one, other), count in counts.items() if one == other)
        chance = (1.0 - right / max(len(rows), 1)) / max(n_classes - 1, 1)  # of one wrong class
        seen = [found.pair(classes) for classes in sorted({(min(p), max(p)) for p in counts if p[0] != p[1]})]
        if not seen:
            return found
        wrong, checked = np.array([[pair.wrong, pair.checked] for pair in seen]).T
        p = stats.binom.sf(wrong - 1, checked, chance)
        order, total = np.argsort(p, kind="stable"), n_classes * (n_classes - 1) // 2  # p of all other pairs is 1
        adjusted = np.minimum.accumulate((p[order] * (total / np.arange(1, len(p) + 1)))[::-1])[::-1]
        for place, level in zip(order.tolist(), adjusted.tolist(), strict=True):
            pair = seen[place]._replace(p=min(level, 1.0))
            if pair.significant:
                found.significant[pair.classes] = pair
        return found

    def pair(self, classes: tuple[int, int]) -> Confused:
        """Return how often two classes are mistaken for each other, without what chance has to do with it."""
        a, b = classes
        wrong = self.counts[a, b] + self.counts[b, a]
        return Confused(classes, wrong + self.counts[a, a] + self.counts[b, b], wrong, self.by, 1.0, _NO_IMAGES)


def confused_table(pairs: Sequence[Confused], classes: Sequence[str]) -> str:
    """Return the pairs as a table for a terminal."""
    rows = [("classes", "compared with", "confused", "ask again")]
    for pair in pairs:
        names = " / ".join(classes[number] for number in pair.classes)
        rows.append((names, pair.by, f"{pair.wrong:,} of {pair.checked:,}", f"{len(pair.images):,} images"))
    return text_table("Classes that the answers confuse more often than chance", rows)


def write_images(path: Path, pairs: Sequence[Confused], images: ImageSet, probabilities: Probabilities) -> None:
    """Write the images to ask again as CSV: key, digest, and their first and second class."""
    buffer = io.StringIO()
    cells = csv.writer(buffer, lineterminator="\n")
    cells.writerow(("key", "digest", "first", "second"))
    for row in np.sort(np.concatenate([pair.images for pair in pairs])).tolist():
        second, first = np.argsort(probabilities[row])[-2:].tolist()
        names = (images.keys[row], images.digests[row], images.classes[first], images.classes[second])
        cells.writerow(map(csv_cell, names))
    write_text(path, buffer.getvalue())


def write_classes(
    path: Path, pairs: Iterable[Confused], classes: Sequence[str], definitions: Mapping[int, str]
) -> None:
    """Write the classes of the pairs as a class list with a place for definitions.

    Args:
        path: of the list. What a person wrote into an earlier one is kept.
        pairs: whose classes are listed.
        classes: names of all classes.
        definitions: those that answers were given with, by class.

    Raises:
        ConfigError: the earlier list cannot be read.
    """
    written = {name: definition for name, definition in class_list(str(path)) if definition} if path.exists() else {}
    numbers = dict.fromkeys(number for pair in pairs for number in pair.classes)
    options = [ClassOption(classes[i], written.get(classes[i], definitions.get(i, ""))) for i in numbers]
    write_text(path, _HEAD + "".join(f"{name}: {definition}".strip() + "\n" for name, definition in options))
