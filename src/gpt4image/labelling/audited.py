"""Images that a person audited: reading their file, and what it says of targets, by ``selecting.estimate``."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts.answers import overlap
from gpt4image.artifacts.probabilities import take
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, DataError, first_few
from gpt4image.data.manifest import BOXES, DIGEST, LABEL_COLUMNS, REVIEW, read_table
from gpt4image.labelling.evidence import SAME_OBJECT
from gpt4image.selecting.estimate import Floats, Ints, Promise, Share, expected_right, promise, share_of_classes
from gpt4image.selecting.order import at_random

AUDIT_FILE = Path("audit.csv")  # file of audited images, where no other is named


def audited_images(path: Path, digests: Sequence[str]) -> tuple[Ints, list[str]]:
    """Return the rows of N images that a person has looked at, a simple random sample of all, and the cells of their
    labels, empty where the person was not sure, from the file that ``audit`` wrote."""
    if not path.is_file():
        return np.zeros(0, np.int64), []
    table = read_table(path, str(path))
    column = next((name for name in (BOXES, *LABEL_COLUMNS) if name in table), "")
    if not column or not {DIGEST, REVIEW} <= table.keys():
        raise DataError(f"{path} was not written by `gpt4image audit`; give the file that it wrote.")
    if unknown := sorted({str(note or "") for note in table[REVIEW]} - {"", "checked", "unsure"}):
        raise DataError(f"{path}: review is {first_few(unknown)}; it is checked, unsure or empty. Correct these cells.")
    rows = zip(table[DIGEST], table[column], table[REVIEW], strict=True)
    said = {digest: str(cell) if note == "checked" else "" if note else None for digest, cell, note in rows}
    order = at_random(digests).tolist()
    # Where an image is missing, the file is of other images, too; what comes before it is still a random sample.
    asked = next((place for place, row in enumerate(order) if digests[row] not in said), len(order))
    seen = [(row, cell) for row in order[:asked] if (cell := said[digests[row]]) is not None]
    return np.array([row for row, _ in seen], np.int64), [cell for _, cell in seen]


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


def share_of_targets(targets: Targets, looks: Path) -> Share | None:
    """Return the share of training images whose target is right; None with too few audited, or several classes each."""
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
            f"--max-error {max_error:g} needs {least:,} audited images or more, and {looks} has {len(audited):,}. "
            f"Write targets without it, audit them "
            f"by `gpt4image audit --targets FILE --labels {looks} --looks {least}`, then give this command again."
        )
    if not found.images:
        raise ConfigError(
            f"--max-error {max_error:g} cannot be promised: of the {found.looks:,} surest audited ones {found.wrong} "
            "are wrong. Give a higher share, more audited images (`gpt4image audit --looks "
            f"{2 * len(audited)}`), or a few labels for the teacher to learn from."
        )
    rows = np.sort(train[np.argsort(-confidence, kind="stable")[: found.images]])
    return targets.take(rows), (
        f"At most {max_error:.1%} of the {found.images:,} targets are wrong, with 95 % confidence: {found.wrong} of "
        f"{found.looks:,} audited ones were. {len(train) - found.images:,} training images have no target; `gpt4image "
        "review --targets` shows these first."
    )
