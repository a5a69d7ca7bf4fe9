"""Answers of a store as arrays that fit a dataset: classes with their confidence, tags, and boxes.

Several answers about one image are votes. An answer is one of the classes where it differs only in case, spaces or
plural. Legend: N images, K classes, M boxes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpt4image.artifacts.answers import CLASS, Answer, describer_name, overlap
from gpt4image.artifacts.class_lists import ClassNames
from gpt4image.artifacts.probabilities import Probabilities, from_blocks
from gpt4image.artifacts.store import DescriptionStore, Prompt, StoredAnswer
from gpt4image.base.errors import TableError, first_few
from gpt4image.data.dataset import Dataset
from gpt4image.data.regions import Boxes, ImageBoxes

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

SECOND_SHARE = 0.6  # of what the first class leaves; of photographs 61 % of the wrong answers are right by the second
MOST_CERTAIN = 0.99
USUAL_CONFIDENCE = 0.85  # of an answer that states none
SAME_OBJECT = 0.5  # IoU from which on two boxes are of one object


class Answers(NamedTuple):
    """Answers about N images.

    Attributes:
        first: (N,) class that was answered, -1 where there is no answer. Of tags, (N, K) whether each class was seen.
        second: (N,) next best class, -1 where none was named.
        confidence: (N,) float32, stated probability of the first class; NaN where none was stated.
        by: answers of each describer by its name, where several answered; the others are then their votes.
        none: (N,) images of which most answers say that they are none of the classes; None: nothing is known of that.
        examples: (N,) images whose label the describer was shown, which say nothing of how good it is; None: no such.
    """

    first: Ints
    second: Ints
    confidence: Floats
    by: Mapping[str, Answers] | None = None
    none: Bools | None = None
    examples: Bools | None = None

    @property
    def given(self) -> Bools:
        """(N,) which images have an answer."""
        return np.asarray((self.first.reshape(len(self.first), -1) >= 0).any(axis=1))

    def take(self, rows: Any) -> Answers:
        """Return the answers about some images."""
        by = None if self.by is None else {name: own.take(rows) for name, own in self.by.items()}
        every: dict[str, Any] = self._asdict()
        taken: Any = {name: value if value is None else value[rows] for name, value in every.items() if name != "by"}
        return Answers(**taken, by=by)

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        arrays = (self.first, self.second, self.confidence, self.none, self.examples)
        own = b"".join(part.tobytes() for part in arrays if part is not None)
        own += "".join(name + each.content() for name, each in (self.by or {}).items()).encode()
        return hashlib.sha256(own).hexdigest()

    def probabilities(self, n_classes: int) -> Probabilities:
        """Return (N, K) class probabilities as the answers state them; no label is read.

        The first class has the stated confidence, the second SECOND_SHARE of the rest, and the others share what is
        left. All classes are alike where there is no answer.
        """
        return from_blocks(len(self.first), n_classes, lambda rows: self.take(rows).stated(n_classes))

    def stated(self, n_classes: int) -> Floats:
        """Return the same as an array."""
        given, (sure, next_best) = self.given, _shares(self.confidence, n_classes)
        next_best = np.where(self.second >= 0, next_best, 0.0)
        left = (1.0 - sure - next_best) / np.maximum(n_classes - 1 - (self.second >= 0), 1)
        found = np.repeat(np.where(given, left, 1.0 / n_classes)[:, None], n_classes, axis=1).astype(np.float32)
        for classes, share in ((self.second, next_best), (self.first, sure)):
            rows = np.flatnonzero(given & (classes >= 0))
            found[rows, classes[rows]] = share[rows]
        return found / found.sum(axis=1, keepdims=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnsweredBoxes:
    """Boxes that were answered about N images, M in all: classes as answered, weights are the shares of answers that
    have the box, ``known`` says which images were asked about. ``truncated`` (M,) float32 is the share of the answers
    that call the object cut off; 0 where none says anything."""

    boxes: Boxes
    truncated: Floats

    @property
    def given(self) -> Bools:
        """(N,) which images have an answer."""
        return self.boxes.known

    def take(self, rows: Ints) -> AnsweredBoxes:
        """Return the answers about some images."""
        return AnsweredBoxes(boxes=self.boxes[rows], truncated=self.truncated[self.boxes.places(rows)])

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        return hashlib.sha256(self.boxes.content().encode() + self.truncated.tobytes()).hexdigest()


class Read(NamedTuple):
    """Answers about the images of a dataset, and words that are none of the classes, with how often they came."""

    answers: Answers
    strange: Counter[str]


def answered_classes(path: Path) -> tuple[str, ...]:
    """Return the class list that the answers of a store chose from; the longest, where others are parts of it."""
    with DescriptionStore(path) as store:
        lists = dict.fromkeys(row.prompt.class_names for row in store.answers() if row.classes)
    longest = max(lists, key=len, default=())
    if lists and all(set(each) <= set(longest) for each in lists):
        return longest
    what = f"{len(lists)} class lists" if lists else "no class answer"
    raise TableError(f"{path} holds {what}, so that the classes are not known; name them with --classes.")


def with_answered(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return class names and those of the list that answers chose from, in its order: a class does not vanish as
    nobody has labelled it."""
    try:
        answered = answered_classes(path)
    except TableError:
        if not names:
            raise
        return names
    find = _class_finder(names)
    own = ((name, find(name)) for name in answered)
    return tuple(dict.fromkeys([*(names[number] if number >= 0 else name for name, number in own), *names]))


