"""Several answers about one image as votes: which boxes they agree on, and how many of them do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.box_formats import overlap

AGREES = 0.5
"""IoU from which on two boxes of the same class are of one object."""


@dataclass(frozen=True, kw_only=True)
class VotedBox:
    """One object, as several answers have it.

    Attributes:
        label: its class.
        corners: (4,) left, top, right, bottom: means in thousandths of the image.
        share: of the answers that have it, 0 to 1.
        truncated: share of them that say that a part of it is hidden; None where none says anything.
        confidence: mean of what they state; None where none states any.
        words: what they say of it, the most frequent first.
    """

    label: str
    corners: NDArray[np.float64]
    share: float
    truncated: float | None
    confidence: float | None
    words: tuple[str, ...]


@dataclass
class _Cluster:
    label: str
    total: NDArray[np.float64]
    boxes: list[Any] = field(default_factory=list[Any])

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.total / len(self.boxes)


def box_votes(answers: Sequence[Answer]) -> list[VotedBox]:
    """Return the boxes of answers about one image, those that most answers have first.

    A box joins the object of its class that it overlaps most, by an IoU of 0.5 at least; an answer has one box per
    object. Answers without boxes, to other questions, do not count.
    """
    asked = [answer.boxes for answer in answers if answer.boxes is not None]
    clusters: list[_Cluster] = []
    for boxes in asked:
        corners = np.asarray([box["box_2d"] for box in boxes], np.float64).reshape(-1, 4)
        before = list(clusters)
        means = np.asarray([cluster.mean for cluster in before], np.float64).reshape(-1, 4)
        labels = np.asarray([[box["label"] == one.label for one in before] for box in boxes], np.bool_)
        shared = overlap(corners, means) * labels.reshape(len(boxes), len(before))
        of_box: dict[int, _Cluster] = {}
        while shared.size and shared.max() >= AGREES:  # the best pair first
            row, column = np.unravel_index(shared.argmax(), shared.shape)
            of_box[int(row)] = before[column]
            shared[row], shared[:, column] = 0, 0
        for row, box in enumerate(boxes):
            cluster = of_box.get(row)
            if cluster is None:
                cluster = _Cluster(box["label"], np.zeros(4))
                clusters.append(cluster)
            cluster.total = cluster.total + corners[row]
            cluster.boxes.append(box)
    found = [_voted(cluster, len(asked)) for cluster in clusters]
    return sorted(found, key=lambda box: -box.share)


def _voted(cluster: _Cluster, answers: int) -> VotedBox:
    def stated(name: str) -> list[Any]:
        return [box[name] for box in cluster.boxes if box.get(name) is not None]

    def mean(name: str) -> float | None:
        return float(np.mean(values)) if (values := stated(name)) else None

    return VotedBox(
        label=cluster.label,
        corners=cluster.mean,
        share=len(cluster.boxes) / answers,
        truncated=mean("truncated"),
        confidence=mean("confidence"),
        words=tuple(word for word, _ in Counter(stated("words")).most_common()),
    )
