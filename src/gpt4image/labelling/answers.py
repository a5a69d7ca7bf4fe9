"""Class answers of a store as arrays that fit a dataset: first and second class and confidence of each image."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpt4image.artifacts.store import DescriptionStore, StoredAnswer
from gpt4image.base.errors import TableError, first_few
from gpt4image.describing.class_lists import ClassNames

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SECOND_SHARE = 0.6  # of what the first class leaves; of photographs 61 % of the wrong answers are right by the second
MOST_CERTAIN = 0.99
USUAL_CONFIDENCE = 0.85  # of an answer that states none


class Answers(NamedTuple):
    """Answers about N images.

    Attributes:
        first: (N,) class that was answered, -1 where there is no answer. Of tags, (N, K) whether each class was seen.
        second: (N,) next best class, -1 where none was named.
        confidence: (N,) float32, stated probability of the first class; NaN where none was stated.
    """

    first: Ints
    second: Ints
    confidence: Floats

    @property
    def given(self) -> NDArray[np.bool_]:
        """(N,) which images have an answer."""
        return np.asarray((self.first.reshape(len(self.first), -1) >= 0).any(axis=1))

    def take(self, rows: Ints) -> Answers:
        """Return the answers about some images."""
        return Answers(self.first[rows], self.second[rows], self.confidence[rows])

    def probabilities(self, n_classes: int) -> Floats:
        """Return (N, K) class probabilities, as the answers state them: no label is read.

        The first class has the stated confidence, the second SECOND_SHARE of the rest, and the others share what is
        left. All classes are alike where there is no answer.
        """
        given = self.given
        sure, next_best = _shares(self.confidence, n_classes)
        next_best = np.where(self.second >= 0, next_best, 0.0)
        left = (1.0 - sure - next_best) / np.maximum(n_classes - 1 - (self.second >= 0), 1)
        found = np.repeat(np.where(given, left, 1.0 / n_classes)[:, None], n_classes, axis=1).astype(np.float32)
        for classes, share in ((self.second, next_best), (self.first, sure)):
            rows = np.flatnonzero(given & (classes >= 0))
            found[rows, classes[rows]] = share[rows]
        return found / found.sum(axis=1, keepdims=True)


class Read(NamedTuple):
    """Answers about the images of a dataset, and the words that are none of its classes, with how often they came."""

    answers: Answers
    strange: Counter[str]

    def in_words(self) -> list[str]:
        """Return a sentence about answers that are none of the classes, if there are any."""
        if not self.strange:
            return []
        words = first_few(word for word, _ in self.strange.most_common())
        return [f"{self.strange.total()} answers or tags are none of the classes and were not read: {words}."]


def answered_classes(path: Path) -> tuple[str, ...]:
    """Return the class list that the answers of a store chose from.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: there is no class answer, or there are several lists.
    """
    with DescriptionStore(path) as store:
        lists = dict.fromkeys(row.classes for row in store.answers() if row.classes)
    if len(lists) == 1:
        return next(iter(lists))
    what = f"{len(lists)} class lists" if lists else "no class answer"
    raise TableError(f"{path} holds {what}, so that the classes are not known; name them with --classes.")


def read_answers(path: Path, digests: Sequence[str], classes: Sequence[str]) -> Read:
    """Return the class answers of a store about images; several about one image are votes.

    Args:
        path: description store.
        digests: of N images.
        classes: of the dataset; an answer is one of them where it differs only in case, spaces or plural.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: no image has an answer that names a class, or answers were told the class.
    """
    place = {digest: row for row, digest in enumerate(digests)}
    number_of = class_finder(classes)
    strange: Counter[str] = Counter()
    votes: list[tuple[int, int, int, float]] = []
    for row, item in stored_answers(path, place):
        first, second = number_of(item.answer.class_name), number_of(item.answer.second)
        if first < 0 and (word := item.answer.class_name or item.answer.said):
            strange[word] += 1
        stated = item.answer.confidence if item.answer.confidence is not None else item.answer.probability
        votes.append((row, first, second if second != first else -1, USUAL_CONFIDENCE if stated is None else stated))
    if not any(first >= 0 for _, first, _, _ in votes):
        seen = f"; answered were {first_few(strange)}" if strange else ""
        raise TableError(
            f"{path} holds no answer about these images that names one of the classes {first_few(classes)}{seen}. Ask "
            "with `gpt4image describe --ask class`, or leave --answers out."
        )
    return Read(_counted(votes, len(digests), len(classes)), strange)


def read_tags(path: Path, digests: Sequence[str], classes: Sequence[str]) -> Read:
    """Return which classes were seen in images that may have several, by the tags of a store; answers are votes.

    Args and Raises: as of ``read_answers``.
    """
    place, number_of = {digest: row for row, digest in enumerate(digests)}, class_finder(classes)
    strange: Counter[str] = Counter()
    seen, asked = np.zeros((len(digests), len(classes))), np.zeros(len(digests))
    for row, item in stored_answers(path, place):
        if item.answer.tags is None:
            continue
        numbers = {tag: number_of(tag) for tag in item.answer.tags}
        strange.update(tag for tag, number in numbers.items() if number < 0)
        seen[row, [number for number in numbers.values() if number >= 0]] += 1
        asked[row] += 1
    if not asked.any():
        raise TableError(f"{path} holds no tags of these images. Ask with `gpt4image describe --ask tags`.")
    share = seen / np.maximum(asked, 1)[:, None]
    first = np.where(asked[:, None] > 0, share >= 0.5, -1).astype(np.int64)
    sure = (0.5 + np.abs(share - 0.5) * (2 * USUAL_CONFIDENCE - 1)).astype(np.float32)
    return Read(Answers(first, np.full_like(first, -1), sure), strange)


def stored_answers(path: Path, place: dict[str, int]) -> list[tuple[int, StoredAnswer]]:
    """Return the answers of a store about the images at ``place``, by digest. Raises StoreError, TableError."""
    with DescriptionStore(path) as store:
        found = [(place[item.digest], item) for item in store.answers() if item.digest in place]
    if told := next((item for _, item in found if item.prompt.class_conditioned), None):
        raise TableError(
            f"{path}: answers to the prompt {told.prompt.name!r} were told the class of the image, so they say nothing "
            "about labels that are missing or wrong. Ask with a prompt that lists the classes and names none."
        )
    return found


def class_finder(classes: Sequence[str]) -> Callable[[str | None], int]:
    """Return what finds the number of the class that a word means, -1 for none."""
    numbers, names = {name: number for number, name in enumerate(classes)}, ClassNames(classes)

    @functools.cache
    def find(word: str | None) -> int:
        return numbers.get(names.find(word) or "", -1) if word else -1

    return find


def _shares(confidence: Floats, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of the first class and of the second; the first is always the largest."""
    stated = np.where(np.isnan(confidence), USUAL_CONFIDENCE, confidence).astype(np.float64)
    sure = np.clip(stated, min(1.5 / n_classes, MOST_CERTAIN), MOST_CERTAIN)
    return sure, np.minimum(SECOND_SHARE * (1.0 - sure), 0.9 * sure)