def read_for(path: Path, images: Dataset) -> Read:
    """Return the class answers about the images of a dataset, or the tags where they have several classes.

    Raises TableError: the store says nothing of these images and classes, or its answers were told the class.
    """
    if images.labels.ndim == 2:
        return read_tags(path, images.digests, images.classes)
    each = read_by_describer(path, images.digests, images.classes)
    if len(each) == 1:
        return next(iter(each.values()))
    votes = read_answers(path, images.digests, images.classes)
    return votes._replace(answers=votes.answers._replace(by={name: own.answers for name, own in each.items()}))


def read_by_describer(path: Path, digests: Sequence[str], classes: Sequence[str]) -> dict[str, Read]:
    """Return the class answers of each describer of a store by its name, see ``describer_name``.

    Describers without an answer about these images are left out.
    """
    with DescriptionStore(path) as store:
        names = dict.fromkeys(describer_name(who) for prompt, who, _, _ in store.counts() if CLASS in prompt.ask)
    found = dict[str, Read]()
    for name in names:
        with contextlib.suppress(TableError):
            found[name] = read_answers(path, digests, classes, name)
    return found or {"": read_answers(path, digests, classes)}  # which says what is there


def read_answers(path: Path, digests: Sequence[str], classes: Sequence[str], describer: str | None = None) -> Read:
    """Return the class answers of a store about N images by digest, of one describer or as votes of all.

    An answer from a list of fewer classes counts only where no answer from all classes names one.
    """
    number_of = _class_finder(classes)
    strange: Counter[str] = Counter()
    numbers, stated = array("q"), array("f")  # of a million answers, not objects
    none, examples = np.zeros(len(digests)), np.zeros(len(digests), bool)

    @functools.cache
    def is_short(prompt: Prompt) -> bool:
        told = {number_of(name) for name in prompt.class_names} - {-1}
        return 2 <= len(told) < len(classes)

    for row, item in _stored(path, digests):
        if CLASS not in item.prompt.ask or describer not in (None, describer_name(item.describer)):
            continue
        answer, short = item.answer, is_short(item.prompt)
        examples[row] |= item.was_example
        first, second = number_of(answer.class_name), number_of(answer.second)
        if first < 0 and (word := answer.class_name or answer.said):
            strange[word] += 1
        sure = answer.confidence if answer.confidence is not None else answer.probability
        stated.append(USUAL_CONFIDENCE if sure is None else sure)
        none[row] += 0 if short else 1 if answer.kind == "none" else -1
        numbers.extend((short, row, first, second if second != first else -1))
    shorter, row_of, first, second = np.array(numbers, np.int64).reshape(-1, 4).T
    broad = np.zeros(len(digests), bool)
    broad[row_of[(shorter == 0) & (first >= 0)]] = True
    used = np.flatnonzero((shorter == 0) | ~broad[row_of])
    if not (first[used] >= 0).any():
        raise _nothing(path, "answer about these images", classes, strange, "class`, or leave --answers out.")
    sure = np.array(stated, np.float32)[used]
    found = _counted(row_of[used], first[used], second[used], sure, len(digests), len(classes))
    found = found._replace(none=none > 0 if (none > 0).any() else None, examples=examples if examples.any() else None)
    return Read(found, strange)


