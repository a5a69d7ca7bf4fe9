"""How many of many images are right, from a person's looks at a few, with intervals and promises that hold.

Images are looked at in a random order that depends on their bytes alone, so the first looks at any images are a simple
random sample of them. The *estimated correctness* of an image, a probability to be right, only sorts the audited
images into strata afterwards: one that is wrong widens the interval and does not make it false. And which images to
label next: those whose class is least sure, no two of them alike.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from gpt4image.artifacts.answers import overlap
from gpt4image.artifacts.probabilities import Probabilities, take, two_best
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, DataError, first_few
from gpt4image.data.manifest import BOXES, DIGEST, LABEL_COLUMNS, REVIEW, read_table
from gpt4image.labelling.evidence import SAME_OBJECT
from gpt4image.labelling.texts import Vectors

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AUDIT_FILE = Path("audit.csv")  # file of the looks, where no other is named
FEWEST = 5  # looks from which on a share is told
MANY = 50  # looks from which on there are three strata, not two
TAIL, ERROR = 0.025, 0.05
MID_P_TAIL = 0.0225  # mid-p limits cover a little less than they say, where strata are combined
LEAST_SPREAD = (
    0.2  # of an image whose estimate is sure, as it may be over-confident: these do not all share one stratum
)
STEPS, STARTS = 50, 2  # sets of surest images, of which the largest that keeps a promise is sought; those that may err


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of ``total`` images, or of things in them, with its 95 % interval, estimated from ``looks`` at images."""

    share: float
    low: float
    high: float
    looks: int
    total: int

    def looks_for(self, half_width: float) -> int:
        """Return about how many looks in all give an interval of ``share`` ± ``half_width``."""
        now = (self.high - self.low) / 2
        if now == 0:
            return self.looks
        # The square of the width is proportional to 1 / looks - 1 / total.
        left = (1 / self.looks - 1 / self.total) * (half_width / now) ** 2
        return min(self.total, math.ceil(1 / (1 / self.total + left)))

    def __str__(self) -> str:
        """The share and its interval in percent."""
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})"


def order_of(digests: Sequence[str]) -> Ints:
    """Return all rows in the order to look at them, which is random and stays when images come or go."""
    return np.argsort([hashlib.sha256(f"look {digest}".encode()).hexdigest() for digest in digests], kind="stable")


def audited_images(path: Path, digests: Sequence[str]) -> tuple[Ints, list[str]]:
    """Return the rows of N images that a person has looked at, a simple random sample of all, and the cells of their
    labels, empty where the person was not sure, from the file that ``audit`` wrote."""
    if not path.is_file():
        return np.zeros(0, np.int64), []
    table = read_table(path, str(path))
    column = next((name for name in (BOXES, *LABEL_COLUMNS) if name in table), "")
    if not column or not {DIGEST, REVIEW} <= table.keys():
        raise DataError(f"{path} was not written by `gpt4image audit`; give the file of its looks.")
    if unknown := sorted({str(note or "") for note in table[REVIEW]} - {"", "checked", "unsure"}):
        raise DataError(f"{path}: review is {first_few(unknown)}; it is checked, unsure or empty. Correct these cells.")
    rows = zip(table[DIGEST], table[column], table[REVIEW], strict=True)
    said = {digest: str(cell) if note == "checked" else "" if note else None for digest, cell, note in rows}
    order = order_of(digests).tolist()
    # Where an image is missing, the file is of other images, too; what comes before it is still a random sample.
    asked = next((place for place, row in enumerate(order) if digests[row] not in said), len(order))
    seen = [(row, cell) for row in order[:asked] if (cell := said[digests[row]]) is not None]
    return np.array([row for row, _ in seen], np.int64), [cell for _, cell in seen]


def strata_of(estimated: Floats, looks: int) -> Ints:
    """Return (N,) strata of equal spread, for which equally many looks each are best.

    The spread of an image is the standard deviation of being right, by its estimated correctness (Neyman 1934; Dalenius
    and Hodges 1959).
    """
    spread = np.maximum(np.sqrt(np.clip(estimated * (1 - estimated), 0, None)), LEAST_SPREAD)
    order = np.argsort(estimated, kind="stable")
    middle = np.cumsum(spread[order]) - spread[order] / 2
    found = np.empty(len(estimated), np.int64)
    found[order] = (middle / spread.sum() * (2 if looks < MANY else 3)).astype(np.int64)
    return found


