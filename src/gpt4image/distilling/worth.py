"""What more human labels would add to a model that was distilled, by a rule of thumb; and which images to review."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from gpt4image.artifacts.targets import Targets
from gpt4image.artifacts.top_k_probs import chosen
from gpt4image.data import NO_LABEL
from gpt4image.labelling.looks import Share, expected_right, share_of_targets
from gpt4image.labelling.suggest import doubt_of

USUAL = 0.15
"""Accuracy that a model loses per wrong target, where errors are scattered. Where each wrong one names the same other
class, it is up to 0.75; more than one was never seen (docs/research/log/2026-12-01-where-it-ends.md)."""
FEWEST_LABELS = 30
"""Held-out labels that say how often targets are right."""


def worth_of_labels(targets: Targets, looks: Path, accuracy: float | None, review: str) -> str:
    """Return what true labels of all training images would add, and how many to review; nothing if all have a label, or
    images have several classes.

    ``looks`` is the file of `audit`, which need not exist. Labels cannot add more than the accuracy on held-out images,
    if it is known, lacks. ``review`` is the command that shows the most doubtful images first.
    """
    train = targets.splits == "train"
    if targets.labels.ndim > 1 or not (unlabelled := np.flatnonzero(train & (targets.labels == NO_LABEL))).size:
        return ""
    said = chosen(targets.probabilities, unlabelled)
    expected = 1 - expected_right(said[:])[1]
    found, by = _right(targets, np.flatnonzero(train), looks)
    right, least = (1 - float(expected.mean()),) * 2 if found is None else (found.share, found.low)
    some = len(unlabelled) / int(train.sum())
    most = min((1 - least) * some, 1.0 if accuracy is None else 1 - accuracy)
    order = np.argsort(-doubt_of(said), kind="stable")
    first = int(np.searchsorted(np.cumsum(expected[order]), expected.sum() / 2)) + 1
    usual = min(USUAL * (1 - right) * some, most)
    return (
        f"The targets of {train.sum():,} training images are right for about {right:.1%}, {by}. By a rule of thumb, "
        f"true labels for all would now add about {100 * usual:.1f} points of accuracy (0 to {100 * most:.1f}). Review "
        f"the first {first:,} images, which hold about half of the wrong targets:\n  {review}"
    )


def _right(targets: Targets, train: NDArray[np.int64], looks: Path) -> tuple[Share | None, str]:
    """Return the share of right targets by looks or by held-out labels; None where only the answers say it."""
    found = share_of_targets(targets, looks)
    if found is not None:
        return found, f"by {found.looks:,} looks ({found.low:.1%} to {found.high:.1%})"
    held_out = targets.out_of_fold[train] & (targets.labels[train] != NO_LABEL)
    if held_out.sum() < FEWEST_LABELS or targets.facts.noise:
        return None, "if they are as good as the answers state"
    seen = train[held_out]
    right = expected_right(chosen(targets.probabilities, seen)[:])[0] == targets.labels[seen]
    counted = binomtest(int(right.sum()), len(seen))
    low, high = counted.proportion_ci(method="wilson")
    found = Share(share=float(right.mean()), low=low, high=high, looks=len(seen), total=len(train))
    return found, f"by {found.looks:,} labels ({found.low:.1%} to {found.high:.1%})"