def read_tags(path: Path, digests: Sequence[str], classes: Sequence[str]) -> Read:
    """Return which classes were seen in images that may have several, by the tags of a store.

    The labels of boxes are the tags of an answer that was asked for boxes alone. Errors are those of ``read_for``.
    """
    number_of = _class_finder(classes)
    strange: Counter[str] = Counter()
    seen, asked = np.zeros((len(digests), len(classes))), np.zeros(len(digests))
    for row, item in _stored(path, digests):
        tags = item.answer.tags
        if tags is None and item.answer.boxes is not None:
            tags = tuple(box["label"] for box in item.answer.boxes)
        if tags is not None:
            numbers = {tag: number_of(tag) for tag in tags}
            strange.update(tag for tag, number in numbers.items() if number < 0)
            seen[row, [number for number in numbers.values() if number >= 0]] += 1
            asked[row] += 1
    if not asked.any():
        raise TableError(f"{path} holds no tags of these images. Ask with `gpt4image describe --ask tags`, or boxes.")
    share = seen / np.maximum(asked, 1)[:, None]
    first = np.where(asked[:, None] > 0, share >= 0.5, -1).astype(np.int64)
    sure = (0.5 + np.abs(share - 0.5) * (2 * USUAL_CONFIDENCE - 1)).astype(np.float32)
    return Read(Answers(first, np.full_like(first, -1), sure), strange)


def read_boxes(path: Path, digests: Sequence[str], classes: Sequence[str]) -> tuple[AnsweredBoxes, Counter[str]]:
    """Return the boxes of a store about N images by digest; and words that are none of the classes."""
    number_of = _class_finder(classes)
    strange: Counter[str] = Counter()
    answers: list[list[Answer]] = [[] for _ in digests]
    for row, item in _stored(path, digests):
        if (boxes := item.answer.boxes) is not None:
            numbered = [(number_of(box["label"]), box) for box in boxes]
            strange.update(box["label"] for number, box in numbered if number < 0)
            usable = tuple({**box, "label": classes[number]} for number, box in numbered if number >= 0)
            # Other words for the objects, and none of a class, do not say that there is none of a class.
            answers[row] += [replace(item.answer, boxes=usable)] if usable or not boxes else []
    images: list[ImageBoxes | None] = []
    truncated: list[float] = []
    for several in answers:
        voted = box_votes(several)
        truncated += [box.truncated for box in voted]
        corners = np.array([box.corners for box in voted], np.float64).reshape(-1, 4) / 1000
        labels = np.array([number_of(box.label) for box in voted], np.int64)
        shares = np.array([box.share for box in voted], np.float32)
        images.append((np.clip(corners, 0, 1).astype(np.float32), labels, shares) if several else None)
    found = AnsweredBoxes(boxes=Boxes.of_images(images), truncated=np.array(truncated, np.float32))
    if not len(found.boxes.labels):
        raise _nothing(path, "box of these images", classes, strange, "boxes`.")
    return found, strange


class VotedBox(NamedTuple):
    """One object: its class, mean (4,) corners in thousandths of the image, the share of answers that have it, and the
    share of these that call it cut off."""

    label: str
    corners: NDArray[np.float64]
    share: float
    truncated: float