def share_right(estimated: Floats, audited: Ints, right: Bools) -> Share:
    """Return the share of N images that are right, with a 95 % interval, by (n,) looks at random and whether each is
    right.

    Looks are stratified by the (N,) ``estimated`` correctness. Mid-p limits of each stratum (Lancaster 1961) are
    combined by recovering their variances (MOVER, Zou and Donner 2008), corrected for a finite set. A stratum without a
    look is joined with the one before.
    """
    strata = strata_of(estimated, len(audited))
    place = np.bincount(strata[audited], minlength=strata.max() + 1) > 0
    joined = np.maximum(np.cumsum(place) - 1, 0)[strata]  # looks are at least in one stratum
    size = np.bincount(joined)
    n = np.bincount(joined[audited], minlength=len(size))
    k = np.bincount(joined[audited], weights=right, minlength=len(size))
    weight, share = size / size.sum(), k / n
    known = weight * np.sqrt(1 - n / size)
    found = float(weight @ share)
    below = math.hypot(*(known * (share - (1 - _upper(n - k, n)))))
    above = math.hypot(*(known * (_upper(k, n) - share)))
    return Share(
        share=found, low=max(0.0, found - below), high=min(1.0, found + above), looks=len(audited), total=len(estimated)
    )


def share_of_classes(said: Sequence[str], estimated: Floats, audited: Ints, truth: Sequence[str]) -> Share | None:
    """Return the share of images whose class is said rightly, with its interval; None with too few looks.

    ``said`` are N classes, empty where nothing is said, which counts nowhere; ``truth`` those of the n looks at random.
    """
    known = np.array([bool(name) for name in said], bool)
    seen = known[audited]
    if seen.sum() < FEWEST:
        return None
    right = np.array([said[row] == true for row, true in zip(audited, truth, strict=True)], bool)
    return share_right(estimated[known], (np.cumsum(known) - 1)[audited[seen]], right[seen])


def expected_right(said: NDArray[Any], judge: NDArray[Any] | None = None) -> tuple[Ints, Floats]:
    """Return the class that (N, K) probabilities name, -1 for a row of zeros, and how probably it is right.

    A ``judge``, probabilities of the same images by better evidence, says so where it says anything, else ``said``.
    """
    best = said.argmax(axis=1)
    own = said.max(axis=1)
    if judge is not None:
        own = np.where(judge.any(axis=1), judge[np.arange(len(judge)), best], own)
    return np.where(said.any(axis=1), best, -1), own.astype(np.float64)


def _upper(k: NDArray[Any], n: NDArray[Any]) -> Floats:
    """Return the mid-p upper limits of shares of which k of n were seen, by bisection."""
    low, high = k / n, np.ones(len(n))
    for _ in range(40):
        middle = (low + high) / 2
        inside = bdtr(k, n, middle) + np.where(k > 0, bdtr(np.maximum(k - 1, 0), n, middle), 0.0) > 2 * MID_P_TAIL
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def share_of_things(right: Ints, total: Ints, images: int) -> Share | None:
    """Return the share of things, such as boxes, that are right, with a 95 % interval; None where there are none.

    ``right`` (n,) of ``total`` (n,) things of each image looked at. Things of one image are alike, so exact binomial
    limits are taken at their effective number (Korn and Graubard 1998), corrected for a finite set of ``images``.
    """
    from scipy.stats import beta, norm, t

    n, things = len(total), int(total.sum())
    if not things or n < FEWEST:
        return None
    share = float(right.sum() / things)
    spread = n / (n - 1) * float(((right - share * total) ** 2).sum()) / things**2
    # Without an error, one thing per image is what surely is independent.
    effective = share * (1 - share) / spread if spread else float((total > 0).sum())
    effective = min(effective, things) * float(norm.ppf(TAIL) / t.ppf(TAIL, n - 1)) ** 2
    k = share * effective
    low = float(beta.ppf(TAIL, k, effective - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - TAIL, k + 1, effective - k)) if share < 1 else 1.0
    known = math.sqrt(1 - n / images)
    return Share(share=share, low=share - known * (share - low), high=share + known * (high - share),
                 looks=n, total=images)  # fmt: skip


