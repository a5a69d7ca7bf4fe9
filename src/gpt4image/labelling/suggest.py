"""Which images to label next, and which to describe: those that would say most, no two of them alike."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.data.image_set import NO_LABEL

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_CANDIDATES = 20_000  # clusters are sought among the least sure images where there are more
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One image that is worth a label or a description.

    Attributes:
        row: its position in the set.
        action: label or describe.
        doubt: how unsure its class is, 0 to 1; None where nothing is known of it.
        why: one line for people.
    """

    row: int
    action: str
    doubt: float | None
    why: str


def doubt_of(probabilities: Floats) -> NDArray[np.float64]:
    """Return (n,) how unsure the class of images is: 1 minus the distance of the two most probable classes."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return 1.0 - (two[:, 1] - two[:, 0])


def contradiction(text: Floats, vision: Floats) -> NDArray[np.float64]:
    """Return (n,) how surely two views name different classes: as surely as the less sure one; 0 where they agree.

    Args:
        text: (n, K) probabilities by text; a row of zeros where there is none.
        vision: (n, K) probabilities by a model; a row of zeros where it has no say.
    """
    silent = ~(text.any(axis=1) & vision.any(axis=1))
    surely = 1.0 - np.maximum(doubt_of(text), doubt_of(vision))
    return np.where(silent | (text.argmax(axis=1) == vision.argmax(axis=1)), 0.0, surely)


def spread(vectors: Floats, doubt: Floats, count: int, seed: int) -> Ints:
    """Return the positions of ``count`` images that are unsure and unlike each other, the most telling first.

    Images are clustered by k-means, each counting by its doubt (Zhdanov 2019, arXiv 1901.05954), and the one nearest to
    the centre of each cluster stands for it. Clusters come in the order of the doubt they hold.

    Args:
        vectors: (n, D) what they look like.
        doubt: (n,) from 0 to 1.
        count: at most this many.
        seed: of the clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = np.sort(np.argsort(-doubt, kind="stable")[:MAX_CANDIDATES])
    weights = doubt[rows] + LEAST_WEIGHT
    if len(rows) <= count:
        return rows[np.argsort(-weights, kind="stable")]
    points = np.asarray(vectors[rows], np.float64)
    clusters = KMeans(count, n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal texts: fewer clusters than asked for
        own = np.asarray(clusters.fit_predict(points, sample_weight=weights))
    far = np.asarray(clusters.transform(points))[np.arange(len(rows)), own]
    order = np.lexsort((far, own))
    nearest = order[np.unique(own[order], return_index=True)[1]]
    held = np.bincount(own, weights=weights)
    return rows[nearest[np.argsort(-held[own[nearest]], kind="stable")]]


def to_label(
    vectors: Floats,
    probabilities: Floats,
    candidates: Ints,
    count: int,
    seed: int,
    contradicted: Floats | None = None,
) -> list[Suggestion]:
    """Return which described images to label next.

    Args:
        vectors: (N, D) text embeddings.
        probabilities: (N, K) what is known of their classes.
        candidates: positions of those without a label.
        count: at most this many.
        seed: of the clusters.
        contradicted: (N,) as ``contradiction`` returns it, where a model has a say: together, two views that are sure
            of different classes may look decided.
    """
    unsure = doubt_of(probabilities[candidates])
    doubt = unsure if contradicted is None else np.maximum(unsure, contradicted[candidates])
    why = np.where(doubt > unsure, "its text and the run disagree", "stands for others as unsure")
    chosen = spread(vectors[candidates], doubt, count, seed)
    return [Suggestion(row=int(candidates[i]), action="label", doubt=float(doubt[i]), why=str(why[i])) for i in chosen]


def to_describe(
    probabilities: Floats, described: Bools, labels: Ints, candidates: Ints, count: int, seed: int
) -> list[Suggestion]:
    """Return which images to describe next.

    Those that a model is least sure of come first, unlike each other in what it takes them for. Labelled images, of
    which no model has a say, follow class by class, the class with the fewest described labels ahead: a text teaches
    most where its label is known. Others come last, in the order they are in.

    Args:
        probabilities: (N, K) what a model says of images without a description; rows of zeros where there is none.
        described: (N,) which images have a description.
        labels: (N,) given labels, NO_LABEL where there is none.
        candidates: positions of the images without a description.
        count: at most this many.
        seed: of the clusters.
    """
    seen = candidates[probabilities[candidates].any(axis=1)]
    doubt = doubt_of(probabilities[seen])
    asked = spread(np.sqrt(probabilities[seen]), doubt, count, seed) if len(seen) else []
    unsure = [
        Suggestion(
            row=int(seen[i]),
            action="describe",
            doubt=float(doubt[i]),
            why=f"the model gives its guess {probabilities[seen[i]].max():.0%}",
        )
        for i in asked
    ]
    known = np.bincount(labels[described & (labels != NO_LABEL)], minlength=int(labels.max(initial=0)) + 1)
    waiting: dict[int, list[int]] = defaultdict(list)
    for row in np.setdiff1d(candidates, [item.row for item in unsure]).tolist():
        waiting[int(labels[row])].append(row)
    others = waiting.pop(NO_LABEL, [])
    ranked = sorted(
        (int(known[label]) + place, label, row) for label, rows in waiting.items() for place, row in enumerate(rows)
    )
    by_class = [
        Suggestion(row=row, action="describe", doubt=None, why=f"its class has {before} described labels before it")
        for before, _, row in ranked
    ]
    rest = [Suggestion(row=row, action="describe", doubt=None, why="no description") for row in others]
    return (unsure + by_class + rest)[:count]


def write_suggestions(
    path: Path, suggestions: Sequence[Suggestion], keys: Sequence[str], guesses: Sequence[str]
) -> None:
    """Write suggestions as CSV, atomically: rank, action, key, what the class is taken for, doubt, why.

    Args:
        path: of the file.
        suggestions: in their order.
        keys: key of each.
        guesses: the most probable class of each; empty where nothing is known.
    """
    import csv
    import io

    from gpt4image.base.files import write_text
    from gpt4image.base.visible import csv_cell

    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(("rank", "action", "key", "guess", "doubt", "why"))
    ranks: dict[str, int] = defaultdict(int)
    for item, key, guess in zip(suggestions, keys, guesses, strict=True):
        ranks[item.action] += 1
        doubt = "" if item.doubt is None else f"{item.doubt:.4f}"
        rows.writerow((ranks[item.action], item.action, csv_cell(key), csv_cell(guess), doubt, csv_cell(item.why)))
    write_text(path, buffer.getvalue())