def box_votes(answers: Sequence[Answer]) -> list[VotedBox]:
    """Return the boxes of answers about one image, those that most answers have first.

    A box joins the object of its class that it overlaps most, by an IoU of 0.5 at least; an answer has one box per
    object. Answers without boxes, to other questions, do not count.
    """
    asked = [answer.boxes for answer in answers if answer.boxes is not None]
    objects: list[tuple[str, NDArray[np.float64], list[Any]]] = []  # class, sum of corners, boxes
    for boxes in asked:
        corners = np.asarray([box["box_2d"] for box in boxes], np.float64).reshape(-1, 4)
        before = len(objects)
        means = np.asarray([total / len(own) for _, total, own in objects], np.float64).reshape(-1, 4)
        same = np.asarray([[box["label"] == label for label, *_ in objects] for box in boxes], np.bool_)
        shared = overlap(corners, means) * same.reshape(len(boxes), before)
        of_box: dict[int, int] = {}
        while shared.size and shared.max() >= SAME_OBJECT:  # the best pair first
            row, column = np.unravel_index(shared.argmax(), shared.shape)
            of_box[int(row)] = int(column)
            shared[row], shared[:, column] = 0, 0
        for row, box in enumerate(boxes):
            if row not in of_box:
                objects.append((box["label"], corners[row].copy(), [box]))
                continue
            _, total, own = objects[of_box[row]]
            total += corners[row]
            own.append(box)
    voted: list[VotedBox] = []
    for label, total, own in objects:
        cut = [box["truncated"] for box in own if box.get("truncated") is not None]
        voted.append(VotedBox(label, total / len(own), len(own) / len(asked), float(np.mean(cut)) if cut else 0.0))
    return sorted(voted, key=lambda box: -box.share)


def _stored(path: Path, digests: Sequence[str]) -> Iterator[tuple[int, StoredAnswer]]:
    """Yield the answers of a store, each with the row of its image; one about equal images comes for each of them."""
    rows: dict[str, int | list[int]] = {}  # lists only for copies: a million images have few
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


def _class_finder(classes: Sequence[str]) -> Callable[[str | None], int]:
    """Return what finds the number of the class that a word means, -1 for none."""
    numbers, names = {name: number for number, name in enumerate(classes)}, ClassNames(classes)

    @functools.cache
    def find(word: str | None) -> int:
        return numbers.get(names.find(word) or "", -1) if word else -1

    return find


def _nothing(path: Path, what: str, classes: Sequence[str], strange: Counter[str], ask: str) -> TableError:
    seen = f"; answered were {first_few(strange)}" if strange else ""
    return TableError(
        f"{path} holds no {what} that names one of the classes {first_few(classes)}{seen}. Ask with "
        f"`gpt4image describe --ask {ask}"
    )


def _shares(confidence: Floats, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of the first class and of the second; the first is always the largest."""
    stated = np.where(np.isnan(confidence), USUAL_CONFIDENCE, confidence).astype(np.float64)
    sure = np.clip(stated, min(1.5 / n_classes, MOST_CERTAIN), MOST_CERTAIN)
    return sure, np.minimum(SECOND_SHARE * (1.0 - sure), 0.9 * sure)


def _counted(rows: Ints, first: Ints, second: Ints, confidence: Floats, total: int, n_classes: int) -> Answers:
    """Return one answer per image, by votes about the images ``rows``: the class with the largest mean probability over
    its votes, and the next one; -1 is none of the classes."""
    shares, classes = np.concatenate(_shares(confidence, n_classes)), np.concatenate([first, second])
    known = classes >= 0
    sums = csr_matrix((shares[known], (np.tile(rows, 2)[known], classes[known])), shape=(total, n_classes))
    sums.sum_duplicates()
    has, counts = np.diff(sums.indptr), np.bincount(rows, minlength=total)
    found = Answers(np.full(total, -1), np.full(total, -1), np.full(total, np.nan, np.float32))
    order = np.lexsort((-np.asarray(sums.data, np.float32), np.repeat(np.arange(total), has)))
    for place, target in ((0, found.first), (1, found.second)):
        some = np.flatnonzero(has > place)
        target[some] = sums.indices[order[sums.indptr[some] + place]]
    some = np.flatnonzero(has)
    found.confidence[some] = sums.data[order[sums.indptr[some]]] / counts[some]
    return found