def matches(said: Sequence[Any], true: Sequence[Any]) -> int:
    """Return how many things that are said of an image are true.

    Things are names, or boxes [name, left, top, right, bottom, ...]: one is true if a box of its class, which no other
    takes, has an IoU of one half or more.
    """
    if not all(isinstance(one, list) for one in [*said, *true]):
        return len({*said} & {*true})
    if not said or not true:
        return 0
    names = ([box[0] for box in boxes] for boxes in (said, true))
    of_said, of_true = (np.array([box[1:5] for box in boxes], np.float64) for boxes in (said, true))
    shared = np.where(np.equal.outer(*map(np.array, names)), overlap(of_said, of_true), 0.0)
    found = 0
    for own in shared:
        if own.max() >= SAME_OBJECT:
            shared[:, own.argmax()] = 0.0
            found += 1
    return found


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The largest set of surest images of which at most a share is wrong, with 95 % confidence: its size, 0 where
    nothing can be promised; looks at it, or at the smallest set that was tested, and how many are wrong; and the looks
    at all images that a test needs, 0 where one was made."""

    images: int
    looks: int = 0
    wrong: int = 0
    needed: int = 0


def promise(confidence: Floats, audited: Ints, wrong: Bools, max_error: float) -> Promise:
    """Return how many of the surest of N images are wrong in at most ``max_error``, which holds in 19 of 20 audits.

    Larger and larger sets of the surest images are tested by exact hypergeometric limits (conformal labelling, arXiv
    2510.14581). The chance of an error is shared by a few of the sets; one that passes hands its share on to the next
    larger one (fallback procedure, Wiens and Dmitrienko 2005). Which sets these are depends on the number of looks,
    never on what they found.
    """
    from scipy.stats import hypergeom

    total, share = len(confidence), len(audited) / len(confidence)
    place = np.empty(total, np.int64)
    place[np.argsort(-confidence, kind="stable")] = np.arange(total)
    sizes = np.unique(np.arange(1, STEPS + 1) * total // STEPS)
    sizes = sizes[sizes > 0]
    broken = (sizes * max_error).astype(np.int64) + 1  # the fewest wrong images that break the promise
    usual = np.floor(sizes * share + 1e-9).astype(np.int64)
    first = np.flatnonzero(hypergeom.pmf(0, sizes, broken, usual) <= ERROR / STARTS)
    if not len(first):
        enough = next(
            n for n in range(len(audited), total + 1) if hypergeom.pmf(0, total, broken[-1], n) <= ERROR / STARTS
        )
        return Promise(images=0, looks=len(audited), wrong=int(wrong.sum()), needed=enough)
    starts = np.unique(np.linspace(first[0], len(sizes) - 1, STARTS + 1).astype(np.int64)[:STARTS])
    inside = place[audited] < sizes[:, None]
    seen, bad = inside.sum(axis=1), (inside & wrong).sum(axis=1)
    chance = hypergeom.cdf(bad, sizes, broken, seen)
    found, level = -1, 0.0
    for j in range(int(first[0]), len(sizes)):
        level += ERROR / len(starts) if j in starts else 0.0
        found, level = (j, level) if chance[j] <= level else (found, 0.0)
    images, shown = (int(sizes[found]), found) if found >= 0 else (0, int(first[0]))
    return Promise(images=images, looks=int(seen[shown]), wrong=int(bad[shown]))


def share_of_targets(targets: Targets, looks: Path) -> Share | None:
    """Return the share of training images whose target is right; None with too few looks, or several classes each."""
    if targets.labels.ndim > 1:
        return None
    train, best, confidence, audited, truth = _seen(targets, looks)
    if not len(train):
        return None
    known = [place for place, name in enumerate(truth) if name]
    said = [targets.classes[k] if k >= 0 else "" for k in best]
    return share_of_classes(said, confidence, audited[known], [truth[place] for place in known])


def _seen(targets: Targets, looks: Path) -> tuple[Ints, Ints, Floats, Ints, list[str]]:
    """Return the rows of training images, what is said of them and how surely; and which were looked at, and truth."""
    train = np.flatnonzero(targets.splits == "train")
    best, confidence = expected_right(take(targets.probabilities, train)[:])
    return train, best, confidence, *audited_images(looks, [targets.digests[row] for row in train])


def _misspelt(name: str, classes: Sequence[str]) -> str:
    """Return the class that a name is nearly spelt as; empty where it is one, or is quite another one."""
    near = {one.casefold(): one for one in classes}
    close = difflib.get_close_matches(name.strip().casefold(), near, n=1, cutoff=0.75)
    return near[close[0]] if close and name not in classes else ""


def promised(targets: Targets, looks: Path, max_error: float) -> tuple[Targets, str]:
    """Return the surest targets of training images of which at most a share is wrong, and a sentence that says so.

    An image of which the person was not sure counts as wrong.
    """
    if targets.labels.ndim > 1:
        raise ConfigError(f"--max-error {max_error:g} needs one class per image; leave it out.")
    train, best, confidence, audited, truth = _seen(targets, looks)
    slips = {true: near for true in truth if true and (near := _misspelt(true, targets.classes))}
    if slips:
        pairs = ", ".join(f"{true!r} (meant is perhaps {near!r})" for true, near in slips.items())
        raise DataError(f"{looks}: {pairs} is none of the classes of the targets; correct these cells.")
    names = [targets.classes[best[row]] for row in audited]
    wrong = np.array([name != true for name, true in zip(names, truth, strict=True)], bool)
    found = promise(confidence, audited, wrong, max_error) if len(audited) else Promise(images=0, needed=1)
    if found.needed:
        least = promise(confidence, np.zeros(1, np.int64), np.zeros(1, bool), max_error).needed
        raise ConfigError(
            f"--max-error {max_error:g} needs {least:,} looks or more, and {looks} has {len(audited):,} at these "
            f"images. Write the targets without it, look at them by `gpt4image audit --targets FILE --labels {looks} "
            f"--looks {least}`, then give this command again."
        )
    if not found.images:
        raise ConfigError(
            f"--max-error {max_error:g} cannot be promised: {found.wrong} of the looks at the surest images, "
            f"{found.looks:,}, are wrong. Give a higher share, more looks (`gpt4image audit --looks "
            f"{2 * len(audited)}`), or a few labels for the teacher to learn from."
        )
    rows = np.sort(train[np.argsort(-confidence, kind="stable")[: found.images]])
    return targets.take(rows), (
        f"At most {max_error:.1%} of the {found.images:,} targets are wrong, with 95 % confidence: {found.wrong} of "
        f"{found.looks:,} looks at them were. {len(train) - found.images:,} training images have no target; `gpt4image "
        "review --targets` shows these first."
    )


MAX_CANDIDATES = 20_000  # clusters are sought among the least sure images where there are more
LEAST_WEIGHT = 1e-3


def doubt_of(probabilities: Probabilities) -> NDArray[np.floating]:
    """Return (n,) how unsure the class of images is: 1 minus the distance of the two most probable classes."""
    two = two_best(probabilities)[1]
    return 1.0 - (two[:, 0] - two[:, 1])


def to_label(vectors: Vectors, probabilities: Probabilities, candidates: Ints, count: int, seed: int) -> Ints:
    """Return at most ``count`` of the ``candidates``, positions of described images without a label, to label next.

    They are unsure and unlike each other: images are clustered by k-means, each with its doubt, 0 to 1, as weight
    (Zhdanov 2019, arXiv 1901.05954). The image nearest to the mean of each cluster is returned, those of the heaviest
    clusters first. ``vectors`` are (N, D) text embeddings, ``probabilities`` (N, K).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    doubt = doubt_of(take(probabilities, candidates))
    rows = np.sort(np.argsort(-doubt, kind="stable")[:MAX_CANDIDATES])
    weights = doubt[rows] + LEAST_WEIGHT
    if len(rows) <= count:
        return candidates[rows[np.argsort(-weights, kind="stable")]]
    points = np.asarray(vectors[candidates[rows]], np.float64)
    clusters = KMeans(count, n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal texts: fewer clusters than asked for
        own = np.asarray(clusters.fit_predict(points, sample_weight=weights))
    far = np.asarray(clusters.transform(points))[np.arange(len(points)), own]
    order = np.lexsort((far, own))
    nearest = order[np.unique(own[order], return_index=True)[1]]
    best = nearest[np.argsort(-np.bincount(own, weights=weights)[own[nearest]], kind="stable")]
    return candidates[rows[best]]
