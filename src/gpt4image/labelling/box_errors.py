"""Human boxes that look wrong: missing, false, misplaced, or of another class; judged by predictions out of fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.box_formats import overlap
from gpt4image.data.regions import Boxes
from gpt4image.labelling.boxes import TaughtBoxes

Kind = Literal["missing", "false", "misplaced", "another class"]
KINDS: dict[Kind, str] = {
    "missing": "The teacher is confident of a box, and no human box is near.",
    "false": "No answered box is near the human box.",
    "misplaced": "The nearest answered box overlaps the human box only in part.",
    "another class": "Place and size agree; the teacher is confident of another class.",
}
NEAR, ALIKE = 0.3, 0.6
"""IoU from which on boxes are near, and from which on they are in the same place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspect:
    """One suspected error.

    Attributes:
        kind: of KINDS.
        image: position of the image.
        doubt: 0 to 1, how sure the evidence is.
        corners: (4,) of the human box; of the teacher's, where one is missing.
        label: class of the same box.
        taught: corners and class of the teacher's box beside the human one, where it says something else.
    """

    kind: Kind
    image: int
    doubt: float
    corners: NDArray[np.float32]
    label: int
    taught: tuple[NDArray[np.float32], int] | None = None


def suspected_boxes(taught: TaughtBoxes, human: Boxes) -> list[Suspect]:
    """Return suspected errors of human boxes, the surest first; images without an answer or annotation have none."""
    images = np.flatnonzero(taught.boxes.known & human.known).tolist()
    found = [suspect for image in images for suspect in _of_image(taught, human, image)]
    return sorted(found, key=lambda suspect: -suspect.doubt)


def _of_image(taught: TaughtBoxes, human: Boxes, image: int) -> Iterator[Suspect]:
    answered, classes, sure = taught.boxes.image(image)
    probable = taught.probable[taught.boxes.starts[image] : taught.boxes.starts[image + 1]]
    likely = taught.likely[taught.boxes.starts[image] : taught.boxes.starts[image + 1]]
    given, labels, weights = human.image(image)
    shared = overlap(answered, given)
    near = shared.max(axis=1, initial=0.0)
    counts = taught.drawn[taught.boxes.starts[image] : taught.boxes.starts[image + 1]] >= 0  # not in an ignored region
    for i in np.flatnonzero(likely & (near < NEAR) & counts):
        yield Suspect(kind="missing", image=image, doubt=float(probable[i]), corners=answered[i], label=int(classes[i]))
    judged = np.flatnonzero(weights > 0)
    best_of = shared.max(axis=0, initial=0.0)[judged]
    # Where the answers know none of the other boxes of the image, they may have missed this one too.
    trusted = (1 + (best_of >= ALIKE).sum()) / (2 + len(judged) - 1)
    for j in judged:
        best = int(shared[:, j].argmax()) if len(answered) else -1
        same = float(shared[best, j]) if len(answered) else 0.0
        own, beside = (given[j], int(labels[j])), None if best < 0 else (answered[best], int(classes[best]))
        if same < NEAR:
            yield Suspect(
                kind="false", image=image, doubt=min(1.0, trusted) * (1.0 - same), corners=own[0], label=own[1]
            )
        elif same < ALIKE:
            doubt = float(probable[best]) * (1.0 - same)
            yield Suspect(kind="misplaced", image=image, doubt=doubt, corners=own[0], label=own[1], taught=beside)
        elif classes[best] != labels[j]:
            doubt = float(sure[best])
            yield Suspect(kind="another class", image=image, doubt=doubt, corners=own[0], label=own[1], taught=beside)
