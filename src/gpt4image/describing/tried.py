"""Findings of a trial: each describer and prompt on the same images, compared in pairs, and the one to take.

Legend: N images of the sample, L of them with a label, K combinations of a describer and a prompt.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.intervals import Interval, paired, wilson
from gpt4image.pages.numbers import duration, p_value, percent, percent_interval, points, points_interval, text_table
from gpt4image.selecting.paired import ALPHA, exact_p, holm, images_to_decide

MOST_CONFUSED = 3
SMALL = 0.05  # a difference that is worth finding, where nothing is known of the true one


@dataclass(frozen=True)
class Tried:
    """What one combination answered of N images: (N,) names, empty without one; (N,) whether it was asked.

    ``usd`` and ``seconds`` are means per image, None where that is not known; ``failed`` counts images without a usable
    answer by the reason, ``none`` and ``outside`` answers "none of these" and classes that are not in the list.
    """

    name: str
    said: NDArray[np.object_]
    asked: NDArray[np.bool_]
    usd: float | None = None
    seconds: float | None = None
    failed: Counter[str] = field(default_factory=Counter[str])
    none: int = 0
    outside: int = 0


class Compared(NamedTuple):
    """A combination against another on the same labelled images: difference of accuracies, its interval, the corrected
    p-value, and about how many labelled images would show such a difference."""

    difference: float
    ci95: Interval
    p: float
    decided: int | None


class Findings(NamedTuple):
    """Rows of K combinations, the numbers of images with a label and of those with different answers, the row of the
    recommended one, None where that is not known, and why, in sentences."""

    rows: list[dict[str, Any]]
    labelled: int
    differ: NDArray[np.int64]
    best: int | None
    why: list[str]


def differing(tried: Sequence[Tried]) -> NDArray[np.int64]:
    """Return the images to which combinations gave different answers, those with the most answers first."""
    answers = [{one.said[row] for one in tried if one.asked[row]} for row in range(len(tried[0].said))]
    order = sorted(range(len(answers)), key=lambda row: -len(answers[row]))
    return np.array([row for row in order if len(answers[row]) > 1], np.int64)


def find(tried: Sequence[Tried], truth: Sequence[str]) -> Findings:
    """Return what answers show by the true class of each image, empty where that is not known."""
    known = np.array([bool(name) for name in truth], bool)
    right = [one.said == np.array(truth, object) for one in tried]
    pairs = list(itertools.combinations(range(len(tried)), 2))
    both = [known & tried[i].asked & tried[j].asked for i, j in pairs]
    p_values = dict(zip(pairs, holm([exact_p(right[i][b], right[j][b]) for (i, j), b in zip(pairs, both, strict=True)]),
                        strict=True))  # fmt: skip

    def against(one: int, other: int) -> Compared | None:
        rows = known & tried[one].asked & tried[other].asked
        if one == other or not rows.any():
            return None
        differences = right[one][rows].astype(np.float64) - right[other][rows]
        difference, interval = paired(differences)
        decided = images_to_decide(difference, float(np.abs(differences).mean()), len(pairs))
        return Compared(difference, interval, p_values[min(one, other), max(one, other)], decided)

    def is_worse(one: int) -> bool:
        found = (against(one, other) for other in range(len(tried)))
        return any(each is not None and each.difference < 0 and each.p < ALPHA for each in found)

    scores = [float(right[k][rows].mean()) if (rows := known & one.asked).any() else None
              for k, one in enumerate(tried)]  # fmt: skip
    most = max((int((known & one.asked).sum()) for one in tried), default=0)
    fit = [k for k, one in enumerate(tried) if 2 * (known & one.asked).sum() >= most > 0 and not is_worse(k)]
    best = min(fit, key=lambda k: (math.inf if tried[k].usd is None else tried[k].usd, -(scores[k] or 0)), default=None)
    rows = list[dict[str, Any]]()
    for k, one in enumerate(tried):
        measured = int((known & one.asked).sum())
        wrong = Counter((truth[row], one.said[row]) for row in np.flatnonzero(known & one.asked & ~right[k]).tolist())
        confused = [(*pair, count) for pair, count in wrong.most_common() if pair[1]][:MOST_CONFUSED]
        found = None if best is None else against(k, best)
        agreement, on = _agreement(tried, k)
        rows.append({
            "name": one.name, "asked": int(one.asked.sum()), "answered": int((one.said[one.asked] != "").sum()),
            "labelled": measured, "accuracy": scores[k],
            "accuracy_ci95": None if scores[k] is None else wilson(scores[k] or 0.0, measured),
            "agreement": agreement, "agreement_ci95": None if agreement is None else wilson(agreement, on),
            "usd_per_1000": None if one.usd is None else 1000 * one.usd, "seconds": one.seconds, "none": one.none,
            "outside": one.outside, "failed": dict(one.failed), "confuses": confused,
            "difference": found and found.difference, "difference_ci95": found and found.ci95,
            "p": found and found.p, "decided": found and found.decided,
        })  # fmt: skip
    differ = differing(tried)
    why = _why(rows, best, int(known.sum()), len(differ), len(pairs))
    return Findings(rows, int(known.sum()), differ, best, why)


def _agreement(tried: Sequence[Tried], k: int) -> tuple[float | None, int]:
    """Return how often a combination names the class that another names, on average over the others, and on how many
    images."""
    own, shares, on = tried[k], list[float](), 0
    for j, other in enumerate(tried):
        rows = own.asked & other.asked
        if j != k and rows.any():
            shares.append(float((own.said[rows] == other.said[rows]).mean()))
            on = max(on, int(rows.sum()))
    return (sum(shares) / len(shares), on) if shares else (None, 0)


def _why(rows: Sequence[dict[str, Any]], best: int | None, labelled: int, differ: int, pairs: int) -> list[str]:
    """Return what to take and why, and what is open."""
    if best is None:
        asked = max((row["asked"] for row in rows), default=0)
        if not asked:
            return ["Nobody has answered."]
        needed = images_to_decide(SMALL, differ / asked, max(pairs, 1))
        return [
            "No image of the sample has a label, so it is not known which answers are right. "
            f"The answers differ on {differ:,} of {asked:,} images: labels of these alone tell which is better. "
            "Add them to DATA, and give the command again: nothing is paid for again.",
            f"About {needed:,} labelled images would show a difference of {100 * SMALL:.0f} points.",
        ]
    own = rows[best]
    cost = "at an unknown cost" if own["usd_per_1000"] is None else f"${own['usd_per_1000']:,.2f} per 1,000 images"
    why = [
        f"{own['name']}, {cost}: {percent(own['accuracy'])} right (95 % interval "
        f"{percent_interval(own['accuracy_ci95'])}) on {own['labelled']:,} labelled images. It is the cheapest of "
        f"{len(rows)} that is not shown to be worse than another."
    ]
    for row in rows:
        if row["difference"] is None or row["p"] is None:
            continue
        much = f"{points(row['difference'])} points ({points_interval(row['difference_ci95'])}, p {p_value(row['p'])})"
        if row["p"] < ALPHA:
            why.append(f"{row['name']} is {'better' if row['difference'] > 0 else 'worse'}: {much}.")
        elif row["difference"] > 0:
            why.append(
                f"{row['name']} was right more often, {much}: inconclusive. About {row['decided']:,} labelled images "
                "would show such a difference."
            )
        elif 2 * row["labelled"] < own["labelled"]:
            why.append(f"{row['name']} was asked about too few images to be recommended.")
    if labelled < own["asked"]:
        why.append(
            f"Accuracy is of the {labelled:,} images with a label; labels of others with different answers tell more."
        )
    return why


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table for a terminal."""
    by_label = any(row["accuracy"] is not None for row in rows)
    kind = "accuracy" if by_label else "agreement"
    lines = [("", "right" if by_label else "agrees", "95 % interval", "$ per 1,000", "s/image", "no answer")]
    for row in rows:
        usd = "?" if row["usd_per_1000"] is None else f"{row['usd_per_1000']:,.2f}"
        lines.append(
            (row["name"], percent(row[kind]), percent_interval(row[f"{kind}_ci95"]), usd, duration(row["seconds"]),
             f"{row['asked'] - row['answered']:,}/{row['asked']:,}")
        )  # fmt: skip
    return text_table("", lines, numbers=True)