def _counted(votes: Sequence[tuple[int, int, int, float]], total: int, n_classes: int) -> Answers:
    """Return one answer per image: the class with the largest mean probability over its votes, and the next one."""
    rows, first, second = np.array([vote[:3] for vote in votes], np.int64).T
    sure, next_best = _shares(np.array([vote[3] for vote in votes], np.float32), n_classes)
    shares, classes = np.concatenate([sure, next_best]), np.concatenate([first, second])
    known = classes >= 0
    sums = csr_matrix((shares[known], (np.tile(rows, 2)[known], classes[known])), shape=(total, n_classes))
    sums.sum_duplicates()
    counts = np.bincount(rows, minlength=total)
    found = Answers(np.full(total, -1), np.full(total, -1), np.full(total, np.nan, np.float32))
    owner = np.repeat(np.arange(total), np.diff(sums.indptr))
    order = np.lexsort((-np.asarray(sums.data), owner))
    start = np.searchsorted(owner, np.arange(total))
    has = np.diff(sums.indptr)
    for place, target in ((0, found.first), (1, found.second)):
        some = np.flatnonzero(has > place)
        chosen = order[start[some] + place]
        target[some] = sums.indices[chosen]
        if place == 0:
            found.confidence[some] = sums.data[chosen] / counts[some]
    return found
