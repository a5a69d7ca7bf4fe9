"""In which order images are asked about where not all of them will be, so that any stop has used its money well.

The first round covers the images: those nearest to the centres of clusters of their features. Each later round goes
where a classifier is most in doubt between two classes that reads the pictures and was taught by the answers so far.
Some images of each round are those that come next in one random order of all, so that it can be said without bias how
often the classifier agrees with what is answered.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import DataError, TableError
from gpt4image.base.progress import say
from gpt4image.data import Dataset
from gpt4image.labelling.evidence import read_answers
from gpt4image.labelling.pictures import FEATURES, read_pictures
from gpt4image.labelling.texts import classify
from gpt4image.selecting.order import at_random, doubt_of, unlike

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

ROUND, LEAST_ROUND = 0.05, 20  # share of the images that one round asks about, and how many at least
BATCHES = 3  # rounds of the Batch API
ONE_IN = 20  # of a round, so many are taken at random
FEWEST, MOST = 100, 200_000  # distinct images from which on there is an order, and of which at most one is made
CALLS = 200  # what the forecast is about
FITTED = 5  # rounds whose errors are continued; a forecast needs three
BELIEVED = 20.0  # images at random that the classifier's own confidence counts for


class Reached(NamedTuple):
    """What ``asked`` answers of ``images`` bring: the ``share`` of images whose class is the one that asking about all
    of them would give, with its 95 % interval."""

    asked: int
    images: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.asked:,} of {self.images:,} images are answered; {self.share:.1%} ({self.low:.1%} to "
            f"{self.high:.1%}) have the class that asking about all would give"
        )


@dataclass
class Order:
    """The order of N distinct images.

    Attributes:
        digests: of the N images.
        vectors: (N, D) features of their pictures, of length 1.
        seen: (N,) which pictures could be read; the others come last.
        n_classes: how many classes answers choose from; 0 where they name none, and images are only covered.
        answered: returns (N,) the class that was answered, -1 where there is no answer yet.
        curve: what was reached before each round, as far as answers tell.
    """

    digests: list[str]
    vectors: Floats
    seen: NDArray[np.bool_]
    n_classes: int
    answered: Callable[[], Ints]
    curve: list[Reached] = field(default_factory=list[Reached])

    def rounds(self, wanted: set[str], size: int) -> Iterator[list[str]]:
        """Yield about ``size`` digests of those ``wanted`` at a time, until none is left; what they were answered is
        read before the next ones are chosen. What is no image of the order comes last, at once."""
        yield from self._ordered(wanted, size)
        if others := sorted(wanted.difference(self.digests)):
            yield others

    def _ordered(self, wanted: set[str], size: int) -> Iterator[list[str]]:
        place, shuffled = np.array([one in wanted for one in self.digests], bool), at_random(self.digests, "ask")
        while place.any():
            doubt = self._doubt(self.answered(), shuffled[: np.argmax(place[shuffled])])
            drawn = shuffled[place[shuffled]][: max(1, min(size, int(place.sum())) // ONE_IN)]
            place[drawn] = False
            rest = np.flatnonzero(place & self.seen)
            chosen = self._chosen(doubt, rest, size - len(drawn)) if len(rest) else rest
            if not len(chosen):
                chosen = np.flatnonzero(place)
            place[chosen] = False
            yield [self.digests[row] for row in (*drawn.tolist(), *chosen.tolist())]
        self._doubt(self.answered(), shuffled)

    def _chosen(self, doubt: Floats, rest: Ints, count: int) -> Ints:
        if doubt.min() == 1:  # nothing is known of classes
            return unlike(self.vectors, doubt[rest], rest, count, seed=0)
        return rest[np.argsort(-doubt[rest], kind="stable")[:count]]

    def forecast(self) -> None:
        """Note what parts of the answers reach, where nobody is asked."""
        shuffled = at_random(self.digests, "ask")
        said = self.answered()
        answered = shuffled[said[shuffled] >= 0]
        for part in (4, 2, 1):
            some = np.full(len(said), -1)
            some[answered[: len(answered) // part]] = said[answered[: len(answered) // part]]
            self._doubt(some, answered[: len(answered) // part])

    def _doubt(self, said: Ints, sample: Ints) -> Floats:
        """Return (N,) how unsure the class of each image is by (N,) answers, -1 for none, and note what is reached.

        ``sample`` are images at random, of which those without an answer are left out.
        """
        n = len(said)
        if len(np.unique(said[said >= 0])) < 2:
            return np.ones(n, np.float32)
        found = classify(self.vectors, said, self.n_classes, seed=0)
        sure, best = found.probabilities.max(axis=1), found.probabilities.argmax(axis=1)
        left, sample = said < 0, sample[found.out_of_fold[sample]]
        off = (best == said)[sample] - sure[sample]
        # The classifier's confidence, corrected by the images at random (prediction-powered inference, Angelopoulos et
        # al. 2023, arXiv 2301.09633); few of these correct little.
        of_left = float(sure[left].mean()) + float(off.sum()) / (len(off) + BELIEVED) if left.any() else 1.0
        of_left = min(max(of_left, 0.0), 1.0)
        half = 1.96 * math.sqrt(float((off**2).sum()) + BELIEVED * of_left * (1 - of_left)) / (len(off) + BELIEVED)
        ends = (1 - left.mean() * (1 - min(max(one, 0.0), 1.0)) for one in (of_left, of_left - half, of_left + half))
        self.curve.append(Reached(int((~left).sum()), n, *map(float, ends)))
        return doubt_of(found.probabilities).astype(np.float32)

    @property
    def reached(self) -> str:
        """What the answers have reached and what more would bring, for people; empty before there are some."""
        if not self.curve:
            return ""
        more = self.gain()
        return f"{self.curve[-1]}" + ("." if more is None else f"; {CALLS} more calls would add about {more:.1%}.")

    def facts(self) -> dict[str, float]:
        """Return the same for records."""
        if not self.curve:
            return {}
        last, more = self.curve[-1], self.gain()
        found = {"as_if_all_asked": last.share, "as_if_all_asked_low": last.low, "as_if_all_asked_high": last.high}
        return found if more is None else found | {f"next_{CALLS}_calls": more}

    def gain(self) -> float | None:
        """Return what the next CALLS calls are expected to add to the share of ``Reached``, by the power law of the
        last rounds; None where these are too few."""
        points = [(each.asked, 1 - each.share) for each in self.curve[-FITTED:] if each.share < 1]
        if len(points) < 3 or len({asked for asked, _ in points}) < 3:
            return None
        asked, wrong = np.log(np.array(points)).T
        slope, level = np.polyfit(asked, wrong, 1)
        last, images = points[-1][0], self.curve[-1].images
        now, end = (math.exp(level + slope * math.log(min(images, last + more))) for more in (0, CALLS))
        return max(0.0, now - end)


def round_size(images: int, per_call: int, *, batches: bool) -> int:
    """Return of how many images a round is, where so many will be asked about. A batch takes long: few."""
    size = math.ceil(images / BATCHES) if batches else max(LEAST_ROUND, math.ceil(ROUND * images))
    return -(-size // per_call) * per_call


def order_of(images: Dataset, classes: tuple[str, ...], store: Path) -> Order | None:
    """Return the order of a dataset's distinct images; None where they are few, none can be decoded, or no weights lie
    on this machine.

    Features are kept beside the store, where `label` looks for them. Of more than MOST images those first in
    a random order have an order, the others come after them.
    """
    digests, first = np.unique(images.digests, return_index=True)
    if len(digests) < FEWEST:
        return None
    some = np.sort(at_random(digests.tolist(), "ask")[:MOST])
    rows = first[some]
    wanted = np.zeros(len(images), bool)
    wanted[rows] = True
    try:
        pictures, _ = read_pictures(images, wanted, "auto", store.with_suffix(FEATURES))
    except DataError:  # none can be decoded, which only some describers need
        return None
    if pictures is None:
        if not images.clips:
            say("Images are asked about at random: an order needs pretrained weights on this machine, e.g. of `timm`.")
        return None
    narrow = pictures.take(rows).principal(np.arange(len(rows)))
    ordered = digests[some].tolist()

    def answered() -> Ints:
        with contextlib.suppress(TableError):  # no answer yet
            return read_answers(store, ordered, classes).answers.first
        return np.full(len(ordered), -1)

    return Order(ordered, np.asarray(narrow.vectors, np.float32), narrow.seen, len(classes), answered)
