"""Class answers of a store as arrays that fit a dataset: first and second class and confidence of each image."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpt4image.artifacts.class_shares import Probabilities, blocks, built
from gpt4image.artifacts.store import DescriptionStore, Prompt, StoredAnswer
from gpt4image.base.errors import TableError, first_few
from gpt4image.data.image_set import ImageSet
from gpt4image.data.regions import Boxes
from gpt4image.describing.class_lists import ClassNames
from gpt4image.describing.questions import CLASS

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

SECOND_SHARE = 0.6  # of what the first class leaves; of photographs 61 % of the wrong answers are right by the second
MOST_CERTAIN = 0.99
USUAL_CONFIDENCE = 0.85  # of an answer that states none
BROAD_SHARE = 0.5  # weight of the first answer beside one from a shorter list: one describer repeats its mistakes


class _Votes(NamedTuple):
    """Answers one by one: row of the image, first and second class (-1: none of the classes), and confidence."""

    rows: Ints
    first: Ints
    second: Ints
    confidence: Floats

    def take(self, some: Ints) -> _Votes:
        return _Votes(self.rows[some], self.first[some], self.second[some], self.confidence[some])


class Answers(NamedTuple):
    """Answers about N images.

    Attributes:
        first: (N,) class that was answered, -1 where there is no answer. Of tags, (N, K) whether each class was seen.
        second: (N,) next best class, -1 where none was named.
        confidence: (N,) float32, stated probability of the first class; NaN where none was stated.
        runner_up: (N,) float32, probability of the second class where it is known, NaN elsewhere; None: nowhere.
        boxes: of the images, where they were asked for beside tags; their weights are those that they teach with.
    """

    first: Ints
    second: Ints
    confidence: Floats
    runner_up: Floats | None = None
    boxes: Boxes | None = None

    @property
    def given(self) -> NDArray[np.bool_]:
        """(N,) which images have an answer."""
        return np.asarray((self.first.reshape(len(self.first), -1) >= 0).any(axis=1))

    def take(self, rows: Ints | slice) -> Answers:
        """Return the answers about some images."""
        runner_up = None if self.runner_up is None else self.runner_up[rows]
        boxes = None if self.boxes is None else self.boxes[rows]
        return Answers(self.first[rows], self.second[rows], self.confidence[rows], runner_up, boxes)

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        parts = (self.first, self.second, self.confidence, self.runner_up)
        boxes = b"" if self.boxes is None else self.boxes.content().encode()
        whole = b"".join(values.tobytes() for values in parts if values is not None)
        return hashlib.sha256(whole + boxes).hexdigest()

    def probabilities(self, n_classes: int) -> Probabilities:
        """Return (N, K) class probabilities, as the answers state them: no label is read.

        The first class has the stated confidence, the second SECOND_SHARE of the rest, and the others share what is
        left. All classes are alike where there is no answer.
        """
        return built(len(self.first), n_classes, lambda rows: self.take(rows).stated(n_classes), most=2)

    def stated(self, n_classes: int) -> Floats:
        """Return the same as an array."""
        given = self.given
        sure, next_best = _shares(self.confidence, n_classes)
        if self.runner_up is not None:
            next_best = np.where(np.isnan(self.runner_up), next_best, np.minimum(self.runner_up, 1.0 - sure))
        next_best = np.where(self.second >= 0, next_best, 0.0)
        left = (1.0 - sure - next_best) / np.maximum(n_classes - 1 - (self.second >= 0), 1)
        found = np.repeat(np.where(given, left, 1.0 / n_classes)[:, None], n_classes, axis=1).astype(np.float32)
        for classes, share in ((self.second, next_best), (self.first, sure)):
            rows = np.flatnonzero(given & (classes >= 0))
            found[rows, classes[rows]] = share[rows]
        return found / found.sum(axis=1, keepdims=True)


class Read(NamedTuple):
    """Answers about the images of a dataset.

    Attributes:
        answers: one per image.
        strange: words that are none of the classes, with how often they came.
        again: (N,) images that were asked again, among fewer classes than there are.
        definitions: what belongs to a class, as the describer was told.
    """

    answers: Answers
    strange: Counter[str]
    again: Bools
    definitions: Mapping[int, str]

    def in_words(self) -> list[str]:
        """Return a sentence about answers that are none of the classes, if there are any."""
        if not self.strange:
            return []
        words = first_few(word for word, _ in self.strange.most_common())
        return [f"{self.strange.total()} answers or tags are none of the classes and were not read: {words}."]


def answered_classes(path: Path) -> tuple[str, ...]:
    """Return the class list that the answers of a store chose from; the longest, where others are parts of it.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: there is no class answer, or there are several lists.
    """
    with DescriptionStore(path) as store:
        prompts = dict.fromkeys(row.prompt for row in store.answers() if row.classes)
        lists = dict.fromkeys(prompt.class_names for prompt in prompts)
    longest = max(lists, key=len, default=())
    if lists and all(set(each) <= set(longest) for each in lists):
        return longest
    what = f"{len(lists)} class lists" if lists else "no class answer"
    raise TableError(f"{path} holds {what}, so that the classes are not known; name them with --classes.")


def read_for(path: Path, images: ImageSet) -> Read:
    """Return the class answers about the images of a dataset, or the tags where they have several classes.

    Raises:
        StoreError, TableError: as ``read_answers``.
    """
    read = read_tags if images.labels.ndim == 2 else read_answers
    return read(path, images.digests, images.classes)


def read_answers(path: Path, digests: Sequence[str], classes: Sequence[str]) -> Read:
    """Return the class answers of a store about images; several about one image are votes.

    An answer from a list of fewer classes, about an image that has another answer, is evidence among these classes
    only: it moves probability between them. See ``_moved``.

    Args:
        path: description store.
        digests: of N images.
        classes: of the dataset; an answer is one of them where it differs only in case, spaces or plural.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: no image has an answer that names a class, or answers were told the class.
    """
    number_of = class_finder(classes)
    strange: Counter[str] = Counter()
    lists: dict[tuple[int, ...], int] = {(): 0}
    numbers, stated = array("q"), array("f")  # of a million answers, not objects
    definitions: dict[int, str] = {}

    @functools.cache
    def listed(prompt: Prompt) -> tuple[int, ...]:
        """Return the classes of a shorter list; none for a list of all classes."""
        told = {number: option.definition for option in prompt.classes if (number := number_of(option.name)) >= 0}
        definitions.update({number: definition for number, definition in told.items() if definition})
        return tuple(sorted(told)) if 2 <= len(told) < len(classes) else ()

    for row, item in stored_answers(path, digests):
        if CLASS not in item.prompt.ask:
            continue
        first, second = number_of(item.answer.class_name), number_of(item.answer.second)
        if first < 0 and (word := item.answer.class_name or item.answer.said):
            strange[word] += 1
        sure = item.answer.confidence if item.answer.confidence is not None else item.answer.probability
        stated.append(USUAL_CONFIDENCE if sure is None else sure)
        place = lists.setdefault(listed(item.prompt), len(lists))
        numbers.extend((place, row, first, second if second != first else -1))
    places, row_of, first, second = np.array(numbers, np.int64).reshape(-1, 4).T
    votes, broad = _Votes(row_of, first, second, np.array(stated, np.float32)), np.zeros(len(digests), bool)
    broad[votes.rows[(places == 0) & (votes.first >= 0)]] = True
    only = [places == 0, *((places == place) & ~broad[votes.rows] for place in range(1, len(lists)))]
    first_time = votes.take(np.concatenate([np.flatnonzero(some) for some in only]))
    if not (first_time.first >= 0).any():
        seen = f"; answered were {first_few(strange)}" if strange else ""
        raise TableError(
            f"{path} holds no answer about these images that names one of the classes {first_few(classes)}{seen}. Ask "
            "with `gpt4image describe --ask class`, or leave --answers out."
        )
    found, again = _counted(first_time, len(digests), len(classes)), np.zeros(len(digests), bool)
    for own in sorted(lists, key=len, reverse=True)[:-1]:
        sharper = votes.take(np.flatnonzero((places == lists[own]) & broad[votes.rows]))
        again[sharper.rows] = True
        sharper = sharper.take(np.flatnonzero(np.isin(sharper.first, own)))
        if len(sharper.rows):
            found = _moved(found, _counted(sharper, len(digests), len(classes)), np.array(own), len(classes))
    return Read(found, strange, again, definitions)


def read_tags(path: Path, digests: Sequence[str], classes: Sequence[str]) -> Read:
    """Return which classes were seen in images that may have several, by the tags of a store; answers are votes.

    The labels of boxes are the tags of an answer that was asked for boxes alone.

    Args and Raises: as of ``read_answers``.
    """
    number_of = class_finder(classes)
    strange: Counter[str] = Counter()
    seen, asked = np.zeros((len(digests), len(classes))), np.zeros(len(digests))
    for row, item in stored_answers(path, digests):
        tags = item.answer.tags
        if tags is None and item.answer.boxes is not None:
            tags = tuple(box["label"] for box in item.answer.boxes)
        if tags is None:
            continue
        numbers = {tag: number_of(tag) for tag in tags}
        strange.update(tag for tag, number in numbers.items() if number < 0)
        seen[row, [number for number in numbers.values() if number >= 0]] += 1
        asked[row] += 1
    if not asked.any():
        raise TableError(f"{path} holds no tags of these images. Ask with `gpt4image describe --ask tags`, or boxes.")
    share = seen / np.maximum(asked, 1)[:, None]
    first = np.where(asked[:, None] > 0, share >= 0.5, -1).astype(np.int64)
    sure = (0.5 + np.abs(share - 0.5) * (2 * USUAL_CONFIDENCE - 1)).astype(np.float32)
    return Read(Answers(first, np.full_like(first, -1), sure), strange, np.zeros(len(digests), bool), {})


def stored_answers(path: Path, digests: Sequence[str]) -> Iterator[tuple[int, StoredAnswer]]:
    """Yield the answers of a store, each with the row of its image; one about equal images comes for each of them.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: answers were told the class.
    """
    rows: dict[str, int | list[int]] = {}
    for row, digest in enumerate(digests):
        same = rows.setdefault(digest, row)
        if same != row:
            rows[digest] = [*(same if isinstance(same, list) else [same]), row]
    with DescriptionStore(path) as store:
        for item in store.answers():
            if item.digest not in rows:
                continue
            if item.prompt.class_conditioned:
                raise TableError(
                    f"{path}: answers to the prompt {item.prompt.name!r} were told the class of the image, so they say "
                    "nothing about labels that are missing or wrong. Ask with a prompt that lists the classes and "
                    "names none."
                )
            own = rows[item.digest]
            yield from ((row, item) for row in (own if isinstance(own, list) else [own]))


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


def _moved(found: Answers, again: Answers, listed: Ints, n_classes: int) -> Answers:
    """Return answers whose images were asked again among the classes ``listed``.

    What these classes have in all stays theirs. It is divided by the product of what the new answer states and, to the
    power of BROAD_SHARE, what the earlier answer states: a new answer as sure as the earlier one prevails.
    """
    unknown = np.full(len(found.first), np.nan, np.float32) if found.runner_up is None else found.runner_up.copy()
    result = Answers(found.first.copy(), found.second.copy(), found.confidence.copy(), unknown)
    asked = np.flatnonzero(again.given)
    for part in blocks(len(asked), n_classes):
        rows = asked[part]
        sharp, shares = again.take(rows), found.take(rows).stated(n_classes)
        sure = np.clip(sharp.confidence, 1.0 / len(listed), MOST_CERTAIN)[:, None].astype(np.float32)
        sharper = np.where(sharp.first[:, None] == listed, sure, (1.0 - sure) / (len(listed) - 1))
        own = shares[:, listed]
        moved = own**BROAD_SHARE * sharper
        shares[:, listed] = moved * (own.sum(axis=1) / moved.sum(axis=1))[:, None]
        named = np.stack([found.first[rows], found.second[rows], sharp.first, sharp.second], axis=1)
        values = np.where(named >= 0, np.take_along_axis(shares, np.maximum(named, 0), axis=1), -1.0)
        at = np.arange(len(rows))
        first, largest = named[at, values.argmax(axis=1)], values.max(axis=1)
        values[named == first[:, None]] = -1.0
        second, next_best = named[at, values.argmax(axis=1)], values.max(axis=1)
        result.first[rows], result.second[rows] = first, np.where(next_best > 0, second, -1)
        result.confidence[rows], unknown[rows] = largest, np.where(next_best > 0, next_best, np.nan)
    return result


def _counted(votes: _Votes, total: int, n_classes: int) -> Answers:
    """Return one answer per image: the class with the largest mean probability over its votes, and the next one."""
    sure, next_best = _shares(votes.confidence, n_classes)
    shares, classes = np.concatenate([sure, next_best]), np.concatenate([votes.first, votes.second])
    known = classes >= 0
    sums = csr_matrix((shares[known], (np.tile(votes.rows, 2)[known], classes[known])), shape=(total, n_classes))
    sums.sum_duplicates()
    counts = np.bincount(votes.rows, minlength=total)
    found = Answers(np.full(total, -1), np.full(total, -1), np.full(total, np.nan, np.float32))
    owner = np.repeat(np.arange(total), np.diff(sums.indptr))
    values: Floats = np.asarray(sums.data, np.float32)
    order = np.lexsort((-values, owner))
    start = np.searchsorted(owner, np.arange(total))
    has = np.diff(sums.indptr)
    for place, target in ((0, found.first), (1, found.second)):
        some = np.flatnonzero(has > place)
        chosen = order[start[some] + place]
        target[some] = sums.indices[chosen]
        if place == 0:
            found.confidence[some] = sums.data[chosen] / counts[some]
    return found
