"""Boxes that a describer answered, as arrays that fit a dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.box_votes import VotedBox, box_votes
from gpt4image.base.errors import TableError, first_few
from gpt4image.data.regions import Boxes, ImageBoxes
from gpt4image.labelling.answers import class_finder, stored_answers


@dataclass(frozen=True, kw_only=True, eq=False)
class AnsweredBoxes:
    """Boxes that were answered about N images, M in all.

    Attributes:
        boxes: classes are as answered, weights are shares of the answers that have the box; ``known`` says which images
            were asked about.
        truncated: (M,) float32, share of the answers that call the object cut off; 0 where none says anything.
    """

    boxes: Boxes
    truncated: NDArray[np.float32]

    @property
    def given(self) -> NDArray[np.bool_]:
        """(N,) which images have an answer."""
        return self.boxes.known

    def take(self, rows: NDArray[np.int64]) -> AnsweredBoxes:
        """Return the answers about some images."""
        return AnsweredBoxes(boxes=self.boxes[rows], truncated=self.truncated[self.boxes.places(rows)])

    def content(self) -> str:
        """Return a digest of all of it, for fingerprints."""
        return hashlib.sha256(self.boxes.content().encode() + self.truncated.tobytes()).hexdigest()


def read_boxes(path: Path, digests: Sequence[str], classes: Sequence[str]) -> tuple[AnsweredBoxes, Counter[str]]:
    """Return the boxes that a store has of images, several answers as votes; and words that are none of the classes.

    Args:
        path: description store.
        digests: of N images; equal images have the same boxes.
        classes: of the dataset; a label is one of them where it differs only in case, spaces or plural.

    Raises:
        StoreError: the store is missing or damaged.
        TableError: no image has an answer with boxes of these classes, or answers were told the class.
    """
    number_of = class_finder(classes)
    strange: Counter[str] = Counter()
    answers: list[list[Answer]] = [[] for _ in digests]
    for row, item in stored_answers(path, digests):
        if item.answer.boxes is not None:
            usable = _of_classes(item.answer, number_of, classes, strange)
            # Other words for the objects, and none of a class, do not say that there is none of a class.
            answers[row] += [usable] if usable.boxes or not item.answer.boxes else []
    images: list[ImageBoxes | None] = []
    truncated: list[float] = []
    for several in answers:
        voted = box_votes(several)
        truncated += [box.truncated or 0.0 for box in voted]
        images.append(_arrays(voted, [number_of(box.label) for box in voted]) if several else None)
    found = AnsweredBoxes(boxes=Boxes.of_images(images), truncated=np.array(truncated, np.float32))
    if not len(found.boxes.labels):
        seen = f"; answered were {first_few(strange)}" if strange else ""
        raise TableError(
            f"{path} holds no box of these images that names one of the classes {first_few(classes)}{seen}. Ask with "
            "`gpt4image describe --ask boxes`."
        )
    return found, strange


def _of_classes(
    answer: Answer, number_of: Callable[[str | None], int], classes: Sequence[str], strange: Counter[str]
) -> Answer:
    """Return the answer with names of classes for labels; boxes of other things are left out and counted."""
    boxes = [(number_of(box["label"]), box) for box in answer.boxes or ()]
    strange.update(box["label"] for number, box in boxes if number < 0)
    return replace(answer, boxes=tuple({**box, "label": classes[number]} for number, box in boxes if number >= 0))


def _arrays(voted: Sequence[VotedBox], labels: Sequence[int]) -> ImageBoxes:
    corners = np.array([box.corners for box in voted], np.float64).reshape(-1, 4) / 1000
    return (
        np.clip(corners, 0, 1).astype(np.float32),
        np.array(labels, np.int64),
        np.array([box.share for box in voted], np.float32),
    )
