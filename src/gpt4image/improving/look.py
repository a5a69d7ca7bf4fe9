"""What is new in new images: what the deployed model says of them, how they differ, and which to ask about.

Legend: N images of the line so far, M new ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts import runs
from gpt4image.base.intervals import wilson
from gpt4image.base.outcome import Skipped
from gpt4image.data import Dataset
from gpt4image.labelling.pictures import read_pictures
from gpt4image.pages.cards import Thumbnails
from gpt4image.pages.numbers import p_value, percent, percent_interval
from gpt4image.selecting.drift import Drift, ShareOfClass, drift, shares
from gpt4image.selecting.order import at_random, doubt_of, unlike
from gpt4image.training.run_model import RunModel, load_run_model

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

MOST_BEFORE = 2000  # images before, at random, whose classes are predicted anew
FEW_HELD_OUT = 50  # held-out images before from which on the others are not needed: the model has learned those
SHOWN = 24  # pictures of a section of the page


class Deployed(NamedTuple):
    """The deployed model, and its K classes."""

    model: RunModel
    classes: tuple[str, ...]

    def predict(self, images: Dataset, rows: Ints) -> tuple[Floats, Floats, Bools]:
        """Return (n, K) calibrated probabilities and (n, C) features of images, and which of them can be read."""
        pixels = self.model.pixels(images)
        found = self.model.read(pixels, rows)
        return found.predictions[:], found.features, ~pixels.broken(rows)


def load_deployed(run: Path) -> Deployed:
    """Return the model of a finished run."""
    classes = runs.class_names(run)
    return Deployed(load_run_model(run, None, classes), classes)


class Look(NamedTuple):
    """What is new: probabilities and vectors of the M new images that can be read, at ``rows`` of all images; how well
    the deployed model knows each, from 0 to 1, and the border below which it is none of the classes, if there is one;
    how the sides differ."""

    rows: Ints
    probabilities: Floats
    vectors: Floats
    known: Floats | None
    border: float | None
    drift: Drift | None
    shares: list[ShareOfClass]
    then: str
    skipped: tuple[Skipped, ...]

    @property
    def right(self) -> float:
        """The share of new images on which the deployed model expects to be right."""
        return float(self.probabilities.max(axis=1).mean())

    @property
    def strange(self) -> Bools:
        """(M,) which new images are none of the classes, as far as the deployed model can tell."""
        if self.known is None or self.border is None:
            return np.zeros(len(self.rows), bool)
        return self.known < self.border


def look(deployed: Deployed, images: Dataset, before: Bools, features: str, folder: Path) -> Look:
    """Look at new images, those that are not ``before`` (N + M,), with the deployed model and frozen features.

    Features of the deployed model stand in where there are no pretrained weights here; they differ between images it
    has learned from and others, so that they are compared with held-out ones only.
    """
    new, held_out = np.flatnonzero(~before), np.flatnonzero(before & (images.splits != "train"))
    old = np.flatnonzero(before)
    some = old[at_random([images.digests[row] for row in old])[:MOST_BEFORE]]
    then, whose = (held_out, "held-out images") if len(held_out) >= FEW_HELD_OUT else (some, "images")
    said, of_model, readable = deployed.predict(images, np.concatenate([then, new]))
    good = readable[len(then) :]
    skipped = [Skipped(images.keys[row], "cannot be decoded") for row in new[~good]]
    rows, first = new[good], np.flatnonzero(readable[: len(then)])
    found, _ = read_pictures(images, np.ones(len(images), bool), features, folder)
    new_features = of_model[len(then) :][good]
    if found is None:
        compared, vectors = of_model[first][: len(first) if len(held_out) >= FEW_HELD_OUT else 0], new_features
    else:
        pictures = found.principal(old)
        compared, vectors = (pictures.vectors[own[found.seen[own]]] for own in (old, rows))
    probabilities = said[len(then) :][good]
    return Look(
        rows=rows,
        probabilities=probabilities,
        vectors=vectors,
        known=deployed.model.known(new_features),
        border=None if (reject := deployed.model.task.decision.reject) is None else reject.share,
        drift=drift(compared, vectors),
        shares=shares(deployed.classes, said[first].argmax(axis=1), probabilities.argmax(axis=1)),
        then=whose,
        skipped=tuple(skipped),
    )


def choose(seen: Look, images: Dataset, looks: int, ask: int | None, seed: int) -> tuple[Ints, Ints]:
    """Return the rows of new images that measure, a simple random sample, and of those to ask about and learn from.

    The latter are unsure or unlike those before, and unlike each other.
    """
    total = len(seen.rows)
    order = at_random([images.digests[row] for row in seen.rows])
    measured = order[: min(looks, total // 4)]
    rest = np.setdiff1d(np.arange(total), measured)
    count = min(len(rest), max(1, total // 4) if ask is None else ask)
    doubt = (
        np.where(seen.strange, 1.0, doubt_of(seen.probabilities)) if seen.probabilities.shape[1] > 1 else seen.strange
    )
    chosen = unlike(seen.vectors, np.asarray(doubt, np.float64)[rest], rest, count, seed) if len(rest) else rest
    return seen.rows[np.sort(measured)], seen.rows[chosen]


def in_words(seen: Look, classes: Sequence[str]) -> list[str]:
    """Return what is new, in sentences."""
    said: list[str] = []
    if seen.drift is not None:
        p = p_value(seen.drift.p)
        what = "differ from" if seen.drift.p < 0.05 else "cannot be told from"
        said.append(
            f"New images {what} those before: a classifier tells them apart with an area under the curve of "
            f"{seen.drift.auc:.2f} (.5 is chance), p {p if p[0] == '<' else f'= {p}'}."
        )
    changed = [one for one in seen.shares if one.p < 0.05]
    for one in sorted(changed, key=lambda one: one.p):
        said.append(
            f"{one.name}: {percent(one.then)} ({percent_interval(one.then_ci95)}) of the {seen.then} before, "
            f"{percent(one.now)} ({percent_interval(one.now_ci95)}) of the new ones."
        )
    if not changed:
        said.append(f"No share of the {len(classes)} predicted classes has changed significantly.")
    if seen.border is not None:
        share = float(seen.strange.mean())
        said.append(
            f"{percent(share)} ({percent_interval(wilson(share, len(seen.rows)))}) are none of the classes by the "
            f"deployed model; {percent(seen.border)} would be by chance."
        )
    said.append(f"The deployed model expects to be right on {percent(seen.right)} of the new images.")
    return said


def sections(seen: Look, images: Dataset, classes: Sequence[str], ask: Ints) -> list[dict[str, Any]]:
    """Return the pictures of the page: those unlike any before, and those to ask about."""
    thumbnails, place = Thumbnails(images), {int(row): number for number, row in enumerate(seen.rows)}
    order = [] if seen.known is None else np.argsort(seen.known, kind="stable").tolist()
    strange = [int(seen.rows[number]) for number in order if seen.strange[number]]

    def cards(rows: Sequence[int]) -> list[dict[str, Any]]:
        own = [(row, seen.probabilities[place[row]]) for row in rows[:SHOWN]]
        return [
            {
                "key": images.keys[row],
                "picture": thumbnails.of(row),
                "label": classes[said.argmax()],
                "sure": percent(said.max()),
            }
            for row, said in own
        ]

    about = (("None of the classes, says the model", strange), ("Asked about", ask.tolist()))
    return [{"title": title, "total": len(rows), "cards": cards(rows)} for title, rows in about if rows]
